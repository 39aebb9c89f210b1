"""Sampling in shapes that stay, for the written-out decoder on a GPU: there, launching a step's kernels takes
longer than most of them.

Contexts with n rows each stand in slots of a pool: blocks of keys and values that are allocated once, with a
mask for what is not there. What changes from step to step are tensors on the device (token, place in the
tail, length of the context), so a step of the same shapes is a CUDA graph (`graphs.py`). Shapes grow and
shrink in few sizes: slots and tails are half-octaves (1, 1.5, 2, 3, 4, ...), so at most a third of a step is
padding, and prefixes are multiples of 64.

Axes: _C contexts in slots, _R = C * n their rows, _P tokens of a prefix, _T of a tail, _K heads of keys, _d
size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch

from forethought.engines.torch.forest.decoder import Decoder
from forethought.engines.torch.forest.given import Captured
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.forest.paths import PolicyPaths
from forethought.engines.torch.sampling.caches import Beside, apart, prefixes
from forethought.engines.torch.sampling.cohorts import Cohorts, places, renumbered
from forethought.engines.torch.sampling.decoding import Decoding, head_of, spans_of
from forethought.engines.torch.sampling.graphs import Graphs, graphs_on
from forethought.engines.torch.sampling.prefill import Prefilled, by_decoding, prefill

TOKENS = 64  # prefixes come in multiples of it, and no tail is shorter

Block = tuple[torch.Tensor, torch.Tensor]


def padded(size: int, least: int = 1) -> int:
    """The smallest of least * (1, 1.5, 2, 3, 4, 6, ...) that is not less than `size`; whole numbers only."""
    bound = least
    while bound < size:
        half = bound + bound // 2
        bound = half if bound % 2 == 0 and half >= size else bound * 2
    return bound


class Pool:
    """Contexts of one adapter, with n rows each. The arrays lie in the host's memory, the blocks on the
    device."""

    def __init__(self, n: int, adapter: str):
        self.n, self.adapter = n, adapter
        self.prefix: dict[int, Block] = {}  # layer -> keys, values [C, K, P, d]
        self.tail: dict[int, Block] = {}  # [C, n, K, T, d]
        self.sizes = (0, 0, 0)  # C, P and T that there is room for
        self.row_Cn = np.full((0, n), -1)  # which row of all; -1: none, or one that has ended
        self.t_C, self.length_C = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    def live(self) -> np.ndarray:
        """[C] whether some row of a context goes on; the others are computed on with it."""
        return (self.row_Cn >= 0).any(1)

    def shape(self) -> tuple[int, int, int]:
        """(C, P, T) of the next step: the slots and the part of the tails that are in use, padded."""
        slots = self._used()
        return slots, self.sizes[1], min(padded(int(self.t_C[:slots].max()) + 1, TOKENS), self.sizes[2])

    def enter(self, done: Prefilled, rows: np.ndarray, room: int) -> bool:
        """Contexts with the numbers of their rows. True where blocks have moved."""
        count, taken = len(done.lengths), int(self.live().sum())
        moved = self._reach(done.captured, taken + count, max(done.lengths), room)
        slots = (~self.live()).nonzero()[0][:count]
        index = torch.from_numpy(slots).to(done.index_BP.device)
        # layer by layer: two whole caches at once may not fit
        for layer, kv in prefixes(done.captured, done.index_BP):
            for block, new in zip(self.prefix[layer], kv, strict=True):
                block[index, :, : new.shape[2]] = new
        self.row_Cn[slots] = rows.reshape(count, self.n)
        self.length_C[slots], self.t_C[slots] = done.lengths, 0
        return moved

    def keep(self, numbers: np.ndarray) -> None:
        """The rows' new numbers by their old ones. Where fewer slots hold what is left, those beyond move
        into free ones."""
        self.row_Cn = numbers[self.row_Cn]
        live = self.live()
        self.t_C[~live] = self.length_C[~live] = 0
        bound = padded(int(live.sum()))
        if bound < self._used():
            source = bound + live[bound:].nonzero()[0]
            self._move(source, (~live[:bound]).nonzero()[0][: len(source)])

    def _used(self) -> int:
        """Slots up to the last that is taken, padded."""
        live = self.live().nonzero()[0]
        return padded(int(live[-1]) + 1) if len(live) else 0

    def _reach(self, like: Captured, contexts: int, prefix: int, room: int) -> bool:
        """Room for so many contexts with such prefixes and tails; what is there moves along."""
        whole = lambda tokens: -(-tokens // TOKENS) * TOKENS  # noqa: E731
        sizes = tuple(
            max(pair) for pair in zip(self.sizes, (padded(contexts), whole(prefix), whole(room)), strict=True)
        )
        if sizes == self.sizes:
            return False
        c, p, t = self.sizes = sizes
        for layer, kv in like.items():
            self.prefix[layer] = tuple(
                _grown(old, x, (c, x.shape[1], p, x.shape[2]))
                for old, x in _pairs(self.prefix.get(layer), kv)
            )
            self.tail[layer] = tuple(
                _grown(old, x, (c, self.n, x.shape[1], t, x.shape[2]))
                for old, x in _pairs(self.tail.get(layer), kv)
            )
        more = c - len(self.t_C)
        self.row_Cn = np.concatenate([self.row_Cn, np.full((more, self.n), -1)])
        self.t_C, self.length_C = np.pad(self.t_C, (0, more)), np.pad(self.length_C, (0, more))
        return True

    def _move(self, source: np.ndarray, target: np.ndarray) -> None:
        for blocks in (*self.prefix.values(), *self.tail.values()):
            for block in blocks:
                block[torch.from_numpy(target).to(block.device)] = block[
                    torch.from_numpy(source).to(block.device)
                ]
        for array, empty in ((self.row_Cn, -1), (self.t_C, 0), (self.length_C, 0)):
            array[target] = array[source]
            array[source] = empty


class _Look:
    """A pool's keys and values as one step sees them: masks and places are tensors, shared by all layers."""

    def __init__(self, pool: Pool, t_R: torch.Tensor, length_R: torch.Tensor, shape: tuple[int, int, int]):
        self.pool, self.shape = pool, shape
        _, p, t = shape
        at = lambda size: torch.arange(size, device=t_R.device)  # noqa: E731
        bias = lambda hole: torch.zeros(hole.shape, device=hole.device).masked_fill_(hole, float("-inf"))  # noqa: E731
        self.bias_C11P = bias(at(p) >= length_R[:: pool.n, None])[:, None, None]
        self.bias_R11T = bias(at(t) > t_R[:, None])[:, None, None]
        self.at_R111 = t_R[:, None, None, None]

    def attend(
        self, layer: int, q_RHd: torch.Tensor, k_RKd: torch.Tensor, v_RKd: torch.Tensor
    ) -> torch.Tensor:
        """[R, H * d] of scaled queries; the new keys and values are kept."""
        slots, _, t = self.shape
        prefix = tuple(block[:slots] for block in self.pool.prefix[layer])
        tail = tuple(block[:slots].flatten(0, 1)[:, :, :t] for block in self.pool.tail[layer])
        for block, new in zip(tail, (k_RKd, v_RKd), strict=True):
            block.scatter_(2, self.at_R111.expand(-1, new.shape[1], 1, new.shape[2]), new[:, :, None])
        return apart(q_RHd, prefix, tail, self.bias_C11P, self.bias_R11T)


def _pairs(old: Block | None, kv: Block) -> zip:
    return zip(old or (None, None), kv, strict=True)


def _grown(old: torch.Tensor | None, like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Zeros, not whatever lies in memory: what a mask hides is still multiplied by zero."""
    new = like.new_zeros(shape)
    if old is not None:
        new[tuple(map(slice, old.shape))] = old
    return new


class Slots:
    """`Steps` by pools, one for each adapter and number of rows; see `Cohorts`, which computes the same."""

    def __init__(
        self,
        decoder: Decoder,
        head: Callable,
        device: torch.device,
        adapters: Sequence[str] | None = None,
        graphs: Graphs | None = None,
        kept: Mapping[str, PolicyPaths] | None = None,
    ):
        self.kept = kept or {}
        self.decoding, self.head, self.device = Decoding(decoder, adapters), head, device
        self.graphs = graphs or graphs_on(device)
        self.pools: dict[tuple[str, int], Pool] = {}
        self.live = 0

    def enter(
        self, contexts: Sequence[tuple[int, ...]], n: Sequence[int], room: Sequence[int], adapter: str = ""
    ) -> torch.Tensor:
        """n[i] rows of at most room[i] tokens below each context, behind the rows there are: the logits
        [contexts, V] after each."""
        moved = self.decoding.reach(max(len(c) + most for c, most in zip(contexts, room, strict=True)) - 1)
        hidden, start = [], 0
        for k, same in groupby(n):
            end = start + len(list(same))
            forward = by_decoding(self.decoding, adapter)
            done = prefill(forward, contexts[start:end], self.device, self.kept.get(adapter))
            pool = self.pools.setdefault((adapter, k), Pool(k, adapter))
            rows = np.arange(self.live, self.live + k * (end - start))
            moved |= pool.enter(done, rows, max(room[start:end]))
            hidden.append(done.hidden_BH)
            self.live, start = self.live + len(rows), end
        if moved:
            self.graphs.clear()
        return self.head(torch.cat(hidden)).float()

    def step(self, token_R: np.ndarray) -> torch.Tensor:
        """The next token of each row: the logits [R, V] after it."""
        pools = [self.pools[key] for key in sorted(self.pools) if self.pools[key].live().any()]
        shapes = [pool.shape() for pool in pools]
        rows = np.concatenate(
            [pool.row_Cn[:slots].ravel() for pool, (slots, _, _) in zip(pools, shapes, strict=True)]
        )
        at, given_3R = places(rows), np.zeros((3, len(rows)), dtype=np.int64)
        given_3R[0, at] = token_R
        counts = [
            np.stack([pool.t_C, pool.length_C])[:, : shape[0]].repeat(pool.n, 1)
            for pool, shape in zip(pools, shapes, strict=True)
        ]
        given_3R[1:] = np.concatenate(counts, 1)
        key = tuple((pool.adapter, pool.n, *shape) for pool, shape in zip(pools, shapes, strict=True))
        step = lambda given: self._forward(pools, shapes, given)  # noqa: E731
        hidden = self.graphs(key, step, torch.from_numpy(given_3R).to(self.device))
        for pool in pools:
            pool.t_C += pool.live()
        return self.head(hidden[torch.from_numpy(at).to(self.device)]).float()

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows (a mask) alone."""
        numbers, self.live = renumbered(rows), int(rows.sum())
        for pool in self.pools.values():
            pool.keep(numbers)

    def _forward(
        self, pools: Sequence[Pool], shapes: Sequence[tuple[int, int, int]], given_3R: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states [R, H]. Run again with the same `given` it writes the same: t counts on outside."""
        token_R, t_R, length_R = given_3R
        sizes = [slots * pool.n for pool, (slots, _, _) in zip(pools, shapes, strict=True)]
        looks = [
            _Look(*given)
            for given in zip(pools, t_R.split(sizes), length_R.split(sizes), shapes, strict=True)
        ]
        spans = spans_of(zip([pool.adapter for pool in pools], sizes, strict=True))
        return self.decoding.run(token_R, length_R + t_R, Beside(looks, sizes), spans)


def by_torch(
    model: torch.nn.Module,
    decoder: Decoder | None,
    adapters: Sequence[str] | None = None,
    static: bool | None = None,
    kept: Mapping[str, PolicyPaths] | None = None,
) -> Cohorts | Slots:
    """How PyTorch samples from `model`. `static`: in shapes that stay; None: where that pays, on a GPU.
    `kept`: the paths of each adapter ("": the model as it is, or the base) from earlier calls."""
    device = next(model.parameters()).device
    head = head_of(decoder, adapters) if decoder else logits_of(model)
    if decoder and (device.type == "cuda" if static is None else static):
        return Slots(decoder, head, device, adapters, kept=kept)
    return Cohorts(model.base_model, head, device, decoder, adapters, kept)
