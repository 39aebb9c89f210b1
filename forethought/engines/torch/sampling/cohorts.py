"""Sampling by PyTorch, on any device and for any model whose attention is `attention.attend`.

Contexts that enter together are a cohort: computed once as a packed forest, their keys and values in one
cache (`caches.py`). All rows of all cohorts go through the model's layers together; only attention looks at
one cohort after another. Shapes follow what is alive, which is least work; where launching it costs more than
doing it, `slots.py` computes the same in shapes that stay.

Axes: _R all rows, _B contexts of a cohort with n rows each, _P tokens of the longest context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch

from forethought.engines.torch.forest.attention import Forest, using
from forethought.engines.torch.forest.blocks import attention
from forethought.engines.torch.forest.decoder import Decoder
from forethought.engines.torch.forest.packing import Layout, Packed, forest_of, pack
from forethought.engines.torch.sampling.caches import Apart, Beside, Captured, Together, cache, prefixes
from forethought.engines.torch.sampling.decoding import Decoding, spans_of


class Prefilled(NamedTuple):
    """Contexts, each computed once."""

    hidden_BH: torch.Tensor  # after the last token of each
    captured: Captured  # layer -> keys and values of all tokens
    index_BP: torch.Tensor  # where each context's tokens lie among them; padding points at the first
    lengths: list[int]


def prefill(
    forward: Callable[[Packed, Captured], torch.Tensor],
    contexts: Sequence[tuple[int, ...]],
    device: torch.device,
) -> Prefilled:
    """`forward(packed, captured)`: hidden states [N, H] of a packed row, its keys and values into
    `captured`."""
    segments, paths = forest_of(contexts)
    packed, captured = pack(segments, device), {}
    hidden_NH = forward(packed, captured)
    index = [
        [packed.starts[s] + i for s in path for i in range(len(segments[s].token_ids))] for path in paths
    ]
    longest = max(map(len, index))
    index_BP = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in index], device=device)
    return Prefilled(
        hidden_NH[torch.tensor([tokens[-1] for tokens in index], device=device)],
        captured,
        index_BP,
        list(map(len, index)),
    )


class Capturing:
    """Attention over a packed forest for `Decoding`; keys and values are kept for the rows to come."""

    def __init__(self, layout: Layout, captured: Captured):
        self.layout, self.captured = layout, captured

    def attend(
        self, layer: int, q_NHd: torch.Tensor, k_NKd: torch.Tensor, v_NKd: torch.Tensor
    ) -> torch.Tensor:
        # a view of the joined product would keep the queries too
        k_NKd, v_NKd = k_NKd.contiguous(), v_NKd.contiguous()
        self.captured[layer] = (k_NKd, v_NKd)
        return attention(self.layout, q_NHd, k_NKd, v_NKd).flatten(1)


def by_decoding(decoding: Decoding, adapter: str) -> Callable[[Packed, Captured], torch.Tensor]:
    """What `prefill` calls, for contexts of one adapter."""

    def forward(packed: Packed, captured: Captured) -> torch.Tensor:
        return decoding.run(
            packed.ids_N,
            packed.positions_N,
            Capturing(packed.layout, captured),
            [(adapter, 0, len(packed.ids_N))],
        )

    return forward


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
        lengths_B: torch.Tensor,
        room_B: torch.Tensor,
    ):
        self.cache, self.n, self.t, self.adapter = kept, kept.n, 0, adapter
        # which row of all stands at each of its places; one that has ended is computed on while a sibling
        # lives
        self.rows = rows
        self.lengths_B, self.last_B = lengths_B, lengths_B + room_B - 1

    def positions(self) -> torch.Tensor:
        """[rows] of the next tokens; rows that have ended may not run out of the model's positions."""
        return torch.minimum(self.lengths_B + self.t, self.last_B).repeat_interleave(self.n)

    def keep(self, numbers: np.ndarray) -> None:
        self.rows = numbers[self.rows]
        going = (self.rows >= 0).reshape(-1, self.n).any(1)
        if going.any() and not going.all():
            contexts = torch.from_numpy(going.nonzero()[0]).to(self.lengths_B.device)
            self.cache.keep(contexts)
            self.lengths_B, self.last_B = self.lengths_B[contexts], self.last_B[contexts]
            self.rows = self.rows[going.repeat(self.n)]


class Cohorts:
    """`inner` gives hidden states, `head` logits. Where the model has a written-out forward (`decoder.py`),
    that runs instead of `inner`, and with `adapters` each row may name one of them ("": the base)."""

    def __init__(
        self,
        inner: Callable,
        head: Callable,
        device: torch.device,
        decoder: Decoder | None = None,
        adapters: Sequence[str] | None = None,
    ):
        self.inner, self.head, self.device, self.decoder, self.adapters = (
            inner,
            head,
            device,
            decoder,
            adapters,
        )
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
        done = prefill(
            by_decoding(self.decoding, adapter) if self.decoding else self._by_modules, contexts, self.device
        )
        lengths_B, bias_B11P = torch.tensor(done.lengths, device=self.device), None
        longest = done.index_BP.shape[1]
        if min(done.lengths) < longest:
            hole = torch.arange(longest, device=self.device)[None] >= lengths_B[:, None]
            bias_B11P = torch.zeros(hole.shape, device=self.device).masked_fill(hole, float("-inf"))[
                :, None, None
            ]
        kept = cache(n, dict(prefixes(done.captured, done.index_BP)), bias_B11P, max(room))
        rows = np.arange(self.live, self.live + n * len(contexts))
        self.cohorts.append(_Cohort(kept, rows, adapter, lengths_B, torch.tensor(room, device=self.device)))
        self.cohorts.sort(key=lambda c: c.adapter)
        self.live += len(rows)
        return self.head(done.hidden_BH).float()

    def _by_modules(self, packed: Packed, captured: Captured) -> torch.Tensor:
        with using(Forest(packed.layout, captured)):
            return self.inner(
                input_ids=packed.ids_N[None], position_ids=packed.positions_N[None], use_cache=False
            ).last_hidden_state[0]
