"""Keys and values that stay between calls of `sample`: what a rollout says next stands below what was read
before.

They are kept by path: the tokens from the root, under one policy's weights. What one call computed is a
block, and blocks are let go as wholes, the one first that was read longest ago, when they take more than the
bound. What a path holds is its computer's affair (`held`); here it is only found again.

`cuts` are where a path's segments begin. Attention over a segment sums chunk by chunk from its beginning, so
only keys and values under the same cuts are those, bit for bit, that would be computed. Who promises no bits
leaves them empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MARK = 8  # tokens; a path is found by its beginnings of so many, twice as many, ...

Tokens = tuple[int, ...]


@dataclass(eq=False, slots=True)
class Block:
    """What one call computed. `needs`: all blocks in which its paths begin; they are let go later."""

    held: Any
    bytes: int
    live: int = 0  # paths that no longer one holds again
    needs: set[Block] = field(default_factory=set)
    keys: list[tuple] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Kept:
    """Tokens `start` to the last of a path; those before are `above`'s, where somebody needs them."""

    tokens: Tokens  # from the root
    start: int
    held: Any
    block: Block
    above: Kept | None = None


class Found(NamedTuple):
    kept: Kept
    tokens: int  # how many of the path, from the root


class Paths:
    """`bound`: most bytes that are kept; 0: nothing is."""

    def __init__(self, bound: int):
        self.bound, self.bytes = bound, 0
        self._blocks: dict[Block, str] = {}  # with its policy; read longest ago first
        self._kept: dict[tuple, Kept] = {}

    def find(self, policy: str, cuts: Tokens, tokens: Tokens) -> Found | None:
        """The longest beginning of `tokens` that is kept under these cuts, to be read now."""
        for mark in reversed(list(_marks(tokens))) if self._kept else ():
            kept = self._kept.get((policy, cuts, mark))
            if kept and (n := common(kept.tokens, tokens)) > kept.start:
                self._read(kept.block)
                return Found(kept, n)
        return None

    def put(
        self, policy: str, block: Block, kept: Sequence[tuple[Tokens, Kept]], again: Sequence[Kept] = ()
    ) -> None:
        """Keep a block's paths, each with its cuts; one that is larger than the bound is not kept. `again`:
        paths that stand in it once more, and are found there from here on; a block of such alone is let
        go."""
        if not kept or block.bytes > self.bound:
            return
        block.live = len(kept)
        for cuts, one in kept:
            for mark in _marks(one.tokens, one.start):
                self._kept[policy, cuts, mark] = one
                block.keys.append((policy, cuts, mark))
        self.bytes += block.bytes
        self._blocks[block] = policy
        self._read(block)
        for one in again:
            one.block.live -= 1
            if not one.block.live and one.block in self._blocks:
                self._let_go(one.block)
        while self.bytes > self.bound:
            self._let_go(next(iter(self._blocks)))

    def lengthen(self, policy: str, cuts: Tokens, kept: Kept, tokens: Tokens) -> None:
        """What is kept of a path holds so many tokens more: they stand behind it, in room that it has."""
        if not tokens or kept.block not in self._blocks:
            return
        before, kept.tokens = len(kept.tokens), kept.tokens + tokens
        for mark in _marks(kept.tokens, before):
            self._kept[policy, cuts, mark] = kept
            kept.block.keys.append((policy, cuts, mark))

    def drop(self, policy: str) -> None:
        """Forget a policy's paths: its weights have moved, or it is gone."""
        for block in [block for block, own in self._blocks.items() if own == policy]:
            self._let_go(block)

    def clear(self) -> None:
        """Forget everything."""
        self._blocks, self._kept, self.bytes = {}, {}, 0

    def _read(self, block: Block) -> None:
        """The blocks that it needs were read after it: who is let go has nobody below."""
        for one in (block, *sorted(block.needs, key=lambda needed: -len(needed.needs))):
            if one in self._blocks:
                self._blocks[one] = self._blocks.pop(one)

    def _let_go(self, block: Block) -> None:
        del self._blocks[block]
        self.bytes -= block.bytes
        for key in block.keys:
            if key in self._kept and self._kept[key].block is block:
                del self._kept[key]


class PolicyPaths(NamedTuple):
    """The paths of one policy, as its weights are now."""

    paths: Paths
    policy: str

    def find(self, tokens: Tokens, cuts: Tokens = ()) -> Found | None:
        """See `Paths.find`."""
        return self.paths.find(self.policy, cuts, tokens)

    def put(self, block: Block, kept: Sequence[tuple[Tokens, Kept]], again: Sequence[Kept] = ()) -> None:
        """See `Paths.put`."""
        self.paths.put(self.policy, block, kept, again)

    def lengthen(self, cuts: Tokens, kept: Kept, tokens: Tokens) -> None:
        """See `Paths.lengthen`."""
        self.paths.lengthen(self.policy, cuts, kept, tokens)


def _marks(tokens: Tokens, start: int = 0) -> Iterator[tuple[int, int]]:
    """(length, hash) of the beginnings by which a path is found; those longer than `start`."""
    mark = 0
    for end in range(MARK, len(tokens) + 1, MARK):
        mark = hash((mark, tokens[end - MARK : end]))
        if end > start:
            yield end, mark


def common(a: Tokens, b: Tokens) -> int:
    """How many tokens two paths have in common. Nearly always all of the shorter one."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])
