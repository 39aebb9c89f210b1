"""A forest as one row: positions, predecessors and groups of a forest laid out by hand, and what is
refused."""

from __future__ import annotations

import pytest
import torch
from torch_kit import forest, path_to

from forethought.core.types import Segment
from forethought.engines.torch.forest.forward import packs
from forethought.engines.torch.forest.packing import forest_of, pack

INF = float("inf")


def s(parent: int, *ids: int, stream=None) -> Segment:
    return Segment(parent=parent, token_ids=ids, stream=stream)


# Two trees. The first: a root of 3 tokens that branches into b (which goes on in its only child d) and c.
FOREST = [
    s(-1, 10, 11, 12),  # a: row 0 1 2
    s(0, 20, 21),  # b: row 3 4
    s(0, 30),  # c: row 6
    s(1, 40),  # d: row 5, continues b's block
    s(-1, 50, 51),  # e: row 7 8
]


def test_every_token_stands_once_with_its_position_and_its_predecessor():
    p = pack(FOREST)
    # each segment followed by what descends from it
    assert p.ids_N.tolist() == [10, 11, 12, 20, 21, 40, 30, 50, 51]
    assert p.positions_N.tolist() == [0, 1, 2, 3, 4, 5, 3, 0, 1]
    assert p.before_N.tolist() == [-1, 0, 1, 2, 3, 4, 2, -1, 7]
    assert p.starts == (0, 3, 6, 5, 7)
    assert p.longest == 6
    assert p.layout.spans_S3.tolist() == [[0, 3, 7], [3, 2, 6], [5, 1, 6], [6, 1, 7], [7, 2, 9]]


def test_blocks_are_chains_and_siblings_stand_together():
    """Blocks: e [7 8] and a [0 1 2] are roots, each a set of its own; c [6] and b+d [3 4 5] are siblings
    under a."""
    roots, below = pack(FOREST).layout.groups
    assert (roots.n, below.n) == (1, 2)
    assert roots.own_BQ.tolist() == [[7, 8, 0], [0, 1, 2]] and roots.above_SA.shape == (2, 0)
    assert roots.hole_BQ.tolist() == [[False, False, True], [False] * 3]
    assert below.own_BQ.tolist() == [[3, 4, 5], [6, 0, 0]] and below.hole_BQ.tolist() == [
        [False] * 3,
        [False, True, True],
    ]
    assert below.above_SA.tolist() == [[0, 1, 2]] and below.bias_S11A is None and roots.bias_S11A is None
    assert pack(FOREST).layout.place_N.tolist() == [3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_every_token_sees_exactly_its_path():
    """The layout alone, read back: for each token the set of keys it sees is its path, whatever the
    grouping."""
    for seed in range(12):
        segments = forest(seed, roots=3, segments=40, longest=23)
        p = pack(segments)
        sees, flat = {}, 0
        for g in p.layout.groups:
            for b, own in enumerate(g.own_BQ.tolist()):
                bias = (
                    torch.zeros(g.above_SA.shape[1]) if g.bias_S11A is None else g.bias_S11A[b // g.n, 0, 0]
                )
                above = [
                    k for k, far in zip(g.above_SA[b // g.n].tolist(), bias.tolist(), strict=True) if far == 0
                ]
                for i, token in enumerate(own):
                    sees[flat] = (token, sorted(above + own[: i + 1]))
                    flat += 1
        for i, segment in enumerate(segments):
            path = []
            at = i
            while at >= 0:
                path = list(range(p.starts[at], p.starts[at] + len(segments[at].token_ids))) + path
                at = segments[at].parent
            for token in range(p.starts[i], p.starts[i] + len(segment.token_ids)):
                assert sees[p.layout.place_N[token].item()] == (
                    token,
                    [t for t in path if t <= token or t < p.starts[i]],
                )
        for start, segment in zip(p.starts, segments, strict=True):
            assert p.ids_N[start : start + len(segment.token_ids)].tolist() == list(segment.token_ids)


def test_groups_are_cut_where_padding_would_cost_too_much():
    """Blocks of 100 tokens beside one of 1, roots beside branches, 9 siblings beside 2: no group's padding is
    more than the bounds allow."""
    root, short = s(-1, *range(100)), s(-1, 1)
    groups = pack([root, s(0, 1), s(0, 2, 3), short]).layout.groups
    assert [(g.n, tuple(g.own_BQ.shape), g.above_SA.shape[1]) for g in groups] == [
        (1, (1, 1), 0),
        (1, (1, 100), 0),
        (2, (2, 2), 100),
    ]
    wide = [s(-1, 1), *[s(0, 2) for _ in range(9)], s(-1, 1), s(10, 2), s(10, 2)]
    assert [(g.n, len(g.above_SA)) for g in pack(wide).layout.groups] == [(1, 2), (2, 1), (9, 1)]


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([], "an empty forest cannot be packed"),
        ([s(-1, 1), s(0)], "segment 1 has no tokens"),
        ([s(-1, 1), s(2, 1), s(0, 1)], "segment 1 has parent 2; parents must come first"),
        ([s(0, 1)], "segment 0 has parent 0; parents must come first"),
        ([s(-2, 1)], "segment 0 has parent -2"),
    ],
)
def test_what_is_no_forest_is_refused(segments, message):
    with pytest.raises(ValueError, match=message):
        pack(segments)


def test_packs_are_whole_trees_within_the_budget_and_leave_out_what_nothing_trains_on():
    segments = [
        s(-1, 1, 2, 3),
        s(0, 4, 5, stream="sft"),
        s(0, 6),
        s(-1, 7, 8),
        s(3, 9),
        s(-1, 10),
        s(5, 11, stream="sft"),
    ]
    whole = [(indices, [x.parent for x in own]) for indices, own in packs(segments, 100)]
    assert whole == [([0, 1, 5, 6], [-1, 0, -1, 2])]  # segment 2 and the tree of 3 lead to no target
    assert [indices for indices, _ in packs(segments, 6)] == [[0, 1], [5, 6]]
    assert [indices for indices, _ in packs(segments, 1)] == [[0, 1], [5, 6]]  # a path is never split


def test_a_tree_above_the_budget_is_split_between_its_branches_and_trains_every_token_once():
    """A root of 3, two plans of 2, two acts of 2 under each: 15 tokens. What is above a branch stands in each
    part, as context."""
    own = {"stream": "pg"}
    segments = [
        s(-1, 1, 2, 3),
        s(0, 4, 5, **own),
        s(0, 6, 7, **own),
        s(1, 8, 9, **own),
        s(1, 10, 11, **own),
        s(2, 12, 13, **own),
        s(2, 14, 15, **own),
    ]
    parts = lambda budget: [(i, [x.stream for x in own]) for i, own in packs(segments, budget)]  # noqa: E731
    assert parts(15) == [([0, 1, 2, 3, 4, 5, 6], [None] + ["pg"] * 6)]
    assert parts(11) == [([0, 1, 2, 3, 4], [None] + ["pg"] * 4), ([0, 2, 5, 6], [None, None, "pg", "pg"])]
    assert parts(7) == [
        ([0, 1, 2], [None, "pg", "pg"]),
        ([0, 1, 3], [None, None, "pg"]),
        ([0, 1, 4], [None, None, "pg"]),
        ([0, 2, 5], [None, None, "pg"]),
        ([0, 2, 6], [None, None, "pg"]),
    ]
    assert parts(1) == parts(5) == [([0, 1], [None, "pg"]), ([0, 2], [None, "pg"]), *parts(7)[1:]]
    assert [x.parent for x in dict(enumerate(own for _, own in packs(segments, 11)))[1]] == [-1, 0, 1, 1]
    for budget in (1, 7, 11):
        trained = sorted(
            i
            for indices, streams in parts(budget)
            for i, stream in zip(indices, streams, strict=True)
            if stream
        )
        assert trained == [1, 2, 3, 4, 5, 6]


def test_contexts_become_a_radix_tree_and_keep_their_tokens():
    contexts = [(1, 2, 3, 4), (1, 2, 3, 5, 6), (1, 2), (7,), (1, 2, 3, 4), (1, 2, 3, 5)]
    segments, paths = forest_of(contexts)
    assert [path_to(segments, path[-1]) for path in paths] == contexts
    assert [sum((segments[i].token_ids for i in path), ()) for path in paths] == contexts
    assert sum(len(x.token_ids) for x in segments) == 7  # 1 2 | 3 | 4 | 5 | 6 | 7: each shared token once
    assert paths[0] == paths[4]
    torch.testing.assert_close(pack(segments).positions_N.max(), torch.tensor(4))
