"""Sampling by PyTorch, on any device and for any model whose attention is `attention.attend`.

Contexts that enter together are a cohort: computed once as a packed forest, their keys and values in one cache (`caches.py`). All rows of
all cohorts go through the model's layers together; only attention looks at one cohort after another.

Axes: _R all rows, _B contexts of a cohort with n rows each, _P tokens of the longest context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch

from forethought.engines.torch.attention import Forest, using
from forethought.engines.torch.caches import Apart, Together, cache, prefix_of
from forethought.engines.torch.decoder import Decoder
from forethought.engines.torch.packing import forest_of, pack


class _Cohort:
    def __init__(self, kept: Apart | Together, lengths_B: torch.Tensor, room_B: torch.Tensor, end: int):
        self.cache, self.n, self.t, self.end = kept, kept.n, 0, end  # no position is later than `end`
        self.lengths_B, self.last_B = lengths_B, lengths_B + room_B - 1
        self.alive = np.ones(len(lengths_B) * self.n, dtype=bool)  # a row that has ended is computed on while a sibling lives

    def positions(self) -> torch.Tensor:
        """[rows] of the next tokens; rows that have ended may not run out of the model's positions."""
        return torch.minimum(self.lengths_B + self.t, self.last_B).repeat_interleave(self.n)

    def keep(self, rows: np.ndarray) -> None:
        """Of the rows alive, these."""
        self.alive[self.alive.nonzero()[0][~rows]] = False
        going = self.alive.reshape(-1, self.n).any(1)
        if going.any() and not going.all():
            contexts = torch.from_numpy(going.nonzero()[0]).to(self.lengths_B.device)
            self.cache.keep(contexts)
            self.lengths_B, self.last_B = self.lengths_B[contexts], self.last_B[contexts]
            self.alive = self.alive[going.repeat(self.n)]


class Cohorts:
    """`inner` gives hidden states, `head` logits. Where the model has a written-out forward (`decoder.py`), that runs instead of `inner`."""

    def __init__(self, inner: Callable, head: Callable, device: torch.device, decoder: Decoder | None = None):
        self.inner, self.head, self.device, self.decoder = inner, head, device, decoder
        self.cohorts: list[_Cohort] = []
        self._run: Callable | None = None  # the written-out step; its weights are laid out once

    def enter(self, contexts: Sequence[tuple[int, ...]], n: Sequence[int], room: Sequence[int]) -> torch.Tensor:
        logits, start = [], 0
        for k, same in groupby(n):
            end = start + len(list(same))
            logits.append(self._prefill(contexts[start:end], k, room[start:end]))
            start = end
        return torch.cat(logits)

    def step(self, token_R: np.ndarray) -> torch.Tensor:
        alive = np.concatenate([c.alive for c in self.cohorts])
        tokens = np.zeros(len(alive), dtype=np.int64)
        tokens[alive] = token_R
        for c in self.cohorts:
            c.cache.t = c.t
        positions = torch.cat([c.positions() for c in self.cohorts])
        hidden = self._forward(torch.from_numpy(tokens).to(self.device), positions)
        for c in self.cohorts:
            c.t += 1
        return self.head(hidden if alive.all() else hidden[torch.from_numpy(alive.nonzero()[0]).to(self.device)]).float()

    def keep(self, rows: np.ndarray) -> None:
        start = 0
        for c in self.cohorts:
            alive = int(c.alive.sum())
            c.keep(rows[start : start + alive])
            start += alive
        self.cohorts = [c for c in self.cohorts if c.alive.any()]

    def attend(self, layer: int, q_RHd: torch.Tensor, k_RKd: torch.Tensor, v_RKd: torch.Tensor) -> torch.Tensor:
        """[R, H * d] of scaled queries."""
        if len(self.cohorts) == 1:
            return self.cohorts[0].cache.attend(layer, q_RHd, k_RKd, v_RKd)
        sizes = [len(c.alive) for c in self.cohorts]
        parts = zip(self.cohorts, q_RHd.split(sizes), k_RKd.split(sizes), v_RKd.split(sizes), strict=True)
        return torch.cat([c.cache.attend(layer, q, k, v) for c, q, k, v in parts])

    def _forward(self, token_R: torch.Tensor, at_R: torch.Tensor) -> torch.Tensor:
        if self.decoder:
            self._run = self._run or self.decoder.steps(self)
            return self._run(token_R, at_R, max(c.end for c in self.cohorts))
        with using(self):
            return self.inner(input_ids=token_R[:, None], position_ids=at_R[:, None], use_cache=False).last_hidden_state[:, 0]

    def _prefill(self, contexts: Sequence[tuple[int, ...]], n: int, room: Sequence[int]) -> torch.Tensor:
        """Every context once, as a forest: the logits after each."""
        segments, paths = forest_of(contexts)
        packed = pack(segments, self.device)
        captured: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        if self.decoder:
            hidden = self.decoder.hidden(packed.ids_N, packed.positions_N, packed.layout, captured)
        else:
            with using(Forest(packed.layout, captured)):
                hidden = self.inner(input_ids=packed.ids_N[None], position_ids=packed.positions_N[None],
                                    use_cache=False).last_hidden_state[0]
        index = [[packed.starts[s] + i for s in path for i in range(len(segments[s].token_ids))] for path in paths]
        longest = max(map(len, index))
        index_BP = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in index], device=self.device)
        lengths_B = torch.tensor([len(tokens) for tokens in index], device=self.device)
        bias_B11P = None
        if min(map(len, index)) < longest:
            hole = torch.arange(longest, device=self.device)[None] >= lengths_B[:, None]
            bias_B11P = torch.zeros(hole.shape, device=self.device).masked_fill(hole, float("-inf"))[:, None, None]
        kept = cache(n, prefix_of(captured, index_BP), bias_B11P, max(room))
        end = max(len(tokens) + most for tokens, most in zip(index, room, strict=True)) - 1
        self.cohorts.append(_Cohort(kept, lengths_B, torch.tensor(room, device=self.device), end))
        return self.head(hidden[torch.tensor([tokens[-1] for tokens in index], device=self.device)]).float()
