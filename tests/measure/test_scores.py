"""Partial credit: `Outcome.score` beside success, in rewards and in evaluations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import tree_of

from forethought.core.scores import success_of
from forethought.core.types import Outcome, Tree
from forethought.envs.values import WrongType, outcome
from forethought.learn.rewards import reward
from forethought.measure.evaluate import mean_scores, score, success
from forethought.workflows.acting import pay

ROLES = ("plan", "act")


class Paid:
    status = "finished"

    def reward(self, **parts):
        self.parts = parts


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        (Outcome(done=True, success=True), {"outcome": 1.0}),
        (Outcome(done=True, success=False, score=0.25), {"outcome": 0.25, "success": 0.0}),
        (Outcome(done=True, success=True, score=3), {"outcome": 3.0, "success": 1.0}),
        (Outcome(done=True, success=None, score=0.5), {"outcome": 0.5}),
        (Outcome(done=True, success=None), {}),
    ],
)
def test_what_a_turn_is_paid(said, parts):
    turn = Paid()
    pay(turn, outcome(said))
    assert turn.parts == {"format": 1.0} | parts


@pytest.mark.parametrize("score", ["1", float("nan"), float("inf"), True, [1.0]])
def test_a_score_that_is_no_finite_number_is_refused(score):
    with pytest.raises(WrongType, match=r"Outcome\.score"):
        outcome(Outcome(done=True, score=score))
    with pytest.raises(WrongType, match=r"Outcome\.success"):
        outcome(Outcome(done=True, success=[score]))


def graded(*scores: float) -> Tree:
    """One plan with acts of these scores; from 0.9 on they are successes."""
    tree = tree_of([scores])
    nodes = [
        replace(n, reward_parts={**n.reward_parts, "success": float(n.reward_parts["outcome"] >= 0.9)})
        if n.role == "act"
        else n
        for n in tree.nodes
    ]
    return replace(tree, nodes=tuple(nodes))


def test_evaluations_count_successes_and_tell_the_mean_score():
    trees = [graded(0.5), graded(0.9), graded(0.2)]
    assert [success(tree) for tree in trees] == [0.0, 1.0, 0.0]
    assert score(ROLES, {(): trees})["eval/e2e"] == [0.0, 1.0, 0.0]
    assert mean_scores(ROLES, {(): trees}) == {"eval_score/e2e": pytest.approx(1.6 / 3)}
    assert mean_scores(ROLES, {(): [tree_of([[1]])]}) == {}  # success says it all
    assert score(ROLES, {(): trees}, judged=False).keys() == {"eval/plan", "eval/plan@3"}


def test_the_reward_is_the_score_and_a_plan_has_the_mean_of_its_acts():
    found = reward(graded(0.5, 0.9), {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}})
    assert [n.reward for n in found.nodes[1:]] == [pytest.approx(0.7), 0.5, 0.9]
    assert success_of({"outcome": 0.5}) == 0.5 and success_of({"format": 1.0}) is None
