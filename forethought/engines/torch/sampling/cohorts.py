"""Sampling by PyTorch, on any device and for any model whose attention is `attention.attend`.

Contexts that enter together are a cohort: computed once as a packed forest, their keys and values in one
cache (`caches.py`). All rows of all cohorts go through the model's layers together; only attention looks at
one cohort after another. Shapes follow what is alive, which is least work; where launching it costs more than
doing it, `slots.py` computes the same in shapes that stay.

Axes: _R all rows, _B contexts of a cohort with n rows each, _P tokens of the longest context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np
import torch

from forethought.engines.torch.forest.attention import Forest, using
from forethought.engines.torch.forest.decoder import Decoder
from forethought.engines.torch.forest.given import Captured, Given
from forethought.engines.torch.forest.packing import Packed
from forethought.engines.torch.forest.paths import PolicyPaths
from forethought.engines.torch.forest.positions import grid_of
from forethought.engines.torch.sampling.caches import Apart, Beside, Together, cache, prefixes
from forethought.engines.torch.sampling.decoding import Decoding, spans_of
from forethought.engines.torch.sampling.prefill import by_decoding, prefill


def places(rows: np.ndarray) -> np.ndarray:
    """[R] where each row stands, from which row stands at each place (-1: none that goes on)."""
    taken = (rows >= 0).nonzero()[0]
    at = np.empty(len(taken), dtype=np.int64)
    at[rows[taken]] = taken
    return at


def renumbered(kept: np.ndarray) -> np.ndarray:
    """New numbers by old ones when these rows (a mask) are kept; -1 for those that are not, and for -1."""
    return np.append(np.where(kept, kept.cumsum() - 1, -1), -1)


class _Cohort:
    def __init__(
        self,
        kept: Apart | Together,
        rows: np.ndarray,
        adapter: str,
        after_B: torch.Tensor,
        room_B: torch.Tensor,
    ):
        self.cache, self.n, self.t, self.adapter = kept, kept.n, 0, adapter
        # which row of all stands at each of its places; one that has ended is computed on while a sibling
        # lives
        self.rows = rows
        self.after_B, self.last_B = after_B, after_B + room_B - 1

    def positions(self) -> torch.Tensor:
        """[rows] of the next tokens; rows that have ended may not run out of the model's positions."""
        return torch.minimum(self.after_B + self.t, self.last_B).repeat_interleave(self.n)

    def keep(self, numbers: np.ndarray) -> None:
        self.rows = numbers[self.rows]
        going = (self.rows >= 0).reshape(-1, self.n).any(1)
        if going.any() and not going.all():
            contexts = torch.from_numpy(going.nonzero()[0]).to(self.after_B.device)
            self.cache.keep(contexts)
            self.after_B, self.last_B = self.after_B[contexts], self.last_B[contexts]
            self.rows = self.rows[going.repeat(self.n)]


class Cohorts:
    """`inner` gives hidden states, `head` logits. Where the model has a written-out forward (`decoder.py`),
    that runs instead of `inner`, and with `adapters` each row may name one of them ("": the base). `kept`:
    the paths of each, from earlier calls."""

    def __init__(
        self,
        inner: Callable,
        head: Callable,
        device: torch.device,
        decoder: Decoder | None = None,
        adapters: Sequence[str] | None = None,
        kept: Mapping[str, PolicyPaths] | None = None,
    ):
        self.inner, self.head, self.device = inner, head, device
        self.decoder, self.adapters, self.kept = decoder, adapters, kept or {}
        self.grid = grid_of(inner)
        self.cohorts: list[_Cohort] = []  # by adapter
        self.live = 0

    def enter(
        self, contexts: Sequence[tuple[int, ...]], n: Sequence[int], room: Sequence[int], adapter: str = ""
    ) -> torch.Tensor:
        """n[i] rows of at most room[i] tokens below each context, behind the rows there are: the logits
        [contexts, V] after each."""
        logits, start = [], 0
        for k, same in groupby(n):
            end = start + len(list(same))
            logits.append(self._enter(contexts[start:end], k, room[start:end], adapter))
            start = end
        return torch.cat(logits)

    def step(self, token_R: np.ndarray) -> torch.Tensor:
        """The next token of each row: the logits [R, V] after it."""
        at = places(np.concatenate([c.rows for c in self.cohorts]))
        tokens = np.zeros(sum(len(c.rows) for c in self.cohorts), dtype=np.int64)
        tokens[at] = token_R
        for c in self.cohorts:
            c.cache.t = c.t
        positions = torch.cat([c.positions() for c in self.cohorts])
        hidden = self._forward(torch.from_numpy(tokens).to(self.device), positions)
        for c in self.cohorts:
            c.t += 1
        return self.head(
            hidden
            if np.array_equal(at, np.arange(len(tokens)))
            else hidden[torch.from_numpy(at).to(self.device)]
        ).float()

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows (a mask) alone."""
        numbers, self.live = renumbered(rows), int(rows.sum())
        for c in self.cohorts:
            c.keep(numbers)
        self.cohorts = [c for c in self.cohorts if (c.rows >= 0).any()]

    @cached_property
    def decoding(self) -> Decoding | None:
        """The written-out step, or None where the architecture is not written out."""
        return Decoding(self.decoder, self.adapters) if self.decoder else None

    def _forward(self, token_R: torch.Tensor, at_R: torch.Tensor) -> torch.Tensor:
        sizes = [len(c.rows) for c in self.cohorts]
        seen = Beside([c.cache for c in self.cohorts], sizes)
        if self.decoding:
            return self.decoding.run(
                token_R, at_R, seen, spans_of(zip([c.adapter for c in self.cohorts], sizes, strict=True))
            )
        with using(seen):
            return self.inner(
                input_ids=token_R[:, None], position_ids=at_R[:, None], use_cache=False
            ).last_hidden_state[:, 0]

    def _enter(
        self, contexts: Sequence[tuple[int, ...]], n: int, room: Sequence[int], adapter: str
    ) -> torch.Tensor:
        if self.decoding:
            self.decoding.reach(max(len(c) + most for c, most in zip(contexts, room, strict=True)) - 1)
        forward = by_decoding(self.decoding, adapter) if self.decoding else self._by_modules
        done = prefill(forward, contexts, self.device, self.kept.get(adapter), self.grid)
        lengths_B, bias_B11P = torch.tensor(done.lengths, device=self.device), None
        longest = done.index_BP.shape[1]
        if min(done.lengths) < longest:
            hole = torch.arange(longest, device=self.device)[None] >= lengths_B[:, None]
            bias_B11P = torch.zeros(hole.shape, device=self.device).masked_fill(hole, float("-inf"))[
                :, None, None
            ]
        kept = cache(n, dict(prefixes(done.captured, done.index_BP)), bias_B11P, max(room))
        rows = np.arange(self.live, self.live + n * len(contexts))
        after_B = lengths_B if done.after_B is None else done.after_B
        self.cohorts.append(_Cohort(kept, rows, adapter, after_B, torch.tensor(room, device=self.device)))
        self.cohorts.sort(key=lambda c: c.adapter)
        self.live += len(rows)
        return self.head(done.hidden_BH).float()

    def _by_modules(self, packed: Packed, given: Given | None, captured: Captured) -> torch.Tensor:
        new = slice(None) if given is None else given.new_M
        with using(Forest(packed.layout, captured, given=given)):
            return self.inner(
                input_ids=packed.ids_N[new][None],
                position_ids=packed.positions_N[..., None, new],
                use_cache=False,
            ).last_hidden_state[0]
