"""The workflows that ship, on the tasksets that ship: what they say, what imitation shows of them, and that
both are the same tokens."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from conftest import HAND, PLAN, Listening

from forethought.core.errors import RecipeError
from forethought.core.types import Outcome
from forethought.envs.base import Environment
from forethought.recipe.schema import TaskSpec, TreeSpec, WorkflowSpec
from forethought.recipe.speaking import SPEAKING
from forethought.tasks.desk.taskset import Desk
from forethought.tasks.families import build
from forethought.workflows.rollout import Rollouts
from forethought.workflows.table import WORKFLOWS

TASKS = {
    "desk": TaskSpec(name="desk", levels=(1, 3)),
    "desk by steps": TaskSpec(name="desk", levels=(1, 3), options={"stepwise": True}),
    "blocksworld": TaskSpec(name="blocksworld", levels=(2, 4)),
    "blocksworld by steps": TaskSpec(name="blocksworld", levels=(2, 4), options={"stepwise": True}),
}


def rollouts_on(taskset, name: str, script=None, **options) -> Rollouts:
    """Without a script, the model says what imitation shows."""
    roles = SPEAKING[name].roles
    engine = Listening(taskset.words(roles), {role: taskset.stop(role) for role in roles})
    rollouts = Rollouts(engine, taskset, WorkflowSpec(name=name, options=options))
    engine.script = script or (lambda policy, text, i, seed: shown_next(rollouts, text))
    return rollouts


def shown_next(rollouts: Rollouts, text: str) -> str:
    """What the demonstration of the task says after this text."""
    [task] = [t for t in rollouts.tasks if text.startswith(rollouts.words.root_text(t))]
    said = rollouts.words.root_text(task)
    for turn, _ in rollouts.turns(task):
        if turn.role is not None and said == text:
            return turn.text
        said = f"{said} {turn.text}"
    raise AssertionError(f"nothing is shown after {text!r}")


def policies(name: str) -> dict[str, str]:
    return dict.fromkeys(SPEAKING[name].roles, "base")


@pytest.mark.parametrize("name", ["plan_then_act", "act_only", "react", "plan_steps"])
@pytest.mark.parametrize("spec", TASKS.values(), ids=TASKS)
def test_who_says_what_imitation_shows_reaches_the_goal_with_the_same_tokens(name, spec):
    taskset = build(spec)
    rollouts = rollouts_on(taskset, name)
    rollouts.tasks = taskset.family(random.Random(3), list(taskset.levels), "train")
    trees = rollouts.grow(
        rollouts.tasks, TreeSpec(counts=dict.fromkeys(SPEAKING[name].roles, 1)), policies(name), 1
    )
    for task, tree in zip(rollouts.tasks, trees, strict=True):
        [last] = tree.leaves()
        assert last.reward_parts["outcome"] == 1.0, last
        path, shown = tree.path(last), rollouts.turns(task)
        assert [(n.role, n.text, n.token_ids) for n in path[1:]] == [
            (turn.role, turn.text, ids) for turn, ids in shown
        ]
        assert {n.role for n in path} - {None} == set(SPEAKING[name].roles)
        assert rollouts.words.root_ids(task) == path[0].token_ids


def test_what_each_workflow_shows_of_a_task():
    desk = Desk((1, 2, 3), widgets=4, stepwise=True)
    shown = {
        name: [(turn.role, turn.text) for turn in WORKFLOWS[name].demonstration(desk, HAND)]
        for name in ("act_only", "plan_then_act", "react", "plan_steps")
    }
    acts = ["e x8 y9 </act>", "s x5 y7 </act>", "c x3 y4 v3 </act>"]
    seen = ["<obs> s x5 y7 </obs>", "<obs> c x3 y4 </obs>"]
    assert shown["act_only"] == [
        ("act", acts[0]), (None, seen[0]), ("act", acts[1]), (None, seen[1]), ("act", acts[2]),
    ]  # fmt: skip
    assert shown["plan_then_act"] == [("plan", PLAN), *shown["act_only"]]
    assert shown["react"] == [
        ("think", "e </think>"), ("act", acts[0]), (None, seen[0]),
        ("think", "s </think>"), ("act", acts[1]), (None, seen[1]),
        ("think", "c v3 </think>"), ("act", acts[2]),
    ]  # fmt: skip
    assert shown["plan_steps"] == [
        ("plan", PLAN), (None, "e"), ("act", acts[0]), (None, seen[0]),
        (None, "s"), ("act", acts[1]), (None, seen[1]), (None, "c v3"), ("act", acts[2]),
    ]  # fmt: skip


def test_later_turns_lie_on_the_branch_that_they_continue():
    desk = Desk((1, 2, 3), widgets=4, stepwise=True)
    rollouts = rollouts_on(desk, "react")
    rollouts.tasks = [HAND]
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"think": 2, "act": 1}), policies("react"), 1)
    branches = tree.branches()
    assert [(b.id, b.above, b.role, [n.role for n in b.turns]) for b in branches.values()] == [
        (0, None, None, []),
        (1, 0, "think", ["think", "act"] * 3),
        (2, 0, "think", ["think", "act"] * 3),
    ]


def test_a_plan_is_written_anew_after_steps_that_failed():
    """The second click misses twice; the plan after that is another, and the episode reaches the goal."""
    said = iter(["c e </plan>", "c s e </plan>"])
    acts = iter(["e x8 y9 </act>", "c x3 y4 </act>", "c x3 y4 </act>", "s x5 y7 </act>", "c x3 y4 v3 </act>"])
    desk = Desk((1, 2, 3), widgets=4, stepwise=True, retry=True)
    rollouts = rollouts_on(
        desk,
        "plan_then_act",
        lambda policy, text, i, seed: next(said) if text.endswith("<plan>") else next(acts),
        replan_after=2,
    )
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}), policies("plan_then_act"), 1)
    assert [n.role for n in tree.nodes] == [
        None, "plan", "act", None, "act", None, "act", None, "plan", "act", None, "act",
    ]  # fmt: skip
    assert tree.nodes[7].text == "<obs> </obs> <plan>"  # what opens the turn is read, not said
    assert tree.nodes[8].text == PLAN and tree.nodes[8].reward_parts == {"format": 1.0}
    assert tree.nodes[-1].reward_parts == {"format": 1.0, "outcome": 1.0}
    assert {n.branch for n in tree.nodes[2:]} == {2}


def test_a_plan_is_written_anew_where_the_environment_asks_for_one_and_no_step_has_failed():
    class Pages(Environment):
        """Two pages, each with a plan of its own."""

        def reset(self, task, seed):
            self.page = 0

        def step(self, action):
            self.page += 1
            over = self.page == 2
            return Outcome(
                done=over, success=over, observation="<obs> </obs>", reason="more", replan=not over
            )

    desk = Desk((1, 2, 3), widgets=4, stepwise=True, retry=True)
    desk.environment = lambda task, noise: Pages()
    script = lambda policy, text, i, seed: PLAN if text.endswith("<plan>") else "c x3 y4 </act>"
    for after, roles in ((3, ["plan", "act", "plan", "act"]), (0, ["plan", "act", "act"])):
        rollouts = rollouts_on(desk, "plan_then_act", script, replan_after=after)
        [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}), policies("plan_then_act"), 1)
        assert [n.role for n in tree.nodes if n.role] == roles
        assert tree.nodes[2].reason == "more" and tree.nodes[-1].reward_parts["outcome"] == 1.0


def test_a_new_plan_that_is_refused_ends_the_branch():
    desk = Desk((1, 2, 3), widgets=4, stepwise=True, retry=True)
    plans = iter([PLAN, "GOAL </plan>"])
    script = lambda policy, text, i, seed: next(plans) if text.endswith("<plan>") else "c x3 y4 </act>"
    rollouts = rollouts_on(desk, "plan_then_act", script, replan_after=1)
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}), policies("plan_then_act"), 1)
    assert (tree.nodes[-1].role, tree.nodes[-1].status) == ("plan", "refused")
    assert len(tree.nodes) == 5


def test_a_plan_that_ends_before_the_task_does_not_succeed():
    desk = Desk((1, 2, 3), widgets=4, stepwise=True)
    script = lambda policy, text, i, seed: "c e </plan>" if text.endswith("<plan>") else "e x8 y9 </act>"
    rollouts = rollouts_on(desk, "plan_steps", script)
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}), policies("plan_steps"), 1)
    last = tree.nodes[-1] if tree.nodes[-1].role else tree.nodes[-2]
    assert last.reward_parts["outcome"] == 0.0 and "end" in last.reason


@pytest.mark.parametrize("name", ["act_only", "plan_then_act", "react", "plan_steps"])
def test_an_environment_that_breaks_when_its_turns_are_over_fails_the_branch(name):
    """`close` is called by the library at the limit of turns, or where the plan has no more steps."""

    class Endless(Environment):
        def step(self, action):
            return Outcome(done=False, observation="<obs> </obs>", parts={"seen": 1.0})

        def close(self):
            raise ValueError("cannot end")

    desk = Desk((1, 2, 3), widgets=4, stepwise=True)
    desk.environment = lambda task, noise: Endless()
    say = {"<think>": "e </think>", "<plan>": PLAN}
    script = lambda policy, text, i, seed: say.get(text.split()[-1], "e x8 y9 </act>")
    rollouts = rollouts_on(desk, name, script)
    tree = TreeSpec(counts=dict.fromkeys(SPEAKING[name].roles, 1))
    [tree] = rollouts.grow([HAND], tree, policies(name), 1)
    last = tree.nodes[-1]
    assert (last.status, last.reason) == ("failed", "environment: ValueError: cannot end")
    assert last.reward_parts == {} and rollouts.guard.total == 1
    assert "outcome" not in {part for n in tree.nodes for part in n.reward_parts}


def test_trying_again_needs_steps():
    with pytest.raises(RecipeError, match="task.retry: only an actor that acts step by step can try again"):
        Desk((1,), retry=True)


def test_clicks_that_slip_are_shown_where_they_can_be_repeated():
    """The first and the last click of three; a thought is thought again with its act."""
    desk = Desk((1, 2, 3), widgets=4, stepwise=True, retry=True, slip=0.5)
    task = replace(HAND, state=replace(HAND.state, slips=frozenset({0, 2})))
    shown = [(turn.role, turn.text) for turn in WORKFLOWS["react"].demonstration(desk, task)]
    assert shown == [
        ("think", "e </think>"), ("act", "e x8 y9 </act>"), (None, "<obs> </obs>"),
        ("think", "e </think>"), ("act", "e x8 y9 </act>"), (None, "<obs> s x5 y7 </obs>"),
        ("think", "s </think>"), ("act", "s x5 y7 </act>"), (None, "<obs> c x3 y4 </obs>"),
        ("think", "c v3 </think>"), ("act", "c x3 y4 v3 </act>"), (None, "<obs> </obs>"),
        ("think", "c v3 </think>"), ("act", "c x3 y4 v3 </act>"),
    ]  # fmt: skip
    rng = random.Random(0)
    slips = [task.state.slips for task in desk.demonstrable(rng, [3] * 200)]
    assert 0.4 < sum(map(len, slips)) / 600 < 0.6
    # nobody else's tasks slip by themselves: not those of evaluations, nor where nothing can be repeated
    assert not any(task.state.slips for task in desk.family(rng, [3] * 20, "train"))
    calm = Desk((1, 2, 3), widgets=4, stepwise=True, slip=0.5)
    assert not any(task.state.slips for task in calm.demonstrable(rng, [3] * 20))
