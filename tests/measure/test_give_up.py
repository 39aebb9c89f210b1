"""An evaluation in which every plan is cut off ends early, and says so; one that goes on is as if played at
once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import Listening, desk_choices

from forethought.core.types import Node, Tree
from forethought.measure.evaluate import evaluate, failures, held_out, parts_of
from forethought.recipe.schema import EvalSpec
from forethought.runs.cold import ENOUGH, ColdStart, unplayed
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

ONE = {"plan": "base", "act": "base"}


def rollouts_of(ends: int = 0) -> Rollouts:
    """Plans that never end, but for every `ends`-th task's."""
    desk, seen = Desk((1, 2), widgets=4), []

    def say(policy, text, i, seed):
        if not text.endswith("<plan>"):
            return desk_choices(text, "act")[0]
        seen.append(text)
        return desk_choices(text, "plan")[0] if ends and len(seen) % ends == 0 else "a " * 20

    return Rollouts(Listening(desk.vocabulary(), desk.stops, script=say), desk)


def tasks_of(rollouts: Rollouts, n: int = 20) -> list:
    return held_out(rollouts.taskset, EvalSpec(tasks=n), (1, 2))


def test_the_first_tasks_are_spread_over_all():
    assert parts_of(8, 4) == ([0, 2, 4, 6], [1, 3, 5, 7])
    assert parts_of(5, 2) == ([0, 2], [1, 3, 4])
    for first in (0, 5, 6):
        assert parts_of(5, first) == ([0, 1, 2, 3, 4], [])


def test_where_all_plans_are_cut_off_the_rest_is_not_played():
    rollouts = rollouts_of()
    found = evaluate(rollouts, tasks_of(rollouts), ONE, give_up=8)
    assert sum(request.n for request in rollouts.engine.asked if request.stops == ("</plan>",)) == 8
    assert found.metrics["eval_unplayed"] == 32
    assert (found.metrics["eval/plan"], found.metrics["eval_n/plan"]) == (0.0, 8)
    assert (found.metrics["eval_n/act"], found.metrics["eval_n/plan@1"]) == (8, 4)
    assert {len(scores) for name, scores in found.scores.items() if "@" not in name} == {40}
    assert {len(scores) for name, scores in found.scores.items() if "@" in name} == {20}
    assert sum(score is not None for score in found.scores["eval/plan"]) == 8
    assert "eval_failed/plan" not in found.metrics
    assert failures(found.scores) == (32, 40)  # what is unplayed is taken out where a run counts them


@pytest.mark.parametrize("give_up", [0, 8, 40, 100])
def test_one_plan_that_ends_is_enough_to_play_all(give_up):
    at_once, rollouts = rollouts_of(ends=3), rollouts_of(ends=3)
    tasks = tasks_of(rollouts)
    whole = evaluate(at_once, tasks, ONE)
    found = evaluate(rollouts, tasks, ONE, give_up=give_up)
    assert "eval_unplayed" not in found.metrics
    assert found.metrics["eval_n/plan"] == 40 == whole.metrics["eval_n/plan"]
    assert len(found.scores["eval/plan"]) == len(tasks)


def test_an_evaluation_in_two_parts_has_the_trees_of_one():
    desk = Desk((1, 2), widgets=4)
    both = [Rollouts(Listening(desk.vocabulary(), desk.stops, choices=desk_choices), desk) for _ in range(2)]
    tasks = tasks_of(both[0])
    assert evaluate(both[0], tasks, ONE, give_up=7) == evaluate(both[1], tasks, ONE)


def test_what_is_said_of_it():
    said = unplayed("plan", 512, 40, 8)
    assert said.startswith("each of the first 32 tasks had its plan cut off after 512 tokens")
    assert "the other 8 were not played" in said and "imitation before this one" in said
    said = unplayed("plan", 512, 40, 8, shown=True)
    assert said.endswith("The demonstrations of this stage show the model the form")


def test_a_hundred_plans_without_an_end_are_told_as_such():
    [task] = tasks_of(rollouts_of(), 1)[:1]
    nodes = [Node(id=0, parent=None, role=None, text="", token_ids=(1,))]
    nodes += [
        Node(
            id=i,
            parent=0,
            role="plan",
            text="a a a",
            token_ids=(1, 1, 1),
            policy="base",
            status="truncated",
            reward_parts={"format": 0.0},
        )
        for i in range(1, ENOUGH + 1)
    ]
    few = [replace(node, reward_parts={"format": 1.0}, status="finished") for node in nodes[1:6]]
    said = ColdStart().hear([Tree(task=task, nodes=(nodes[0], *few, *nodes[6:]))], ("plan", "act"))
    assert said.startswith(f"{ENOUGH - 5} of the first {ENOUGH} turns of plan were cut off at their budget")
    said = ColdStart().hear([Tree(task=task, nodes=tuple(nodes))], ("plan", "act"))
    assert said.startswith(f"each of the first {ENOUGH} turns of plan was cut off at its budget")
    assert "worked examples in the prompt" in said
