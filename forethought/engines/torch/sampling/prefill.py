"""Contexts before the first token of a row: computed once as a packed forest, without what is kept of them
from earlier calls (`forest/paths.py`).

What one call computed is a block of keys and values in the order of its row; a path is a chain of stretches
of such rows.

Axes: _N tokens of the packed row, _M those that are computed, _B contexts, _P tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from forethought.core.types import Segment
from forethought.engines.torch.forest.blocks import attention
from forethought.engines.torch.forest.given import Captured, Given
from forethought.engines.torch.forest.packing import Packed, forest_of, pack
from forethought.engines.torch.forest.paths import Block, Found, Kept, PolicyPaths
from forethought.engines.torch.forest.positions import Grid
from forethought.engines.torch.sampling.decoding import Decoding

Tokens = tuple[int, ...]


class Prefilled(NamedTuple):
    """Contexts, each computed once."""

    hidden_BH: torch.Tensor  # after the last token of each
    captured: Captured  # layer -> keys and values of all tokens
    index_BP: torch.Tensor  # where each context's tokens lie among them; padding points at the first
    lengths: list[int]
    after_B: torch.Tensor | None = None  # position of the next token, where that is not the length


class Capturing:
    """Attention over a packed forest for `Decoding`; keys and values of what is computed are kept for the
    rows to come."""

    def __init__(self, packed: Packed, given: Given | None, captured: Captured):
        self.layout, self.given, self.captured = packed.layout, given, captured

    def attend(
        self, layer: int, q_MHd: torch.Tensor, k_MKd: torch.Tensor, v_MKd: torch.Tensor
    ) -> torch.Tensor:
        """Attention of one layer that also keeps its keys and values (contiguous, by layer number)."""
        # a view of the joined product would keep the queries too
        k_MKd, v_MKd = k_MKd.contiguous(), v_MKd.contiguous()
        self.captured[layer] = (k_MKd, v_MKd)
        if self.given:
            return self.given.attention(self.layout, layer, q_MHd, k_MKd, v_MKd).flatten(1)
        return attention(self.layout, q_MHd, k_MKd, v_MKd).flatten(1)


Forward = Callable[[Packed, Given | None, Captured], torch.Tensor]
"""Hidden states [M, H] of a packed row's tokens that are not given; their keys and values into the last."""


def by_decoding(decoding: Decoding, adapter: str) -> Forward:
    """What `prefill` calls, for contexts of one adapter."""

    def forward(packed: Packed, given: Given | None, captured: Captured) -> torch.Tensor:
        new = slice(None) if given is None else given.new_M
        ids_M = packed.ids_N[new]
        seen = Capturing(packed, given, captured)
        return decoding.run(ids_M, packed.positions_N[new], seen, [(adapter, 0, len(ids_M))])

    return forward


def prefill(
    forward: Forward,
    contexts: Sequence[Tokens],
    device: torch.device,
    kept: PolicyPaths | None = None,
    grid: Grid | None = None,
) -> Prefilled:
    """The contexts under the policy whose paths are `kept`, which are read and added to. `grid`: see
    `pack`."""
    found = {c: one for c in dict.fromkeys(contexts) if kept and (one := kept.find(c))}
    segments, paths, known = _split(contexts, found)
    packed, captured = pack(segments, device, known, grid), {}
    row_N = np.concatenate([np.full(len(s.token_ids), i not in known) for i, s in _in_row(segments, packed)])
    rank_N = row_N.cumsum() - 1  # of a computed token among those that are
    joints = _joints(contexts, paths, segments, known, found)
    given = _given(row_N, packed, segments, joints, device) if known else None
    hidden_MH = forward(packed, given, captured)
    if kept:
        _put(kept, contexts, segments, paths, packed, rank_N, joints, captured)
    index = [
        [packed.starts[s] + i for s in path for i in range(len(segments[s].token_ids))] for path in paths
    ]
    longest = max(map(len, index))
    index_BP = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in index], device=device)
    ends = [tokens[-1] for tokens in index]
    last = torch.from_numpy(rank_N[ends]).to(device)
    # what a context ends with is a word: its three positions are one
    after_B = packed.positions_N[0, ends] + 1 if packed.positions_N.dim() > 1 else None
    return Prefilled(
        hidden_MH[last], given.kv if given else captured, index_BP, list(map(len, index)), after_B
    )


def _in_row(segments: Sequence[Segment], packed: Packed) -> list[tuple[int, Segment]]:
    return sorted(enumerate(segments), key=lambda pair: packed.starts[pair[0]])


def _begins(segments: Sequence[Segment]) -> list[int]:
    """Position of each segment's first token."""
    begins: list[int] = []
    for s in segments:
        above = s.parent
        begins.append(begins[above] + len(segments[above].token_ids) if above >= 0 else 0)
    return begins


def _split(
    contexts: Sequence[Tokens], found: dict[Tokens, Found]
) -> tuple[list[Segment], list[list[int]], frozenset[int]]:
    """The forest of the contexts, each one's path, and which segments are known. The last token of a context
    is computed in any case: what follows it is asked for."""
    whole, paths = forest_of(contexts)
    depth, begins = [0] * len(whole), _begins(whole)
    for context, path in zip(contexts, paths, strict=True):
        for s in path if context in found else ():
            known = min(found[context].tokens - begins[s], len(whole[s].token_ids))
            depth[s] = max(depth[s], known)
    for path in paths:
        depth[path[-1]] = min(depth[path[-1]], len(whole[path[-1]].token_ids) - 1)
    if not any(depth):
        return whole, paths, frozenset()
    segments: list[Segment] = []
    pieces: list[list[int]] = []
    known: set[int] = set()
    for s, n in zip(whole, depth, strict=True):
        above, own = pieces[s.parent][-1] if s.parent >= 0 else -1, []
        for tokens in filter(None, (s.token_ids[:n], s.token_ids[n:])):
            segments.append(Segment(parent=above, token_ids=tokens))
            above = len(segments) - 1
            own.append(above)
        known |= {own[0]} if n else set()
        pieces.append(own)
    return segments, [[i for s in path for i in pieces[s]] for path in paths], frozenset(known)


def _joints(
    contexts: Sequence[Tokens],
    paths: Sequence[Sequence[int]],
    segments: Sequence[Segment],
    known: frozenset[int],
    found: dict[Tokens, Found],
) -> dict[int, tuple[int, Kept]]:
    """Of each known segment: its position, and what is kept of the path up to its end."""
    joints, begins = {}, _begins(segments)
    for context, path in zip(contexts, paths, strict=True):
        for s in path if context in found else ():
            end = begins[s] + len(segments[s].token_ids)
            if s in known and s not in joints and found[context].tokens >= end:
                kept = found[context].kept
                while kept.start >= end:
                    kept = kept.above
                joints[s] = (begins[s], kept)
    return joints


def _stretches(kept: Kept, start: int, end: int) -> Iterator[tuple[Block, int, int, int]]:
    """Where tokens `start` to `end` of a path lie: (block, first row there, position, tokens)."""
    while end > start:
        first = max(start, kept.start)
        yield kept.block, kept.held + first - kept.start, first, end - first
        end, kept = first, kept.above


def _given(
    row_N: np.ndarray,
    packed: Packed,
    segments: Sequence[Segment],
    joints: dict[int, tuple[int, Kept]],
    device: torch.device,
) -> Given:
    """What is known, in its places in the whole row."""
    moves: dict[Block, list[tuple[int, int, int]]] = {}
    for s, (begin, kept) in joints.items():
        for block, row, position, n in _stretches(kept, begin, begin + len(segments[s].token_ids)):
            moves.setdefault(block, []).append((packed.starts[s] + position - begin, row, n))
    spread = lambda parts: torch.cat([torch.arange(a, a + n, device=device) for a, n in parts])  # noqa: E731
    places = {
        block: (spread([(to, n) for to, _, n in some]), spread([(row, n) for _, row, n in some]))
        for block, some in moves.items()
    }
    kv: Captured = {}
    for layer, like in next(iter(places)).held.items():
        kv[layer] = tuple(x.new_empty(len(row_N), *x.shape[1:]) for x in like)
        for block, (to, row) in places.items():
            for whole, held in zip(kv[layer], block.held[layer], strict=True):
                whole[to] = held[row]
    return Given(torch.from_numpy(row_N.nonzero()[0]).to(device), kv)


def _put(
    paths_kept: PolicyPaths,
    contexts: Sequence[Tokens],
    segments: Sequence[Segment],
    paths: Sequence[Sequence[int]],
    packed: Packed,
    rank_N: np.ndarray,
    joints: dict[int, tuple[int, Kept]],
    captured: Captured,
) -> None:
    """Keep what was computed, each segment below what is above it."""
    block = Block(captured, sum(x.nbytes for kv in captured.values() for x in kv))
    for _, kept in joints.values():
        for needed in {one for one, *_ in _stretches(kept, 0, kept.start + 1)}:
            block.needs |= {needed} | needed.needs
    whole = {
        s: (context, place)
        for context, path in zip(contexts, paths, strict=True)
        for place, s in enumerate(path)
    }
    own, begins = {s: kept for s, (_, kept) in joints.items()}, _begins(segments)
    for s, segment in enumerate(segments):
        if s not in joints:
            tokens = whole[s][0][: begins[s] + len(segment.token_ids)]
            first = int(rank_N[packed.starts[s]])
            own[s] = Kept(tokens, begins[s], first, block, own.get(segment.parent))
    paths_kept.put(block, [((), kept) for s, kept in own.items() if s not in joints])
