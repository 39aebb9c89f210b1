"""What an update sees: shared prefixes once, targets only where something trains, every path as it was
sampled."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import ACT, HAND, PLAN, scripted

from forethought.core.types import Segment
from forethought.learn.batches import demonstration_segments, for_policy, tree_segments
from forethought.recipe.schema import TreeSpec

OTHER = replace(HAND, id="other", prompt="GOAL o v1", state=replace(HAND.state, goal="o", value="v1"))
ELSEWHERE = replace(HAND, id="elsewhere", context=HAND.context.replace("x1", "x2"))
BARE = replace(HAND, id="bare", context="")


def say(policy, text, i, seed):
    return [PLAN, "GOAL </plan>"][i] if text.endswith("<plan>") else ACT


def shown(rollouts, segments: list[Segment]) -> list[tuple]:
    return [(s.parent, rollouts.engine.decode(s.token_ids), s.role, s.stream) for s in segments]


def path(segments, at: int) -> tuple[int, ...]:
    ids: tuple[int, ...] = ()
    while at >= 0:
        ids, at = segments[at].token_ids + ids, segments[at].parent
    return ids


# demonstrations ---------------------------------------------------------------------------------------------


def test_tasks_on_one_screen_share_it_and_roles_without_loss_are_context():
    rollouts = scripted(say)
    segments = demonstration_segments(rollouts, [HAND, ELSEWHERE, OTHER], [{"plan", "act"}, {"act"}, set()])
    assert shown(rollouts, segments) == [
        (-1, HAND.context, None, None),
        (0, f"{HAND.prompt} <plan>", None, None),
        (1, PLAN, "plan", "sft"),
        (2, ACT, "act", "sft"),
        (-1, ELSEWHERE.context, None, None),
        (4, f"{HAND.prompt} <plan>", None, None),
        (5, PLAN, "plan", None),
        (6, ACT, "act", "sft"),
        (0, f"{OTHER.prompt} <plan>", None, None),
        (8, "o </plan>", "plan", None),
        (9, "o x1 y3 v1 </act>", "act", None),
    ]
    assert [s.weight for s in segments if s.stream] == [(1.0,) * 4, (1.0,) * 11, (1.0,) * 11]
    assert all(s.weight == s.advantage == s.old_logprobs == () for s in segments if s.stream is None)


def test_observations_between_turns_never_carry_loss():
    rollouts = scripted(say, stepwise=True)
    segments = demonstration_segments(rollouts, [HAND], [{"plan", "act"}])
    assert shown(rollouts, segments)[2:] == [
        (1, PLAN, "plan", "sft"),
        (2, "e x8 y9 </act>", "act", "sft"),
        (3, "<obs> s x5 y7 </obs>", None, None),
        (4, "s x5 y7 </act>", "act", "sft"),
        (5, "<obs> c x3 y4 </obs>", None, None),
        (6, "c x3 y4 v3 </act>", "act", "sft"),
    ]


def test_a_task_without_a_context_is_its_own_root():
    rollouts = scripted(say)
    segments = demonstration_segments(rollouts, [BARE, BARE], [{"plan"}, {"plan"}])
    assert [s.parent for s in segments] == [-1, 0, 1, -1, 3, 4] and segments[
        0
    ].token_ids == rollouts.engine.encode(f"{HAND.prompt} <plan>")


def test_every_task_needs_its_roles():
    with pytest.raises(ValueError):
        demonstration_segments(scripted(say), [HAND, OTHER], [{"plan"}])


# rollouts ---------------------------------------------------------------------------------------------------


def grown(tasks, spec=TreeSpec(counts={"plan": 2, "act": 2}), **options):
    rollouts = scripted(say, **options)
    trees = rollouts.grow(tasks, spec, {"plan": "base", "act": "base"}, seed=1)
    trees = [
        replace(
            t,
            nodes=tuple(
                replace(n, logprobs=tuple(-0.1 * (n.id + k) for k in range(len(n.logprobs)))) for n in t.nodes
            ),
        )
        for t in trees
    ]
    return rollouts, trees


def test_a_tree_becomes_a_forest_with_the_screen_once():
    rollouts, trees = grown([HAND, OTHER, ELSEWHERE])
    given = {1: (1.0,) * 4, 2: (-1.0,) * 2, 3: (0.5,) * 11, 4: (-0.5,) * 11}
    segments = tree_segments(rollouts, trees, [given, {}, {1: (0.25,) * 4}], "tokens")
    assert [(s.parent, rollouts.engine.decode(s.token_ids)[:9], s.role, s.stream) for s in segments] == [
        (-1, HAND.context[:9], None, None),
        (0, HAND.prompt[:9], None, None),
        (1, PLAN[:9], "plan", "pg"),
        (1, "GOAL </pl", "plan", "pg"),
        (2, ACT[:9], "act", "pg"),
        (2, ACT[:9], "act", "pg"),
        (0, OTHER.prompt[:9], None, None),
        (6, PLAN[:9], "plan", None),
        (6, "GOAL </pl", "plan", None),
        (7, ACT[:9], "act", None),
        (7, ACT[:9], "act", None),
        (-1, HAND.context[:9], None, None),
        (11, HAND.prompt[:9], None, None),
        (12, PLAN[:9], "plan", "pg"),
        (12, "GOAL </pl", "plan", None),
        (13, ACT[:9], "act", None),
        (13, ACT[:9], "act", None),
    ]
    for at, node in ((2, 1), (3, 2), (4, 3), (5, 4)):
        assert segments[at].advantage == given[node] and segments[at].weight == (1.0,) * len(given[node])
        assert segments[at].old_logprobs == trees[0].nodes[node].logprobs


def test_every_path_is_the_one_that_was_sampled():
    """What the update predicts from is, id for id, what the sampler read."""
    rollouts, trees = grown([HAND, OTHER, ELSEWHERE, BARE])
    segments = tree_segments(rollouts, trees, [{}] * 4, "tokens")
    read = {request.context for request in rollouts.engine.asked}
    for tree in trees:
        for node in tree.nodes[1:]:
            assert sum((n.token_ids for n in tree.path(node)[:-1]), ()) in read
    assert {path(segments, i) for i in range(len(segments))} >= {
        sum((n.token_ids for n in tree.path(node)), ()) for tree in trees for node in tree.nodes
    }


def test_every_turn_weighs_the_same_under_sequences_and_every_token_under_tokens():
    rollouts, trees = grown([HAND])
    given = {1: (1.0,) * 4, 3: (0.5,) * 11}
    for norm, weights in (("sequences", [1 / 4, 1 / 11]), ("tokens", [1.0, 1.0]), ("constant", [1.0, 1.0])):
        segments = [s for s in tree_segments(rollouts, trees, [given], norm) if s.stream]
        assert [set(s.weight) for s in segments] == [{w} for w in weights]
        assert [len(s.weight) for s in segments] == [4, 11]


def test_the_turns_of_a_branch_are_one_sequence():
    """plan; act, observation, act on one branch; act on another: three responses a tree."""
    rollouts, [tree] = grown([HAND])
    root, plan, act = tree.nodes[0], tree.nodes[1], tree.nodes[3]
    seen = replace(act, id=4, parent=3, role=None, policy=None, status="given", logprobs=())
    nodes = (
        root,
        plan,
        replace(act, parent=1),
        seen,
        replace(act, id=5, parent=4),
        replace(act, id=6, parent=1),
    )
    deep = replace(
        tree, nodes=tuple(replace(n, branch={1: 1, 3: 3, 4: 3, 5: 3, 6: 6}.get(n.id, 0)) for n in nodes)
    )
    given = {n.id: (1.0,) * len(n.token_ids) for n in nodes if n.policy}
    said = [s for s in tree_segments(rollouts, [deep, deep], [given] * 2, "tokens") if s.stream]
    first, second = [s.sequence for s in said[:4]], [s.sequence for s in said[4:]]
    assert first[1] == first[2] and len(set(first)) == 3 and not set(first) & set(second)


def test_a_node_without_tokens_has_nothing_to_learn():
    rollouts, trees = grown([HAND])
    empty = replace(
        trees[0], nodes=(*trees[0].nodes[:3], replace(trees[0].nodes[3], token_ids=(), logprobs=()))
    )
    assert tree_segments(rollouts, [empty], [{3: ()}], "sequences")[-1].stream is None


def test_every_tree_needs_its_advantages():
    rollouts, trees = grown([HAND])
    with pytest.raises(ValueError):
        tree_segments(rollouts, trees, [], "tokens")


# one policy at a time ---------------------------------------------------------------------------------------


def test_a_policy_trains_on_its_own_roles_and_reads_the_rest():
    rollouts, trees = grown([HAND])
    segments = tree_segments(
        rollouts, trees, [{1: (1.0,) * 4, 2: (0.0,) * 2, 3: (0.5,) * 11, 4: (0.5,) * 11}], "tokens"
    )
    policies = {"plan": "planner", "act": "base"}
    planner, base = (for_policy(segments, name, policies) for name in ("planner", "base"))
    assert (planner.policy, [i for i, s in enumerate(planner.segments) if s.stream]) == ("planner", [2, 3])
    assert (base.policy, [i for i, s in enumerate(base.segments) if s.stream]) == ("base", [4, 5])
    for batch in (planner, base):
        assert [(s.parent, s.token_ids, s.role) for s in batch.segments] == [
            (s.parent, s.token_ids, s.role) for s in segments
        ]
        assert all(
            not (s.weight or s.advantage or s.old_logprobs) for s in batch.segments if s.stream is None
        )
    assert for_policy(segments, "base", {"plan": "base", "act": "base"}).segments == tuple(segments)
    assert all(s.stream is None for s in for_policy(segments, "third", policies).segments)
