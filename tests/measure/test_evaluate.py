"""The three factored numbers, with a script that is good at one side and bad at the other."""

from __future__ import annotations

import pytest
from conftest import HAND, REFUSED, RIGHT, WRONG, Listening, desk_choices

from forethought.core.metrics import wilson
from forethought.measure.evaluate import evaluate, held_out, play, score, success
from forethought.recipe.roles import once
from forethought.recipe.schema import EvalSpec, TreeSpec, WorkflowSpec
from forethought.recipe.speaking import SPEAKING
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
    # sides, levels and all of them, four numbers each; and what it cost
    assert len(found) == 3 * 3 * 4 + 5


def test_kinds_of_task_are_measured_apart_and_files_are_not(monkeypatch):
    monkeypatch.setattr(Desk, "origin", lambda self, task: f"deep-{task.level}", raising=False)
    rollouts = rollouts_of(RIGHT, WRONG)
    assert "eval/plan@deep-1" not in evaluate(rollouts, tasks_of(rollouts), ONE).metrics
    monkeypatch.setattr(Desk, "origins", "task")
    found = evaluate(rollouts, tasks_of(rollouts), ONE)
    for key in ("eval/plan", "eval_low/act", "eval_n/e2e"):
        assert found.metrics[f"{key}@deep-2"] == found.metrics[f"{key}@2"]
    assert found.scores["eval/plan@deep-1"] == [1.0] * 5


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


# workflows that speak a role again --------------------------------------------------------------------------


def react_on_desk(think, act, **options) -> Rollouts:
    """`think` and `act`: functions of the text before the turn."""
    desk = Desk((1, 2, 3), widgets=4, stepwise=True, **options)
    roles = SPEAKING["react"].roles
    rollouts = Rollouts(
        Listening(desk.words(roles), {role: desk.stop(role) for role in roles}),
        desk,
        WorkflowSpec(name="react"),
    )
    rollouts.engine.script = lambda policy, text, i, seed: (think if text.endswith("<think>") else act)(text)
    return rollouts


def follow(text: str) -> str:
    """Clicks what the last thought names."""
    words = text.split()
    at = len(words) - 1 - words[::-1].index("<think>")
    name, *value = words[at + 1 : words.index("</think>", at)]
    i = HAND.context.split().index(name)
    x = next(j for j in range(i + 1, i + 5) if HAND.context.split()[j].startswith("x"))
    return " ".join([name, *HAND.context.split()[x : x + 2], *value, "</act>"])


def test_in_react_the_oracle_thinks_before_every_act():
    """Its own thoughts always name the first widget, which leads nowhere; under the oracle's it succeeds."""
    rollouts = react_on_desk(lambda text: "e </think>", follow)
    found = evaluate(rollouts, [HAND], {"think": "base", "act": "base"})
    assert found.scores["eval/act"] == [1.0] and found.scores["eval/e2e"] == [0.0]
    assert "eval/think" not in found.scores  # nothing judges a thought
    thoughts = [n.text for n in play(rollouts, [HAND], {"think": "base", "act": "base"})[("think",)][0].nodes
                if n.role == "think"]  # fmt: skip
    assert thoughts == ["e </think>", "s </think>", "c v3 </think>"]


def test_the_oracle_says_the_same_again_after_a_step_that_failed():
    """The second click misses once: the thought for it is repeated, and the episode reaches the goal."""
    missed = []

    def act(text):
        right = follow(text)
        if right.startswith("s ") and not missed:
            missed.append(right)
            return "s x0 y0 </act>"
        return right

    rollouts = react_on_desk(lambda text: "e </think>", act, retry=True)
    tree = once(("think", "act"), temperature=0.0, oracle=("think",))
    [tree] = rollouts.grow([HAND], tree, {"think": "base", "act": "base"}, 1)
    said = [n.text for n in tree.nodes if n.role == "think"]
    assert said == ["e </think>", "s </think>", "s </think>", "c v3 </think>"]
    assert success(tree) == 1.0


def test_who_never_gets_there_under_the_oracles_thoughts_has_not_succeeded():
    """More turns than the oracle takes: its last thought stands, and nothing has failed."""
    rollouts = react_on_desk(lambda text: "e </think>", lambda text: "e x8 y9 </act>")
    found = evaluate(rollouts, [HAND], {"think": "base", "act": "base"})
    assert found.scores["eval/act"] == [0.0] and "eval_failed/act" not in found.metrics


def test_executions_below_one_thought_of_the_oracle_go_on_with_its_next():
    rollouts = react_on_desk(lambda text: "e </think>", follow)
    tree = TreeSpec(counts={"think": 1, "act": 2}, oracle=("think",))
    [tree] = rollouts.grow([HAND], tree, {"think": "base", "act": "base"}, 1)
    assert [n.reward_parts["outcome"] for n in tree.leaves()] == [1.0, 1.0]


def test_a_plan_that_is_written_anew_under_the_oracle_is_the_oracles():
    """Acting under the oracle's plan: the first clicks miss, and the policy's own plan is never asked for."""
    desk = Desk((1, 2, 3), widgets=4, stepwise=True, retry=True)
    clicks = iter(["e x0 y0 </act>", "e x8 y9 </act>", "s x5 y7 </act>", "c x3 y4 v3 </act>"])
    own = []

    def say(policy, text, i, seed):
        if text.endswith("<plan>"):
            own.append(text)
            return "GOAL </plan>"
        return next(clicks)

    rollouts = Rollouts(
        Listening(desk.vocabulary(), desk.stops, script=say),
        desk,
        WorkflowSpec(name="plan_then_act", options={"replan_after": 1}),
    )
    found = evaluate(rollouts, [HAND], ONE)
    assert found.scores["eval/act"] == [1.0] and len(own) == 1
