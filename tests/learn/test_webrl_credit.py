"""Credit from a critic's values, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import tree_of

from forethought.core.types import Tree
from forethought.learn.credit import CREDITS
from forethought.learn.rewards import reward
from forethought.recipe.schema import CreditSpec

BOTH = {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}}


def valued(tree: Tree, values: dict[int, float]) -> Tree:
    nodes = (
        replace(n, reward_parts={**n.reward_parts, "value": values[n.id]}) if n.id in values else n
        for n in reward(tree, BOTH).nodes
    )
    return replace(tree, nodes=tuple(nodes))


def found(name: str, tree: Tree, **spec) -> dict[int, float]:
    return {i: row[0] for i, row in CREDITS[name](tree, CreditSpec(name=name, **spec)).items()}


def test_a_turn_is_worth_what_it_gained_and_what_came_of_it():
    """One plan (V .4) with two executions (V .5 and .7), of which the first succeeds: the plan is worth .5
    and leads to states worth .6."""
    tree = valued(tree_of([[1, 0]]), {1: 0.4, 2: 0.5, 3: 0.7})
    assert found("webrl", tree) == pytest.approx({1: 0.5 * (0.6 - 0.4) + 0.5 * (0.5 - 0.4), 2: 0.5, 3: -0.7})
    assert found("webrl", tree, mix=1.0) == pytest.approx({1: 0.2, 2: 0.5, 3: -0.7})
    assert found("webrl", tree, mix=0.0) == pytest.approx({1: 0.1, 2: 0.5, 3: -0.7})


def test_the_released_advantage_adds_the_outcome_twice_and_cuts_at_one():
    tree = valued(tree_of([[1, 0]]), {1: 0.4, 2: 0.5, 3: 0.7})
    # the plan: .2 - .05 + .5 + .5; a success 0 - .05 + 2; a failure -.05
    assert found("webrl_released", tree) == pytest.approx({1: 1.0, 2: 1.0, 3: -0.05})
    lost = valued(tree_of([[0]]), {1: 0.2, 2: 0.3})
    # of a failure, only a turn counts after which more was expected than before
    assert found("webrl_released", lost) == pytest.approx({1: 0.05, 2: -0.05})
    assert found("webrl_released", lost, margin=0.2) == pytest.approx({1: -0.1, 2: -0.2})


def test_turns_of_a_branch_follow_one_another():
    """Two turns of acting on one branch, V .2 and .6, then success."""
    tree = tree_of([[1]])
    first = replace(tree.nodes[2], reward_parts={"format": 1.0}, branch=2)
    second = replace(tree.nodes[2], id=3, parent=2, branch=2)
    tree = replace(tree, nodes=(*tree.nodes[:2], first, second))
    tree = valued(tree, {1: 0.1, 2: 0.2, 3: 0.6})
    assert found("webrl", tree)[2] == pytest.approx(0.5 * (0.6 - 0.2) + 0.5 * (1 - 0.2))
    assert found("webrl", tree)[3] == pytest.approx(0.4)
    assert found("webrl_released", tree)[2] == 1.0


def test_what_is_unknown_has_no_credit():
    failed = tree_of([[1, 1]])
    failed = replace(
        failed,
        nodes=tuple(replace(n, status="failed", reward_parts={}) if n.id == 2 else n for n in failed.nodes),
    )
    tree = valued(failed, {1: 0.4, 2: 0.9, 3: 0.7})
    assert found("webrl", tree) == pytest.approx({1: 0.5 * 0.3 + 0.5 * 0.6, 3: 0.3})
