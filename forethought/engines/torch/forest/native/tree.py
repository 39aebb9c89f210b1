"""Keys and values of token sequences as a tree: what two sequences have in common from their beginning is
kept once.

A segment holds the tokens of one stretch. A child may leave its parent anywhere, so nothing is ever split or
copied: a path is a list of (segment, how many of its tokens belong to the path).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

Path = list[tuple[int, int]]


class Tree:
    """A token has keys and values of size `d` for each of `heads` over all layers; room is made in whole
    vectors of `lanes` tokens. `half`: in bfloat16, two numbers in the place of a float."""

    def __init__(self, heads: int, d: int, lanes: int, half: bool = False):
        self.heads, self.d, self.lanes, self.half = heads, d, lanes, half
        self.width = heads * d * (1 if half else 2)  # floats of a token
        self.base = np.zeros(64, dtype=np.uint64)  # address of each segment's floats
        self.room = np.zeros(64, dtype=np.int32)
        self.floats = 0  # held now
        self._block = np.empty(0, dtype=np.float32)  # reserved, not taken yet
        self._nodes: list[_Node | None] = []
        self._roots: dict[tuple[int, int], int] = {}

    def find(self, tokens: Sequence[int]) -> Path:
        """The longest beginning of `tokens` that is kept."""
        path: Path = []
        segment, at = self._roots.get((0, tokens[0])), 0
        while segment is not None:
            n = _common(self._nodes[segment].tokens, tokens, at)
            path.append((segment, n))
            at += n
            segment = self._nodes[segment].children.get((n, tokens[at])) if at < len(tokens) else None
        return path

    def grow(self, path: Path, tokens: Sequence[int], more: int = 0) -> int:
        """A new segment with `tokens` below the path; what it holds has to be computed. The tokens may not be
        empty. `more`: room for so many tokens behind them, which `find` does not know."""
        segment = self.rows(1, len(tokens) + more)
        above, n = path[-1] if path else (None, 0)
        beside = self._roots if above is None else self._nodes[above].children
        beside[n, tokens[0]] = segment
        self._nodes[segment].tokens, self._nodes[segment].place = tokens, (beside, (n, tokens[0]))
        return segment

    def held(self, segment: int) -> np.ndarray:
        """The floats of a segment: for each head its keys, in panels of as many tokens as a vector has lanes,
        then its values."""
        return self._nodes[segment].held

    def copy(self, held: np.ndarray, segment: int, n: int) -> None:
        """The first n tokens of what another segment held."""
        source, target = (x.reshape(self.heads, 2, -1) for x in (held, self.held(segment)))
        panels, pairs = -(-n // self.lanes) * self.lanes, -(-n // 2)
        keys, values = (panels // 2, pairs) if self.half else (panels, n)
        target[:, 0, : keys * self.d] = source[:, 0, : keys * self.d]
        target[:, 1, : values * self.d] = source[:, 1, : values * self.d]

    def move(self, segment: int, held: np.ndarray) -> None:
        """From here on the segment stands in `held` (`floats_of` its tokens, or more), which is the caller's
        to fill."""
        self.floats += held.size - self._nodes[segment].held.size
        self._nodes[segment].held = held
        self.base[segment], self.room[segment] = held.ctypes.data, held.size // self.width

    def floats_of(self, tokens: int) -> int:
        """How many a sequence of so many tokens takes."""
        return -(-max(tokens, 1) // self.lanes) * self.lanes * self.width

    def rows(self, n: int, tokens: int) -> int:
        """Room for n sequences of so many tokens, which `find` does not know: the first of n segments in a
        row."""
        held = self._take(n * self.floats_of(tokens)).reshape(n, -1)
        self.floats += held.size
        first, end = len(self._nodes), len(self._nodes) + n
        if end > len(self.base):
            more = max(end, 2 * len(self.base))
            self.base, self.room = (
                np.concatenate([x, np.zeros(more - len(x), dtype=x.dtype)]) for x in (self.base, self.room)
            )
        self.base[first:end] = held.ctypes.data + np.arange(n, dtype=np.uint64) * np.uint64(held[0].nbytes)
        self.room[first:end] = held.shape[1] // self.width
        self._nodes.extend(_Node(held[i]) for i in range(n))
        return first

    def reserve(self, sequences: Iterable[tuple[int, int]]) -> None:
        """One block for (n, tokens) each: what is read together lies together, in few large pages. It is
        given back with the last of them."""
        self._block = np.empty(sum(n * self.floats_of(tokens) for n, tokens in sequences), dtype=np.float32)

    def _take(self, floats: int) -> np.ndarray:
        if floats > len(self._block):
            return np.empty(floats, dtype=np.float32)
        taken, self._block = self._block[:floats], self._block[floats:]
        if not len(self._block):
            self._block = np.empty(0, dtype=np.float32)  # an empty view would keep all of it
        return taken

    def use(self, path: Path) -> None:
        """Count one more user of every segment on `path`: a segment with users is not forgotten."""
        for segment, _ in path:
            self._nodes[segment].users += 1

    def leave(self, path: Path) -> None:
        """Segments that nobody uses any more are forgotten."""
        for segment, _ in path:
            node = self._nodes[segment]
            node.users -= 1
            if not node.users:
                self.floats -= node.held.size
                beside, key = node.place
                if key and beside.get(key) == segment:
                    del beside[key]
                self._nodes[segment] = None


@dataclass(slots=True)
class _Node:
    held: np.ndarray
    tokens: Sequence[int] = ()
    # (where it leaves, its first token) -> segment
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    place: tuple[dict, tuple[int, int] | None] = ({}, None)  # among its siblings
    users: int = 0


def _common(own: Sequence[int], tokens: Sequence[int], at: int) -> int:
    n = min(len(own), len(tokens) - at)
    if own[:n] == tokens[at : at + n]:
        return n
    return next((i for i in range(n) if own[i] != tokens[at + i]), n)
