"""The three factored numbers, with a script that is good at one side and bad at the other."""

from __future__ import annotations

import pytest
from conftest import REFUSED, RIGHT, WRONG, Listening, desk_choices

from forethought.core.metrics import wilson
from forethought.measure.evaluate import evaluate, held_out, score, success
from forethought.recipe.schema import EvalSpec
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

ONE = {"plan": "base", "act": "base"}


def rollouts_of(plan: int | None = None, act: int | None = None, **options) -> Rollouts:
    """`plan` and `act`: which of the three continuations is always said."""
    desk = Desk((1, 2), widgets=4, **options)

    def say(policy, text, i, seed):
        role = "plan" if text.endswith("<plan>") else "act"
        return desk_choices(text, role)[plan if role == "plan" else act]

    return Rollouts(
        Listening(
            desk.vocabulary(), desk.stops, choices=desk_choices, script=say if plan is not None else None
        ),
        desk,
    )


def tasks_of(rollouts: Rollouts, n: int = 5) -> list:
    return held_out(rollouts.taskset, EvalSpec(tasks=n), (1, 2))


@pytest.mark.parametrize(
    ("plan", "act", "scores"),
    [
        (RIGHT, RIGHT, (1.0, 1.0, 1.0)),
        (RIGHT, WRONG, (1.0, 0.0, 0.0)),
        # a wrong plan, executed faithfully; under the oracle's plan the same acting succeeds
        (WRONG, RIGHT, (0.0, 1.0, 0.0)),
        (REFUSED, RIGHT, (0.0, 1.0, 0.0)),  # a refused plan is not executed and counts against e2e
        (RIGHT, REFUSED, (1.0, 0.0, 0.0)),  # acting that does not end
    ],
)
def test_planning_acting_and_both_are_told_apart(plan, act, scores):
    rollouts = rollouts_of(plan, act)
    found = evaluate(rollouts, tasks_of(rollouts), ONE)
    assert tuple(found.metrics[f"eval/{side}"] for side in ("plan", "act", "e2e")) == scores
    for side, value in zip(("plan", "act", "e2e"), scores, strict=True):
        assert found.metrics[f"eval/{side}@1"] == found.metrics[f"eval/{side}@2"] == value
        assert found.scores[f"eval/{side}"] == [value] * 10 and found.scores[f"eval/{side}@2"] == [value] * 5


def test_a_share_comes_with_its_interval_and_count_by_level():
    """Right at level 1, wrong at level 2."""
    desk = Desk((1, 2), widgets=4)

    def say(policy, text, i, seed):
        role = "plan" if text.endswith("<plan>") else "act"
        right = desk_choices(text.partition("<plan>")[0] + "<plan>", "plan")[RIGHT]
        return desk_choices(text, role)[RIGHT if len(right.split()) == 2 or role == "act" else WRONG]

    rollouts = Rollouts(Listening(desk.vocabulary(), desk.stops, script=say), desk)
    found = evaluate(rollouts, tasks_of(rollouts, 8), ONE).metrics
    assert (
        found["eval/plan"],
        found["eval/plan@1"],
        found["eval/plan@2"],
        found["eval/act"],
        found["eval/e2e"],
    ) == (0.5, 1.0, 0.0, 1.0, 0.5)
    for key, wins, n in (("plan", 8, 16), ("plan@1", 8, 8), ("plan@2", 0, 8)):
        assert (found[f"eval_low/{key}"], found[f"eval_high/{key}"]) == wilson(wins, n) and found[
            f"eval_n/{key}"
        ] == n
    assert len(found) == 3 * 3 * 4  # sides, levels and all of them, four numbers each


def test_each_side_speaks_through_its_own_policy_and_greedily():
    rollouts = rollouts_of()
    engine = rollouts.engine
    engine.fork("base", "plan")
    engine.fork("base", "act")
    engine.served["plan"]["plan"] = [0.0, 0.1, 0.0]  # barely the best: greedy takes it every time
    engine.served["act"]["act"] = [0.0, 0.0, 0.1]
    found = evaluate(rollouts, tasks_of(rollouts), {"plan": "plan", "act": "act"})
    assert (found.metrics["eval/plan"], found.metrics["eval/act"]) == (1.0, 0.0)
    assert {r.temperature for r in engine.asked} == {0.0} and {r.n for r in engine.asked} == {1}
    assert {(r.policy, r.stops[0]) for r in engine.asked} == {("plan", "</plan>"), ("act", "</act>")}


def test_held_out_tasks_are_the_same_every_time():
    desk = Desk((1, 2), widgets=4)
    once, again = (held_out(desk, EvalSpec(tasks=20), (1, 2)) for _ in range(2))
    assert once == again and [task.level for task in once] == [1] * 20 + [2] * 20
    assert held_out(desk, EvalSpec(tasks=20, seed=100), (1, 2)) != once
    # a level's tasks do not depend on the other levels
    assert held_out(desk, EvalSpec(tasks=20), (2,)) == once[20:]
    assert held_out(desk, EvalSpec(tasks=5), (1,)) == once[:5]


def test_held_out_tasks_come_from_the_split_that_is_never_trained_on(monkeypatch):
    family, splits = Desk.family, []
    monkeypatch.setattr(
        Desk,
        "family",
        lambda self, rng, levels, split: splits.append(split) or family(self, rng, levels, split),
    )
    held_out(Desk((1, 2), widgets=4), EvalSpec(tasks=3), (1, 2))
    assert splits == ["eval"] * 6


@pytest.mark.parametrize(("noise", "value"), [(False, 1.0), (True, 0.0)])
def test_the_domains_noise_is_off_unless_asked_for(noise, value):
    rollouts = rollouts_of(RIGHT, RIGHT, slip=1.0)
    found = evaluate(rollouts, tasks_of(rollouts), ONE, noise=noise).metrics
    assert (found["eval/plan"], found["eval/act"], found["eval/e2e"]) == (1.0, value, value)


def test_two_evaluations_of_one_policy_are_equal():
    rollouts = rollouts_of()
    assert evaluate(rollouts, tasks_of(rollouts), ONE, seed=3) == evaluate(
        rollouts, tasks_of(rollouts), ONE, seed=3
    )


def test_scores_are_joined_task_by_task():
    rollouts = rollouts_of(RIGHT, RIGHT)
    tasks = tasks_of(rollouts)
    from forethought.measure.evaluate import play

    played = play(rollouts, tasks, ONE)
    assert played.keys() == {(), ("plan",)}
    with pytest.raises(ValueError, match="9 trees for eval/act, 10 tasks"):
        score(("plan", "act"), played | {("plan",): played["plan",][1:]})
    assert [success(tree) for tree in played[()]] == [1.0] * 10
