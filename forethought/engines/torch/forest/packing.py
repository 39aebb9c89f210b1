"""A forest of segments as one flat row of tokens, each token stored and computed once.

Every linear layer of the model then sees `N = tokens of the forest` and no padding; only attention needs to
know the tree. For it the forest is cut into blocks: maximal chains of segments without a branch. Blocks below
one branch are siblings: their queries see the same ancestors, all of them, and causally their own block. So
siblings attend to their ancestors together, without a mask and without a copy of the ancestors for each
(`forest.py`).

Axes: _N tokens of the row, _S sets of siblings, _B blocks (n in each set), _Q tokens of a block (padded), _A
ancestors (padded).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from forethought.core.types import Segment
from forethought.engines.torch.forest.positions import Grid
from forethought.engines.torch.forest.positions import positions as with_grid


@dataclass(frozen=True, slots=True)
class Group:
    """Sets of n siblings attended in one call. Padding points at token 0."""

    n: int
    own_BQ: torch.Tensor  # index in the row of each block's tokens; B = S * n, set by set
    hole_BQ: torch.Tensor | None  # true on padding; None where there is none
    above_SA: torch.Tensor  # index in the row of each set's ancestors; A = 0 for roots
    bias_S11A: torch.Tensor | None  # -inf on padding; None where there is none


class Layout:
    """What attention needs to know of a packed row: its spans for the kernels, and for PyTorch its groups,
    which are laid out when asked for. `given`: segments that are seen, but have no queries."""

    def __init__(
        self,
        segments: Sequence[Segment],
        order: list[int],
        starts: list[int],
        device: torch.device | str,
        given: frozenset[int] = frozenset(),
    ):
        self.given = given
        self._asked = segments, order, starts, device
        self.spans_S3 = _spans(segments, order, starts)
        """int32, of each segment: where it begins in the row, its tokens, where its descendants end (they
        follow it)."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """Blocks of queries of one size, batched for attention (made when first asked)."""
        return self._laid_out[0]

    @property
    def place_N(self) -> torch.Tensor:
        """Where token n lies in the concatenation of all groups' flattened [B * Q] tokens."""
        return self._laid_out[1]

    @cached_property
    def _laid_out(self) -> tuple[tuple[Group, ...], torch.Tensor]:
        segments, order, starts, device = self._asked
        blocks = _blocks(segments, order, starts, self.given)
        return _grouped(blocks, int(self.spans_S3[:, 1].sum()), device)


@dataclass(frozen=True, slots=True)
class Packed:
    """One row. `before_N[n]` is the token whose hidden state predicts token n (-1 for the first token of a
    root). `positions_N` is [3, N] where pictures have places (`positions.py`)."""

    ids_N: torch.Tensor
    positions_N: torch.Tensor
    before_N: torch.Tensor
    starts: tuple[int, ...]  # segment -> index of its first token in the row
    longest: int  # tokens of the longest path
    layout: Layout


@dataclass(slots=True)
class _Block:
    parent: int  # the block above, -1 for a root's
    tokens: list[int]  # indices in the row
    ancestors: list[int]  # indices in the row, root first
    given: bool = False


def pack(
    segments: Sequence[Segment],
    device: torch.device | str = "cpu",
    given: frozenset[int] = frozenset(),
    grid: Grid | None = None,
) -> Packed:
    """Lay a forest out. `given`: segments whose keys and values are known, so that nothing is asked for them.
    `grid`: of a model whose positions count rows and columns. ValueError for an empty forest, an empty
    segment, or a parent that does not precede its child."""
    if not segments:
        raise ValueError("an empty forest cannot be packed")
    children: list[list[int]] = [[] for _ in segments]
    for i, s in enumerate(segments):
        if not s.token_ids:
            raise ValueError(f"segment {i} has no tokens")
        if not -1 <= s.parent < i:
            raise ValueError(
                f"segment {i} has parent {s.parent}; parents must come first, and -1 is a root's"
            )
        if s.parent >= 0:
            children[s.parent].append(i)
    ids: list[int] = []
    positions: list[int] = []
    before: list[int] = []
    starts = [0] * len(segments)
    order = _depth_first(segments, children)
    for i in order:
        s, start = segments[i], len(ids)
        n = len(s.token_ids)
        last = starts[s.parent] + len(segments[s.parent].token_ids) - 1 if s.parent >= 0 else -1
        first_position = positions[last] + 1 if s.parent >= 0 else 0
        ids.extend(s.token_ids)
        positions.extend(range(first_position, first_position + n))
        before.append(last)
        before.extend(range(start, start + n - 1))
        starts[i] = start
    long = lambda values: torch.tensor(values, dtype=torch.long, device=device)  # noqa: E731
    places = with_grid(grid, segments, order, starts) if grid else None
    return Packed(
        long(ids),
        long(positions) if places is None else torch.from_numpy(places).to(device),
        long(before),
        tuple(starts),
        max(positions) + 1,
        Layout(segments, order, starts, device, given),
    )


def _depth_first(segments: Sequence[Segment], children: list[list[int]]) -> list[int]:
    """Each segment followed by all its descendants."""
    order, ahead = [], [i for i in range(len(segments) - 1, -1, -1) if segments[i].parent < 0]
    while ahead:
        order.append(ahead.pop())
        ahead.extend(reversed(children[order[-1]]))
    return order


def _spans(segments: Sequence[Segment], order: list[int], starts: list[int]) -> np.ndarray:
    ends = [starts[i] + len(s.token_ids) for i, s in enumerate(segments)]
    for i in reversed(order):
        if segments[i].parent >= 0:
            ends[segments[i].parent] = max(ends[segments[i].parent], ends[i])
    return np.array([(starts[i], len(segments[i].token_ids), ends[i]) for i in order], dtype=np.int32)


def _blocks(
    segments: Sequence[Segment], order: list[int], starts: list[int], given: frozenset[int]
) -> list[_Block]:
    """A branching parent's block is complete before any child block copies it as ancestors: its segments are
    all on the chain that ends in the branching segment, and come before its children."""
    children = Counter(s.parent for s in segments)
    blocks: list[_Block] = []
    block_of = [0] * len(segments)
    for i in order:
        parent = segments[i].parent
        # the only child continues its parent's block
        if parent >= 0 and children[parent] == 1 and (i in given) == (parent in given):
            block_of[i] = block_of[parent]
        else:
            up = block_of[parent] if parent >= 0 else -1
            blocks.append(
                _Block(up, [], blocks[up].ancestors + blocks[up].tokens if up >= 0 else [], i in given)
            )
            block_of[i] = len(blocks) - 1
        blocks[block_of[i]].tokens.extend(range(starts[i], starts[i] + len(segments[i].token_ids)))
    return blocks


def _grouped(
    blocks: list[_Block], n_tokens: int, device: torch.device | str
) -> tuple[tuple[Group, ...], torch.Tensor]:
    """Group sets of siblings so that padding stays small: sorted by their sizes, cut where a set would waste
    too much."""
    families: dict[int, list[_Block]] = {}
    for i, block in enumerate(blocks):
        if not block.given:
            families.setdefault(block.parent if block.parent >= 0 else -1 - i, []).append(block)
    order = sorted(
        families.values(), key=lambda f: (len(f[0].ancestors), len(f), max(len(b.tokens) for b in f))
    )
    bins: list[list[list[_Block]]] = []
    for family in order:
        if bins and _fits(bins[-1], family):
            bins[-1].append(family)
        else:
            bins.append([family])
    place_N, groups, offset = np.zeros(n_tokens, dtype=np.int64), [], 0
    for families_ in bins:
        group, tokens = _group(families_, place_N, offset, device)
        groups.append(group)
        offset += tokens
    return tuple(groups), torch.from_numpy(place_N).to(device)


def _group(
    families: list[list[_Block]], place_N: np.ndarray, offset: int, device: torch.device | str
) -> tuple[Group, int]:
    """(the group, how many places its tokens take); notes where each of its tokens lies, from `offset` on."""
    n, most_q = max(map(len, families)), max(len(b.tokens) for f in families for b in f)
    above = [len(f[0].ancestors) for f in families]
    own_SnQ = np.zeros((len(families), n, most_q), dtype=np.int64)
    hole_SnQ = np.ones(own_SnQ.shape, dtype=bool)
    above_SA = np.zeros((len(families), max(above)), dtype=np.int64)
    for i, family in enumerate(families):
        above_SA[i, : above[i]] = family[0].ancestors
        for j, block in enumerate(family):
            q = len(block.tokens)
            own_SnQ[i, j, :q], hole_SnQ[i, j, :q] = block.tokens, False
            place_N[block.tokens] = offset + (i * n + j) * most_q + np.arange(q)
    bias_SA = np.where(np.arange(max(above)) < np.array(above)[:, None], 0, -np.inf).astype(np.float32)
    put = lambda x: torch.from_numpy(x).to(device)  # noqa: E731
    own_BQ, hole_BQ = (
        put(own_SnQ.reshape(-1, most_q)),
        put(hole_SnQ.reshape(-1, most_q)) if hole_SnQ.any() else None,
    )
    bias = put(bias_SA[:, None, None]) if min(above) < max(above) else None
    return Group(n, own_BQ, hole_BQ, put(above_SA), bias), own_SnQ.size


def _fits(families: list[list[_Block]], family: list[_Block]) -> bool:
    """Whether a set joins a group: its ancestors at most an eighth more than the group's first has (none,
    where that has none), its siblings about as many, its blocks at most double as long."""
    head = families[0]
    above, first = len(family[0].ancestors), len(head[0].ancestors)
    longest = [max(len(b.tokens) for b in f) for f in (families[-1], family)]
    return (
        (above == 0) == (first == 0)
        and above <= first + max(8, first // 8)
        and len(family) <= len(head) * 4 // 3 + 1
        and max(longest) <= max(32, 2 * min(longest))
    )


def forest_of(contexts: Sequence[tuple[int, ...]]) -> tuple[list[Segment], list[list[int]]]:
    """A radix tree over token sequences: (segments, for each context its path of segment indices). Equal
    contexts share all."""
    segments: list[Segment] = []
    paths: dict[tuple[int, ...], list[int]] = {}

    def grow(members: list[tuple[int, ...]], start: int, parent: int, path: list[int]) -> None:
        groups: dict[int, list[tuple[int, ...]]] = {}
        for c in members:
            if len(c) == start:
                paths[c] = path
            else:
                groups.setdefault(c[start], []).append(c)
        for group in groups.values():
            shortest = min(len(c) for c in group)
            first, end = group[0], start + 1
            while end < shortest and all(c[end] == first[end] for c in group):
                end += 1
            segments.append(Segment(parent=parent, token_ids=first[start:end]))
            here = len(segments) - 1
            if len(group) == 1:
                paths[first] = [*path, here]
            else:
                grow(group, end, here, [*path, here])

    grow(list(dict.fromkeys(contexts)), 0, -1, [])
    return segments, [paths[c] for c in contexts]
