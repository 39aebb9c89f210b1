"""Trees of one pack that begin alike, made one tree: rules, a system text or examples that stand before every
task are then computed once, forward and backward, and so is a prompt that several demonstrations answer.

Only what carries no targets is joined. The gradient of a joined beginning is the sum over all that stands
below it, as it is for a prompt and its group: the same gradient, whose last bits differ, since attention sums
segment by segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from forethought.core.types import Segment
from forethought.engines.torch.forest.paths import Tokens, common


@dataclass(eq=False, slots=True)
class _Node:
    tokens: Tokens
    above: _Node | None
    of: int  # the segment that it is, or was cut from
    cut: bool = False
    below: dict[Tokens, _Node] = field(default_factory=dict)  # that can be joined, by how they begin


def joined(
    indices: Sequence[int], segments: Sequence[Segment], least: int
) -> tuple[Sequence[int], Sequence[Segment]]:
    """A forest in which neighbours without targets that begin with the same `least` tokens, or more, share
    what they have in common; the same forest where none do, or where `least` is 0.

    `indices`: a number of each segment; of one that has become several, each piece has it, and of several
    that are equal the first one's stays."""
    if not least:
        return indices, segments
    roots: dict[Tokens, _Node] = {}
    order: list[_Node] = []
    ends: list[_Node] = []  # of each segment, where those below it stand
    found = False
    for i, s in enumerate(segments):
        above, tokens = ends[s.parent] if s.parent >= 0 else None, s.token_ids
        beside = roots if above is None else above.below
        while s.stream is None and len(tokens) >= least and (other := beside.get(tokens[:least])):
            n, found = common(other.tokens, tokens), True
            above = other if n == len(other.tokens) else _cut(other, n, beside, least, order)
            tokens, beside = tokens[n:], above.below
        if tokens or above is None:
            above = _Node(tokens, above, i)
            order.append(above)
            if s.stream is None and len(tokens) >= least:
                beside[tokens[:least]] = above
        ends.append(above)
    if not found:
        return indices, segments
    places: dict[_Node | None, int] = {None: -1} | {node: i for i, node in enumerate(order)}
    return [indices[node.of] for node in order], [
        Segment(parent=places[node.above], token_ids=node.tokens)
        if node.cut
        else replace(segments[node.of], parent=places[node.above], token_ids=node.tokens)
        for node in order
    ]


def _cut(node: _Node, n: int, beside: dict[Tokens, _Node], least: int, order: list[_Node]) -> _Node:
    """The first n tokens of a node as one above it."""
    head = _Node(node.tokens[:n], node.above, node.of, cut=True)
    beside[head.tokens[:least]] = head
    node.tokens, node.above = node.tokens[n:], head
    if len(node.tokens) >= least:
        head.below[node.tokens[:least]] = node
    order.insert(order.index(node), head)
    return head
