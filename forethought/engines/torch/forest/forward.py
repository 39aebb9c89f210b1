"""From a batch to hidden states: the forest in packs, each pack one forward, and which of its tokens are
looked at.

Axes: _N tokens that are looked at, _H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from forethought.core.errors import UserError
from forethought.core.types import Segment
from forethought.engines.torch.forest.activations import Found
from forethought.engines.torch.forest.attention import Forest, using
from forethought.engines.torch.forest.decoder import decoder_of
from forethought.engines.torch.forest.packing import Packed, pack
from forethought.engines.torch.forest.positions import Grid
from forethought.engines.torch.forest.recompute import recomputes


def packs(segments: Sequence[Segment], budget: int) -> Iterator[tuple[list[int], list[Segment]]]:
    """Split a forest into (original indices, segments) of at most `budget` tokens.

    Between its roots; a tree above the budget is split between its branches too, and what stands above a
    branch is computed again for each part (context there: every token is trained once). One path is never
    split, so a part can exceed the budget by what a path takes. Segments that no trained segment descends
    from are left out: they would be computed for nothing.
    """
    used = [s.stream is not None for s in segments]
    for i in range(len(segments) - 1, -1, -1):
        if used[i] and segments[i].parent >= 0:
            used[segments[i].parent] = True
    trees: dict[int, list[int]] = {}
    root_of: list[int] = []
    for i, s in enumerate(segments):
        root_of.append(i if s.parent < 0 else root_of[s.parent])
        if used[i]:
            trees.setdefault(root_of[i], []).append(i)
    gathered, size = [], 0
    for tree in trees.values():
        tokens = sum(len(segments[i].token_ids) for i in tree)
        if gathered and size + tokens > budget:
            yield gathered, _renumbered(gathered, segments)
            gathered, size = [], 0
        if tokens > budget:
            yield from _split(tree, segments, budget)
            continue
        gathered.extend(tree)
        size += tokens
    if gathered:
        yield gathered, _renumbered(gathered, segments)


def _split(
    tree: list[int], segments: Sequence[Segment], budget: int
) -> Iterator[tuple[list[int], list[Segment]]]:
    """Parts of one tree, filled in the order of its segments. A segment that a part before has trained is
    context in this one."""
    done: set[int] = set()
    part: set[int] = set()
    size = 0
    for i in tree:
        path = _new_on_path(i, segments, part)
        more = sum(len(segments[j].token_ids) for j in path)
        if size + more > budget and any(segments[j].stream for j in part - done):
            yield _part(sorted(part), segments, done)
            done |= part
            part, size = set(), 0
            path = _new_on_path(i, segments, part)
            more = sum(len(segments[j].token_ids) for j in path)
        part.update(path)
        size += more
    yield _part(sorted(part), segments, done)


def _new_on_path(i: int, segments: Sequence[Segment], part: set[int]) -> list[int]:
    """Segment `i` and those above it that the part does not have yet."""
    path = []
    while i >= 0 and i not in part:
        path.append(i)
        i = segments[i].parent
    return path


def _part(indices: list[int], segments: Sequence[Segment], done: set[int]) -> tuple[list[int], list[Segment]]:
    kept = _renumbered(indices, segments)
    return indices, [replace(s, stream=None) if i in done else s for i, s in zip(indices, kept, strict=True)]


def _renumbered(indices: list[int], segments: Sequence[Segment]) -> Sequence[Segment]:
    if indices == list(range(len(segments))):
        return segments
    new = {old: i for i, old in enumerate(indices)}
    return [replace(segments[i], parent=new.get(segments[i].parent, -1)) for i in indices]


@dataclass(frozen=True, slots=True)
class Row:
    """A pack, laid out."""

    segments: Sequence[Segment]
    packed: Packed


@dataclass(frozen=True, slots=True)
class Targets:
    """The tokens of some segments of a row, in order."""

    spans: tuple[tuple[int, int, int], ...]  # (segment, first of N, count)
    ids_N: torch.Tensor
    before_N: torch.Tensor  # place in the row of the token whose hidden state predicts each


def row_of(segments: Sequence[Segment], device: torch.device, context: int, grid: Grid | None = None) -> Row:
    """`grid`: see `pack`. UserError where a path is longer than `context` tokens, ValueError where the first
    token of a root is to be predicted."""
    packed = pack(segments, device, grid=grid)
    if packed.longest > context:
        raise UserError(
            f"a demonstration or rollout of {packed.longest} tokens does not fit the model's context of "
            f"{context}; take lower levels or a shorter task, or use a model with a longer context"
        )
    for i, s in enumerate(segments):
        if s.stream is not None and s.parent < 0:
            raise ValueError(f"segment {i} trains its tokens, but nothing stands before the first of them")
    return Row(segments, packed)


def targets_of(row: Row, streams: Sequence[str] = ("sft", "pg", "keep")) -> Targets:
    """The tokens of the segments in these streams."""
    spans, places, first = [], [], 0
    for i, s in enumerate(row.segments):
        if s.stream in streams:
            n = len(s.token_ids)
            spans.append((i, first, n))
            places.extend(range(row.packed.starts[i], row.packed.starts[i] + n))
            first += n
    places = torch.tensor(places, dtype=torch.long, device=row.packed.ids_N.device)
    return Targets(tuple(spans), row.packed.ids_N[places], row.packed.before_N[places])


def hidden_of(
    model: torch.nn.Module,
    row: Row,
    places_M: torch.Tensor | None = None,
    left: Found | None = None,
) -> torch.Tensor:
    """Hidden states [M, H] after the final norm at these places of the row; None: at all. What nobody asks
    for is not computed to the end. `left`: what sampling has left of the row under these weights."""
    packed = row.packed
    if decoder := decoder_of(model):
        return decoder.hidden(
            packed.ids_N,
            packed.positions_N,
            packed.layout,
            recompute=recomputes(model),
            places_M=places_M,
            left=left,
        )
    with using(Forest(packed.layout)):
        out = model.base_model(
            input_ids=packed.ids_N[None], position_ids=packed.positions_N[..., None, :], use_cache=False
        )
    hidden_NH = out.last_hidden_state[0]
    return hidden_NH if places_M is None else hidden_NH[places_M]
