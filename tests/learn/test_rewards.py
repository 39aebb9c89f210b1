"""From parts to rewards: what counts, what is absent, and what is never a 0."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import node, tree_of

from forethought.core.types import Node, Tree
from forethought.learn.rewards import reward

DEFAULT = {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}}


def change(tree: Tree, id: int, **fields) -> Tree:
    return replace(tree, nodes=tuple(replace(n, **fields) if n.id == id else n for n in tree.nodes))


def rewards(tree: Tree, weights) -> dict[int, float | None]:
    return {n.id: n.reward for n in reward(tree, weights).nodes}


def test_a_plans_outcome_is_the_mean_of_its_executions_and_a_refused_plan_has_0():
    rewarded = reward(tree_of([[1, 0, 0, 1], [0], None]), DEFAULT)
    assert {n.id: n.reward_parts["outcome"] for n in rewarded.nodes if n.role == "plan"} == {
        1: 0.5,
        6: 0.0,
        8: 0.0,
    }
    assert {n.id: n.reward for n in rewarded.nodes} == {
        0: None,
        1: 0.5,
        2: 1,
        3: 0,
        4: 0,
        5: 1,
        6: 0.0,
        7: 0,
        8: 0.0,
    }


def test_the_sum_is_weighted_and_the_parts_stay():
    tree = tree_of([[1, 0]])
    rewarded = reward(
        tree, {"plan": {"valid": 2.0, "format": 0.25}, "act": {"outcome": 1.0, "follows": -0.5}}
    )
    assert [n.reward for n in rewarded.nodes] == [None, 2.25, 0.5, -0.5]
    assert rewarded.nodes[2].reward_parts == {"format": 1.0, "outcome": 1, "follows": 1.0}
    assert rewarded.nodes[1].reward_parts == {"format": 1.0, "valid": 1.0, "outcome": 0.5}
    assert [n.reward for n in tree.nodes] == [None] * 4  # records are not changed in place


def test_a_role_without_weights_has_no_reward():
    assert rewards(tree_of([[1], None]), {"act": {"outcome": 1.0}}) == {0: None, 1: None, 2: 1, 3: None}


def test_a_failed_execution_is_no_0_and_is_not_in_its_plans_mean():
    tree = change(tree_of([[1, 1]]), 3, status="failed", reward_parts={})
    assert rewards(tree, DEFAULT) == {0: None, 1: 1.0, 2: 1, 3: None}
    partly = change(
        tree_of([[1, 1]]), 3, status="failed", reward_parts={"format": 1.0, "outcome": 0.0, "follows": 0.0}
    )
    assert rewards(partly, DEFAULT)[3] is None


def test_a_plan_whose_every_execution_failed_has_no_outcome_and_no_reward_that_counts_it():
    tree = tree_of([[1, 1], [1]])
    for id in (2, 3):
        tree = change(tree, id, status="failed", reward_parts={})
    plan = reward(tree, DEFAULT).nodes[1]
    assert "outcome" not in plan.reward_parts and plan.reward is None
    # what does not count it is known all the same
    assert reward(tree, {"plan": {"valid": 1.0}}).nodes[1].reward == 1.0


def test_a_failed_plan_has_no_reward():
    tree = change(tree_of([[1], None]), 3, status="failed", reward_parts={})
    assert rewards(tree, DEFAULT)[3] is None


def test_a_tree_of_plans_alone_has_no_outcomes():
    tree = tree_of([[], [], None])
    rewarded = reward(tree, {"plan": {"valid": 1.0}})
    assert ["outcome" in n.reward_parts for n in rewarded.nodes] == [False] * 4
    assert [n.reward for n in rewarded.nodes] == [None, 0.0, 0.0, 0.0]


def test_a_tree_whose_every_plan_was_refused_has_outcome_0_where_it_counts():
    """Nothing was executed because nothing could be: those plans are worse than any, not unknown."""
    assert rewards(tree_of([None, None]), DEFAULT) == {0: None, 1: 0.0, 2: 0.0}


@pytest.mark.parametrize("status", ["refused", "truncated"])
def test_a_plan_that_was_cut_off_counts_as_a_refused_one(status):
    assert rewards(change(tree_of([[1], None]), 3, status=status), DEFAULT)[3] == 0.0


def test_an_execution_of_several_turns_is_rewarded_once_at_its_end():
    seen = Node(id=3, parent=2, role=None, text="obs", token_ids=(1,))
    last = node(4, 3, "act", 1, reward_parts={"format": 1.0, "outcome": 1.0, "follows": 0.0})
    first = tree_of([[0]]).nodes
    tree = Tree(task=tree_of([]).task, nodes=(*first[:2], replace(first[2], reward_parts={}), seen, last))
    assert rewards(tree, DEFAULT) == {0: None, 1: 1.0, 2: None, 3: None, 4: 1.0}
