"""Activations that sampling leaves for the update: while the weights are those that said a token, its forward
pass is known, and only the backward pass is computed.

Tokens are found by their path from the root, as everything sampled is: how a batch cuts it into segments
changes nothing. What is not found is no error: the pack is then computed whole.

Axes: _N tokens of a packed row, _M those whose output is read, _H hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from forethought.core.types import Request, Segment
from forethought.engines.torch.forest.native.library import floats
from forethought.engines.torch.forest.packing import Packed
from forethought.recipe.machine import CHECKED, SPARE

NOWHERE = -1


@dataclass(slots=True)
class Block:
    """What tokens have left: `at` [layers, room, width], `last` [room, H], `logits` [room, V]."""

    at: torch.Tensor
    last: torch.Tensor
    logits: torch.Tensor

    @property
    def room(self) -> int:
        """Most tokens."""
        return len(self.last)


class Activations:
    """Of one policy, for one update. `bound`: most bytes; what is more is not kept, and so is not found."""

    def __init__(self, bound: int, update: int):
        self.bound, self.update = bound, update
        self._forget()

    def _forget(self) -> None:
        self.bytes = 0
        self._blocks: list[Block] = []
        self._below: dict[tuple[int, int], int] = {}  # (place in the tree, token) -> place; 0 is the root
        self._block: list[int] = [NOWHERE]  # of each place
        self._at: list[int] = [NOWHERE]
        self._whole: list[bool] = [False]  # whether it was computed to the end of the last layer

    def block(self, layers: int, tokens: int, width: int, hidden: int, vocabulary: int) -> Block | None:
        """Room for so many tokens; None where there is none."""
        size = 4 * tokens * (layers * width + hidden + vocabulary)
        if self.bytes + size > self.bound:
            self.bound = 0  # a part of what an update needs helps nobody
            self._forget()
            return None
        self.bytes += size
        self._blocks.append(
            Block(floats(layers, tokens, width), floats(tokens, hidden), floats(tokens, vocabulary))
        )
        return self._blocks[-1]

    def place(self, tokens: Sequence[int], under: int = 0) -> int:
        """Where a path stands that goes on with these tokens."""
        for token in tokens:
            under = self._next(under, token)
        return under

    def put(
        self, under: int, tokens: Iterable[int], block: Block, at: Iterable[int], whole: Iterable[bool]
    ) -> int:
        """The tokens that go on under a place have left what they computed at `at` of the newest block; where
        the last of them stands."""
        for token, own, complete in zip(tokens, at, whole, strict=True):
            under = self._next(under, token)
            if self._block[under] == NOWHERE or (complete and not self._whole[under]):
                self._block[under], self._at[under] = len(self._blocks) - 1, own
                self._whole[under] = complete
        return under

    def _next(self, under: int, token: int) -> int:
        if (found := self._below.get((under, token))) is None:
            found = self._below[under, token] = len(self._block)
            self._block.append(NOWHERE)
            self._at.append(NOWHERE)
            self._whole.append(False)
        return found

    def find(self, packed: Packed, segments: Sequence[Segment], places_M: torch.Tensor) -> Found | None:
        """What the tokens of a packed row have left; None unless all of it is known that somebody reads. The
        last token of a leaf is read by nobody, and was never computed."""
        if not self._blocks:
            return None
        inner = {s.parent for s in segments}
        ends: list[int | None] = []
        block_N, at_N = (np.full(len(packed.ids_N), NOWHERE, dtype=np.int64) for _ in range(2))
        whole_N = np.zeros(len(packed.ids_N), dtype=bool)
        for i, (s, start) in enumerate(zip(segments, packed.starts, strict=True)):
            under = ends[s.parent] if s.parent >= 0 else 0
            read = len(s.token_ids) - (i not in inner)
            for k, token in enumerate(s.token_ids):
                under = None if under is None else self._below.get((under, token))
                if under is not None and self._block[under] != NOWHERE:
                    block_N[start + k], at_N[start + k] = self._block[under], self._at[under]
                    whole_N[start + k] = self._whole[under]
                elif k < read:
                    return None
            ends.append(under)
        return Found(self._blocks, block_N, at_N) if whole_N[places_M.numpy()].all() else None


class Found:
    """Of each token of a packed row, where it left its activations; nowhere where nobody reads them."""

    def __init__(self, blocks: Sequence[Block], block_N: np.ndarray, at_N: np.ndarray):
        self._blocks, self._block_N, self._at_N = list(blocks), block_N, at_N

    def layer(self, i: int) -> np.ndarray:
        """The address of each token's row in layer i, 0 for none."""
        return self._addresses([block.at[i] for block in self._blocks], self._block_N, self._at_N)

    def logits(self, rows_M: np.ndarray) -> np.ndarray:
        """The addresses of the logits after these tokens."""
        held = [block.logits for block in self._blocks]
        return self._addresses(held, self._block_N[rows_M], self._at_N[rows_M])

    def last(self, rows_M: np.ndarray) -> torch.Tensor:
        """[M, H]: what came out of the last layer for these tokens."""
        out_MH = floats(len(rows_M), self._blocks[0].last.shape[1])
        block_M, at_M = self._block_N[rows_M], self._at_N[rows_M]
        for number, block in enumerate(self._blocks):
            mine = torch.from_numpy((block_M == number).nonzero()[0])
            if len(mine):
                out_MH[mine] = block.last[torch.from_numpy(at_M)[mine]]
        return out_MH

    def _addresses(self, held: Sequence[torch.Tensor], block_N: np.ndarray, at_N: np.ndarray) -> np.ndarray:
        """Of rows of these tensors, one of each block."""
        found_N = np.zeros(len(at_N), dtype=np.int64)
        for number, own in enumerate(held):
            mine = block_N == number
            found_N[mine] = own.data_ptr() + own.stride(0) * own.element_size() * at_N[mine]
        return found_N


class ByPolicy:
    """The activations of all policies. They are let go when the policy's weights move. `bound`: most bytes of
    all that train, which have equal parts; 0: nothing is kept. `cost`: bytes of a token."""

    def __init__(self, bound: int, cost: int = 0):
        self.bound, self.cost = bound, cost
        self._each = bound
        self._of: dict[str, Activations] = {}

    def updates(
        self, requests: Sequence[Request], versions: Mapping[str, int], trained: Collection[str]
    ) -> dict[str, int]:
        """Of each policy that trains, the number of the update that will read what sampling leaves now. None
        will where rows may become so long that what they leave is surely too much: it would be written for
        nothing."""
        asked = {
            r.policy: r.update
            for r in requests
            if self.bound and r.update is not None and r.policy in trained and versions[r.policy] % CHECKED
        }
        self._each = self.bound // max(1, len(trained))
        most = sum(r.n * r.max_tokens for r in requests if r.policy in asked)
        return asked if most * self.cost <= SPARE * self.bound else {}

    def begun(self, policy: str, update: int) -> Activations:
        """Where the tokens of this update leave theirs; those of an earlier one are let go."""
        own = self._of.get(policy)
        if own is None or own.update != update:
            own = self._of[policy] = Activations(self._each, update)
        return own

    def of(self, policy: str) -> Activations | None:
        """What was left under these weights; None: nothing."""
        return self._of.get(policy)

    def drop(self, policy: str) -> None:
        """The weights of a policy have moved, or are used up."""
        self._of.pop(policy, None)

    def clear(self) -> None:
        """Forget everything."""
        self._of.clear()
