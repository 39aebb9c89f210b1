"""A forest as one row: positions, predecessors and groups of a forest laid out by hand, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch_kit import forest, path_to

from forethought.engines.torch.forward import packs
from forethought.engines.torch.packing import pack
from forethought.engines.torch.sampling import forest_of
from forethought.types import Segment

INF = float("inf")


def s(parent: int, *ids: int, stream=None) -> Segment:
    return Segment(parent=parent, token_ids=ids, stream=stream)


# Two trees. The first: a root of 3 tokens that branches into b (which goes on in its only child d) and c.
FOREST = [
    s(-1, 10, 11, 12),  # a: row 0 1 2
    s(0, 20, 21),       # b: row 3 4
    s(0, 30),           # c: row 5
    s(1, 40),           # d: row 6, continues b's block
    s(-1, 50, 51),      # e: row 7 8
]  # fmt: skip


def test_every_token_stands_once_with_its_position_and_its_predecessor():
    p = pack(FOREST)
    assert p.ids_N.tolist() == [10, 11, 12, 20, 21, 30, 40, 50, 51]
    assert p.positions_N.tolist() == [0, 1, 2, 3, 4, 3, 5, 0, 1]
    assert p.before_N.tolist() == [-1, 0, 1, 2, 3, 2, 4, -1, 7]
    assert p.starts == (0, 3, 5, 6, 7)
    assert p.longest == 6


def test_blocks_are_chains_and_see_their_ancestors_and_their_own_past():
    """Blocks: e [7 8], a [0 1 2], c [5] under a, b+d [3 4 6] under a. All are short enough for one group, sorted by (keys, queries)."""
    (g,) = pack(FOREST).layout.groups
    assert g.query_BQ.tolist() == [[7, 8, 0], [0, 1, 2], [5, 0, 0], [3, 4, 6]]
    assert g.key_BK.tolist() == [[0, 0, 0, 7, 8, 0], [0, 0, 0, 0, 1, 2], [0, 1, 2, 5, 0, 0], [0, 1, 2, 3, 4, 6]]
    own = [[0, -INF, -INF], [0, 0, -INF], [0, 0, 0]]
    below, root = [[0.0] * 3 + row for row in own], [[-INF] * 3 + row for row in own]
    assert g.bias_B1QK[:, 0].tolist() == [root, root, below, below]
    assert pack(FOREST).layout.place_N.tolist() == [3, 4, 5, 9, 10, 6, 11, 0, 1]


def test_every_token_sees_exactly_its_path():
    """The layout alone, read back: for each token the set of keys it sees is its path, whatever the grouping."""
    for seed in range(12):
        segments = forest(seed, roots=3, segments=40, longest=23)
        p = pack(segments)
        sees, flat = {}, 0
        for g in p.layout.groups:
            for query, key, bias in zip(g.query_BQ.tolist(), g.key_BK.tolist(), g.bias_B1QK[:, 0], strict=True):
                for q, row in zip(query, bias, strict=True):
                    sees[flat] = (q, sorted(k for k, b in zip(key, row.tolist(), strict=True) if b == 0))
                    flat += 1
        for i, segment in enumerate(segments):
            path = []
            at = i
            while at >= 0:
                path = list(range(p.starts[at], p.starts[at] + len(segments[at].token_ids))) + path
                at = segments[at].parent
            for token in range(p.starts[i], p.starts[i] + len(segment.token_ids)):
                assert sees[p.layout.place_N[token].item()] == (token, [t for t in path if t <= token or t < p.starts[i]])
        assert p.ids_N[p.starts[-1]:].tolist() == list(segments[-1].token_ids)


def test_groups_are_cut_where_padding_would_cost_too_much():
    """100 queries beside 1, and keys of 0 beside 100: three groups, and no group's padding is more than the bounds allow."""
    root, short = s(-1, *range(100)), s(-1, 1)
    groups = pack([root, s(0, 1), s(0, 2, 3), short]).layout.groups
    assert [g.query_BQ.shape for g in groups] == [(1, 1), (1, 100), (2, 2)]
    assert [g.key_BK.shape[1] for g in groups] == [1, 100, 102]


@pytest.mark.parametrize(("segments", "message"), [
    ([], "an empty forest cannot be packed"),
    ([s(-1, 1), s(0)], "segment 1 has no tokens"),
    ([s(-1, 1), s(2, 1), s(0, 1)], "segment 1 has parent 2; parents must come first"),
    ([s(0, 1)], "segment 0 has parent 0; parents must come first"),
    ([s(-2, 1)], "segment 0 has parent -2"),
])  # fmt: skip
def test_what_is_no_forest_is_refused(segments, message):
    with pytest.raises(ValueError, match=message):
        pack(segments)


def test_packs_are_whole_trees_within_the_budget_and_leave_out_what_nothing_trains_on():
    segments = [s(-1, 1, 2, 3), s(0, 4, 5, stream="sft"), s(0, 6), s(-1, 7, 8), s(3, 9), s(-1, 10), s(5, 11, stream="sft")]
    whole = [(indices, [x.parent for x in own]) for indices, own in packs(segments, 100)]
    assert whole == [([0, 1, 5, 6], [-1, 0, -1, 2])]  # segment 2 and the tree of 3 lead to no target
    assert [indices for indices, _ in packs(segments, 6)] == [[0, 1], [5, 6]]
    assert [indices for indices, _ in packs(segments, 1)] == [[0, 1], [5, 6]]  # a path is never split


def test_a_tree_above_the_budget_is_split_between_its_branches_and_trains_every_token_once():
    """A root of 3, two plans of 2, two acts of 2 under each: 15 tokens. What is above a branch stands in each part, as context."""
    own = {"stream": "pg"}
    segments = [s(-1, 1, 2, 3), s(0, 4, 5, **own), s(0, 6, 7, **own), s(1, 8, 9, **own), s(1, 10, 11, **own), s(2, 12, 13, **own),
                s(2, 14, 15, **own)]  # fmt: skip
    parts = lambda budget: [(i, [x.stream for x in own]) for i, own in packs(segments, budget)]  # noqa: E731
    assert parts(15) == [([0, 1, 2, 3, 4, 5, 6], [None] + ["pg"] * 6)]
    assert parts(11) == [([0, 1, 2, 3, 4], [None] + ["pg"] * 4), ([0, 2, 5, 6], [None, None, "pg", "pg"])]
    assert parts(7) == [([0, 1, 2], [None, "pg", "pg"]), ([0, 1, 3], [None, None, "pg"]), ([0, 1, 4], [None, None, "pg"]),
                        ([0, 2, 5], [None, None, "pg"]), ([0, 2, 6], [None, None, "pg"])]
    assert parts(1) == parts(5) == [([0, 1], [None, "pg"]), ([0, 2], [None, "pg"]), *parts(7)[1:]]
    assert [x.parent for x in dict(enumerate(own for _, own in packs(segments, 11)))[1]] == [-1, 0, 1, 1]
    for budget in (1, 7, 11):
        trained = sorted(i for indices, streams in parts(budget) for i, stream in zip(indices, streams, strict=True) if stream)
        assert trained == [1, 2, 3, 4, 5, 6]


def test_contexts_become_a_radix_tree_and_keep_their_tokens():
    contexts = [(1, 2, 3, 4), (1, 2, 3, 5, 6), (1, 2), (7,), (1, 2, 3, 4), (1, 2, 3, 5)]
    segments, paths = forest_of(contexts)
    assert [path_to(segments, path[-1]) for path in paths] == contexts
    assert [sum((segments[i].token_ids for i in path), ()) for path in paths] == contexts
    assert sum(len(x.token_ids) for x in segments) == 7  # 1 2 | 3 | 4 | 5 | 6 | 7: each shared token once
    assert paths[0] == paths[4]
    torch.testing.assert_close(pack(segments).positions_N.max(), torch.tensor(4))
