"""A forest of segments as one flat row of tokens, each token stored and computed once.

Every linear layer of the model then sees `N = tokens of the forest` and no padding; only attention needs to know the tree.
For it the forest is cut into blocks: maximal chains of segments without a branch. A block's queries see the tokens of its
ancestors and, causally, its own. Blocks of similar size are attended together (a `Group`).

Axes: _N tokens of the row, _B blocks of a group, _Q queries of a block (padded), _K keys of a block (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from forethought.types import Segment


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks attended in one call. Padding queries point at token 0 and are dropped by `Layout.place_N`."""

    query_BQ: torch.Tensor  # index of each query in the row
    key_BK: torch.Tensor  # index of each key in the row
    bias_B1QK: torch.Tensor  # 0 where the query sees the key, -inf elsewhere


@dataclass(frozen=True, slots=True)
class Layout:
    """What attention needs to know of a packed row."""

    groups: tuple[Group, ...]
    place_N: torch.Tensor  # where token n's output lies in the concatenation of all groups' flattened [B * Q] outputs


@dataclass(frozen=True, slots=True)
class Packed:
    """One row. `before_N[n]` is the token whose hidden state predicts token n (-1 for the first token of a root)."""

    ids_N: torch.Tensor
    positions_N: torch.Tensor
    before_N: torch.Tensor
    starts: tuple[int, ...]  # segment -> index of its first token in the row
    longest: int  # tokens of the longest path
    layout: Layout


@dataclass(slots=True)
class _Block:
    tokens: list[int]  # indices in the row
    ancestors: list[int]  # indices in the row, root first


def pack(segments: Sequence[Segment], device: torch.device | str = "cpu") -> Packed:
    """Lay a forest out. ValueError for an empty forest, an empty segment, or a parent that does not precede its child."""
    if not segments:
        raise ValueError("an empty forest cannot be packed")
    children = [0] * len(segments)
    for i, s in enumerate(segments):
        if not s.token_ids:
            raise ValueError(f"segment {i} has no tokens")
        if not -1 <= s.parent < i:
            raise ValueError(f"segment {i} has parent {s.parent}; parents must come first, and -1 is a root's")
        if s.parent >= 0:
            children[s.parent] += 1
    ids: list[int] = []
    positions: list[int] = []
    before: list[int] = []
    starts: list[int] = []
    blocks: list[_Block] = []
    block_of: list[int] = []
    for s in segments:
        start, n = len(ids), len(s.token_ids)
        last = starts[s.parent] + len(segments[s.parent].token_ids) - 1 if s.parent >= 0 else -1
        first_position = positions[last] + 1 if s.parent >= 0 else 0
        ids.extend(s.token_ids)
        positions.extend(range(first_position, first_position + n))
        before.append(last)
        before.extend(range(start, start + n - 1))
        starts.append(start)
        if s.parent >= 0 and children[s.parent] == 1:  # the only child continues its parent's block
            block_of.append(block_of[s.parent])
        else:
            above = blocks[block_of[s.parent]] if s.parent >= 0 else None
            blocks.append(_Block([], above.ancestors + above.tokens if above else []))
            block_of.append(len(blocks) - 1)
        blocks[block_of[-1]].tokens.extend(range(start, start + n))
    # A branching parent's block is complete before any child block copies it as ancestors: its segments are all on the
    # chain that ends in the branching segment, and parents come first.
    layout = _layout(blocks, len(ids), device)
    long = lambda values: torch.tensor(values, dtype=torch.long, device=device)  # noqa: E731
    return Packed(long(ids), long(positions), long(before), tuple(starts), max(positions) + 1, layout)


def _layout(blocks: list[_Block], n_tokens: int, device: torch.device | str) -> Layout:
    """Group blocks so that padding stays small: sorted by (keys, queries), cut where a block would waste too much."""
    order = sorted(range(len(blocks)), key=lambda b: (len(blocks[b].ancestors), len(blocks[b].tokens)))
    bins: list[list[_Block]] = []
    for b in order:
        block = blocks[b]
        if bins and _fits(bins[-1], block):
            bins[-1].append(block)
        else:
            bins.append([block])
    place_N = np.zeros(n_tokens, dtype=np.int64)
    groups = []
    offset = 0
    for members in bins:
        queries = [len(m.tokens) for m in members]
        above = [len(m.ancestors) for m in members]
        most_q, most_a = max(queries), max(above)
        query_BQ = np.zeros((len(members), most_q), dtype=np.int64)
        key_BK = np.zeros((len(members), most_a + most_q), dtype=np.int64)
        for i, (m, q, a) in enumerate(zip(members, queries, above, strict=True)):
            query_BQ[i, :q] = m.tokens
            key_BK[i, :a] = m.ancestors
            place_N[query_BQ[i, :q]] = np.arange(offset + i * most_q, offset + i * most_q + q)
        key_BK[:, most_a:] = query_BQ
        offset += len(members) * most_q
        bias_BQK = np.empty((len(members), most_q, most_a + most_q), dtype=np.float32)
        bias_BQK[:, :, :most_a] = np.where(np.arange(most_a) < np.array(above)[:, None, None], 0, -np.inf)
        bias_BQK[:, :, most_a:] = np.where(np.tri(most_q), 0, -np.inf)  # padding queries see themselves: no softmax is empty
        groups.append(Group(*(torch.from_numpy(x).to(device) for x in (query_BQ, key_BK, bias_BQK[:, None]))))
    return Layout(tuple(groups), torch.from_numpy(place_N).to(device))


def _fits(members: list[_Block], block: _Block) -> bool:
    """Whether a block joins a group: its keys at most an eighth longer than the group's first, its queries at most double."""
    head = members[0]
    keys, first = len(block.ancestors), len(head.ancestors)
    queries = max(len(m.tokens) for m in members) if len(members) < 64 else len(members[-1].tokens)
    return keys <= first + max(8, first // 8) and len(block.tokens) <= max(32, 2 * queries)
