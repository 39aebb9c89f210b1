"""The driver: lockstep and free give the same trees, and a workflow that misbehaves is counted, with its
reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from time import sleep

import pytest
from conftest import ACT, HAND, PLAN, Listening, desk_choices

from forethought.core import watchdog
from forethought.core.errors import CodeFault
from forethought.core.seeds import seed_of
from forethought.core.types import Outcome
from forethought.envs.base import Environment
from forethought.envs.guard import Fault
from forethought.learn.batches import tree_segments
from forethought.recipe.schema import LimitSpec, TreeSpec, WorkflowSpec
from forethought.recipe.speaking import SPEAKING, workflow
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts
from forethought.workflows.table import WORKFLOWS, _own, register
from forethought.workflows.trajectory import together

SAME = {"plan": "base", "act": "base"}
TWO = TreeSpec(counts={"plan": 2, "act": 2})


class OwnBase(BaseException):
    """As a panic of a library in Rust is."""


@pytest.fixture
def own() -> Iterator:
    """Registers a workflow of the test's own, which is gone afterwards."""
    yield lambda run, roles=("plan", "act"): register("own", run, roles)
    for table in (WORKFLOWS, SPEAKING):
        table.pop("own", None)


def right(policy, text, i, seed):
    return PLAN if text.endswith("<plan>") else ACT


def rollouts_of(name="plan_then_act", *, say=None, free=False, engine=Listening, stepwise=False, **limits):
    desk = Desk((1, 2, 3), widgets=4, stepwise=stepwise)
    return Rollouts(
        engine(desk.vocabulary(), desk.stops, script=say, choices=desk_choices),
        desk,
        WorkflowSpec(name=name, **limits),
        free=free,
    )


def grown(rollouts, tree=TWO, tasks=(HAND,)):
    return rollouts.grow(list(tasks), tree, SAME, 1)


def ends(tree) -> list[tuple]:
    return [(n.role, n.status, n.reason) for n in tree.leaves()]


# lockstep and free ------------------------------------------------------------------------------------------


def test_both_modes_give_the_same_trees():
    lockstep, free = (grown(rollouts_of(free=free), tasks=[HAND] * 3) for free in (False, True))
    assert lockstep == free and len({n.text for n in lockstep[0].nodes}) > 3


def test_in_lockstep_one_call_of_the_sampler_answers_all_that_wait():
    for free, waves in ((False, 2), (True, 3 * (1 + 2))):
        rollouts = rollouts_of(free=free, say=right)
        grown(rollouts, tasks=[HAND] * 3)
        assert rollouts.engine.waves == waves


def test_answers_that_come_in_another_order_change_nothing():
    class Late(Listening):
        """The later a request comes, the earlier it is answered."""

        wait = 0.02

        async def sample(self, requests):
            self.wait /= 2
            await asyncio.sleep(self.wait)
            return super().sample(requests)

    assert grown(rollouts_of(free=True, engine=Late)) == grown(rollouts_of())


def test_seeds_are_by_path():
    """Role, number of each branch from the prompt down, and how often the branch has asked before."""
    click = lambda policy, text, i, seed: PLAN if text.endswith("<plan>") else "e x8 y9 </act>"
    rollouts = rollouts_of(say=click, stepwise=True)
    grown(rollouts, TreeSpec(counts={"plan": 2, "act": 1}))
    tree = seed_of(1, 0)
    assert [r.seed for r in rollouts.engine.asked[:5]] == [
        seed_of(tree, "plan"),
        seed_of(tree, "act", 1, 0),
        seed_of(tree, "act", 2, 0),
        seed_of(tree, "act", 1, 1, 0),
        seed_of(tree, "act", 2, 1, 0),
    ]


@pytest.mark.parametrize("free", [False, True])
def test_an_asynchronous_environment_is_awaited_in_both_modes(free):
    rollouts = rollouts_of(say=right, free=free)
    desk, closed = Desk((1, 2, 3), widgets=4), []

    class Waits(Environment):
        async def reset(self, task, seed):
            self.inner = desk.environment(task, False)
            return self.inner.reset(task, seed)

        async def step(self, action):
            await asyncio.sleep(0.001)
            return self.inner.step(action)

        async def close(self):
            closed.append(self)

    rollouts.taskset.environment = lambda task, noise: Waits()
    [tree] = grown(rollouts)
    assert [n.reward_parts["outcome"] for n in tree.leaves()] == [1.0] * 4 and len(closed) == 4
    rollouts.taskset.close()


def test_a_workflow_may_await_something_of_its_own_in_free_mode_alone(own):
    async def slow(t, task, n):
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        await t.fork("plan", 1)

    own(slow)
    [tree] = grown(rollouts_of("own", say=right, free=True))
    assert ends(tree) == [("plan", "finished", "")]
    [tree] = grown(rollouts_of("own", say=right))
    assert ends(tree) == [
        (
            "plan",
            "failed",
            "workflow: Foreign: awaits what only the free mode has; in a run a workflow awaits its "
            "trajectory (fork, generate, step, begin, finish) and together(...)",
        )
    ]


# workflows that misbehave -----------------------------------------------------------------------------------


async def raises(t, task, n):
    async def go(plan, i):
        if i:
            raise ValueError("boom")
        await plan.fork("act", 1)

    await together(go(plan, i) for i, plan in enumerate(await t.fork("plan", 2)))


async def raises_at_once(t, task, n):
    raise KeyError("w")


async def goes_on(t, task, n):
    [plan] = await t.fork("plan", 1)
    plan.refuse("no")
    await plan.generate("act")


async def swallows(t, task, n):
    [plan] = await t.fork("plan", 1)
    plan.refuse("no")
    while True:
        try:
            await plan.generate("act")
        except BaseException:
            pass


async def never_ends(t, task, n):
    [plan] = await t.fork("plan", 1)
    while True:
        await plan.generate("act")


async def forks_for_ever(t, task, n):
    while True:
        await t.fork("plan", 1)


async def half_a_branch(t, task, n):
    await t.fork("plan", 2.5)


async def fewer_than_none(t, task, n):
    await t.fork("plan", -1)


async def too_many(t, task, n):
    await t.fork("plan", 10**7)


async def observes_a_number(t, task, n):
    [plan] = await t.fork("plan", 1)
    plan.observe(5)


async def says_nothing(t, task, n):
    t.fork("plan", 2).close()  # not awaited


async def begins_for_ever(t, task, n):
    [plan] = await t.fork("plan", 1)
    while True:
        await plan.begin()


async def consults_nothing(t, task, n):
    [plan] = await t.fork("plan", 1)
    await plan.consult(None)


WRONG = "workflow: WorkflowError: "
AGAIN = WRONG + "the environment was to begin 4 times"
NO_TEXT = WRONG + "consult takes text, found None"
HALF = WRONG + "fork of plan needs a number from 0 to 100,000, found 2.5"
NEGATIVE = WRONG + "fork of plan needs a number from 0 to 100,000, found -1"
MANY = WRONG + "fork of plan needs a number from 0 to 100,000, found 10000000"
NUMBER = WRONG + "observe takes text, found 5"
LATE = WRONG + "act was to speak on a branch that had ended (refused)"
SILENT = WRONG + "no role has spoken: is each fork and generate awaited?"
LONG = WRONG + "no end within 3 turns of a path (workflow.max_turns)"


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(
    ("run", "said"),
    [
        (raises, [("act", "finished", ""), ("plan", "failed", "workflow: ValueError: boom")]),
        (raises_at_once, [("plan", "failed", "workflow: KeyError: 'w'")]),
        (goes_on, [("plan", "failed", LATE)]),
        (swallows, [("plan", "failed", LATE)]),
        (never_ends, [("act", "failed", LONG)]),
        (half_a_branch, [("plan", "failed", HALF)]),
        (fewer_than_none, [("plan", "failed", NEGATIVE)]),
        (too_many, [("plan", "failed", MANY)]),
        (observes_a_number, [("plan", "failed", NUMBER)]),
        (says_nothing, [("plan", "failed", SILENT)]),
        (begins_for_ever, [("plan", "failed", AGAIN)]),
        (consults_nothing, [("plan", "failed", NO_TEXT)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_workflow_does_wrong_is_a_failure_at_its_boundary(own, run, said, free):
    own(run)
    rollouts = rollouts_of("own", say=right, free=free, max_turns=3)
    trees = grown(rollouts, tasks=[HAND, HAND])
    found = [sorted((role, status, reason) for role, status, reason in ends(tree)) for tree in trees]
    assert found[0] == found[1]  # one tree does not hinder the other
    if run is raises:  # what had not come to its end is lost with it
        assert [("plan", "failed", "workflow: ValueError: boom")] == [e for e in found[0] if e[0] == "plan"]
    else:
        assert found[0] == said
    assert {fault["boundary"] for fault in rollouts.guard.records()} == {"workflow"}


ESCAPES = (GeneratorExit, StopIteration, StopAsyncIteration, asyncio.CancelledError, SystemExit, OwnBase)


@pytest.mark.parametrize("where", ["at once", "beside another", "in a guard", "after a turn"])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("error", ESCAPES)
def test_whatever_a_workflow_raises_is_a_counted_failure(own, error, free, where):
    async def breaks(t):
        if where == "after a turn":
            await t.fork("plan", 1)
        with t.guard("reward") if where == "in a guard" else nullcontext():
            raise error("x")

    async def run(t, task, n):
        if task.id == "broken":
            await (together(breaks(t), t.fork("plan", 1)) if where == "beside another" else breaks(t))
        else:
            await t.fork("plan", 1)

    own(run)
    rollouts = rollouts_of("own", say=right, free=free)
    good, bad = grown(rollouts, tasks=[HAND, replace(HAND, id="broken")])
    assert ends(good) == [("plan", "finished", "")]
    assert [status for _, status, _ in ends(bad)] == ["failed"]
    assert error.__name__ in ends(bad)[0][2] and rollouts.guard.total == 1


def test_the_users_own_interrupt_ends_a_workflow_and_all_others(own):
    async def run(t, task, n):
        raise KeyboardInterrupt

    own(run)
    for free in (False, True):
        with pytest.raises(KeyboardInterrupt):
            grown(rollouts_of("own", say=right, free=free))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "good"])
def test_a_reward_that_is_no_finite_number_fails_its_branch_alone(own, value):
    async def pays(t, task, n):
        bad, good = await t.fork("plan", 2)
        bad.reward(outcome=value)
        good.reward(outcome=1.0)

    own(pays)
    rollouts = rollouts_of("own", say=right)
    [tree] = grown(rollouts)
    bad, good = tree.leaves()
    said = f"{WRONG}reward outcome must be a finite number, found {value!r}"
    assert (bad.status, bad.reason, bad.reward_parts) == ("failed", said, {})
    assert (good.status, good.reward_parts) == ("finished", {"outcome": 1.0})
    assert [fault["boundary"] for fault in rollouts.guard.records()] == ["workflow"]


@pytest.mark.parametrize("free", [False, True])
def test_forks_without_end_have_a_limit(own, free):
    own(forks_for_ever)
    [tree] = grown(rollouts_of("own", say=right, free=free, max_turns=3))
    assert [(role, status) for role, status, _ in ends(tree)] == [("plan", "finished")] * 3 + [
        ("plan", "failed")
    ]
    assert ends(tree)[-1][2] == LONG


@pytest.mark.parametrize("free", [False, True])
def test_waiting_for_coroutines_has_a_limit(own, free, monkeypatch):
    monkeypatch.setattr("forethought.workflows.drive.GROUPS", 50)

    async def nothing():
        pass

    async def waits_for_ever(t, task, n):
        await t.fork("plan", 1)
        while True:
            await together(nothing())

    own(waits_for_ever)
    first, second = grown(rollouts_of("own", say=right, free=free), tasks=[HAND] * 2)
    assert ends(first) == [("plan", "failed", "workflow: NoEnd: waited 50 times for other coroutines")]
    assert ends(second) == ends(first)


@pytest.mark.parametrize("free", [False, True])
def test_the_limit_holds_below_others_too_and_for_one_that_ignores_it(own, free, monkeypatch):
    monkeypatch.setattr("forethought.workflows.drive.GROUPS", 50)

    async def nothing():
        pass

    async def ignores(plan):
        while True:
            try:
                await together(nothing())
            except Exception:
                plan.note("goes on")

    async def run(t, task, n):
        bad, good = await t.fork("plan", 2)
        try:
            await together(ignores(bad), good.generate("act"))
        except Exception as error:
            good.note(str(error))

    own(run)
    [tree] = grown(rollouts_of("own", say=right, free=free))
    assert ends(tree)[-1] == ("act", "finished", "waited 50 times for other coroutines")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda taskset, task: None, "gave None, not a list of turns"),
        (lambda taskset, task: ["x"], "not a Turn"),
        (lambda taskset, task: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_demonstration_of_ones_own_that_breaks_is_a_fault_of_the_workflow(given, said):
    @workflow(roles=("plan", "act"), demonstration=given)
    async def shows(t, task, n):
        pass

    rollouts = rollouts_of()
    with pytest.raises(Fault, match=said) as broken:
        _own("shows", shows).demonstration(rollouts.taskset, HAND)
    assert broken.value.boundary == "workflow"


@pytest.mark.parametrize("what", ["demonstration", "oracle"])
def test_a_demonstration_that_is_no_function_is_refused_where_it_is_declared(what):
    with pytest.raises(ValueError, match=f"{what} is a function, found 3"):
        workflow(roles=("plan", "act"), **{what: 3})(begins_for_ever)


def test_sampled_tokens_have_a_limit(own):
    own(never_ends)
    [tree] = grown(rollouts_of("own", say=right, max_tokens=20))
    said = [n for n in tree.nodes if n.role]
    assert sum(len(n.token_ids) for n in said) <= 20 and said[-1].status == "failed"


def test_a_role_that_the_run_lacks_is_the_users_mistake(own):
    async def judges(t, task, n):
        try:
            await t.fork("judge", 1)
        except Exception:
            await t.fork("plan", 1)

    own(judges)
    for free in (False, True):
        with pytest.raises(
            CodeFault,
            match=r"own speaks a role that this run lacks: unknown role 'judge'.*test_drive\.py:\d+\)",
        ):
            grown(rollouts_of("own", say=right, free=free))


def test_what_breaks_inside_a_guard_fails_the_turn_and_nothing_else(own):
    async def guards(t, task, n):
        for i, plan in enumerate(await t.fork("plan", 2)):
            plan.reward(format=1.0)
            with plan.guard("reward"):
                plan.reward(worth=1 / i)

    own(guards)
    [tree] = grown(rollouts_of("own", say=right))
    assert [(n.status, n.reason, n.reward_parts) for n in tree.nodes[1:]] == [
        ("failed", "reward: ZeroDivisionError: division by zero", {}),
        ("finished", "", {"format": 1.0, "worth": 1.0}),
    ]


# what the environment shows first ---------------------------------------------------------------------------


@pytest.mark.parametrize("free", [False, True])
def test_branches_below_a_beginning_have_its_luck_and_episodes_of_their_own(own, free):
    seeds, closed = [], []

    class Shows(Environment):
        def reset(self, task, seed):
            seeds.append(seed)
            return "desk o"

        def step(self, action):
            return Outcome(done=True, success=True)

        def close(self):
            closed.append(self)

    async def run(t, task, n):
        await t.begin()
        for plan in await t.fork("plan", n["plan"]):
            await together(act.step() for act in await plan.fork("act", n["act"]))

    own(run)
    rollouts = rollouts_of("own", say=right, free=free)
    rollouts.engine.choices = lambda text, role: [{"plan": PLAN, "act": ACT}[role]]
    rollouts.taskset.environment = lambda task, noise: Shows()
    [tree] = grown(rollouts)
    assert tree.nodes[0].text == f"{HAND.context} {HAND.prompt} desk o <plan>"
    assert rollouts.engine.decode(tree.nodes[0].token_ids) == tree.nodes[0].text
    assert [n.role for n in tree.nodes] == [None, "plan", "plan", "act", "act", "act", "act"]
    assert len(seeds) == 5 and set(seeds) == {seed_of(seed_of(1, 0), "episode", 0)} and len(closed) == 5
    segments = tree_segments(rollouts, [tree], [{}], "tokens")
    assert sum(len(s.token_ids) for s in segments) == sum(len(n.token_ids) for n in tree.nodes)


def test_what_is_shown_first_on_a_branch_stands_before_its_next_turn(own):
    class Shows(Environment):
        def reset(self, task, seed):
            return "desk o"

        def step(self, action):
            return Outcome(done=True, success=True)

    async def run(t, task, n):
        for plan in await t.fork("plan", 1):
            await plan.begin()
            await plan.generate("act")
            await plan.step()

    own(run)
    rollouts = rollouts_of("own", say=right)
    rollouts.taskset.environment = lambda task, noise: Shows()
    [tree] = grown(rollouts)
    assert [(n.role, n.text) for n in tree.nodes[1:]] == [("plan", PLAN), (None, "desk o"), ("act", ACT)]


@pytest.mark.parametrize("method", ["reset", "close"])
def test_a_beginning_that_breaks_fails_the_tree(own, method):
    class Breaks(Environment):
        def step(self, action):
            return Outcome(done=True)

    def boom(self, *args):
        raise ValueError("boom")

    setattr(Breaks, method, boom)

    async def run(t, task, n):
        await t.begin()
        if not t.ended:
            assert await t.fork("plan", 2) == []

    own(run)
    rollouts = rollouts_of("own", say=right)
    rollouts.taskset.environment = lambda task, noise: Breaks()
    [tree] = grown(rollouts)
    assert ends(tree) == [("plan", "failed", "environment: ValueError: boom")] and rollouts.guard.total == 1


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("swallows", [False, True])
def test_a_workflow_that_does_not_wait_again_is_ended(own, swallows, free, monkeypatch):
    """Once, where it lets the end through; of one that does not, each time that it is told."""
    monkeypatch.setattr(watchdog, "AGAIN", 0.02)
    told = []

    async def spins(t, task, n):
        await t.fork("plan", 1)
        while task.id == "broken" and len(told) < 2:
            try:
                while True:
                    pass
            except BaseException as error:
                told.append(type(error).__name__)
                if not swallows:
                    raise

    own(spins)
    rollouts = rollouts_of("own", say=right, free=free)
    rollouts.guard.limits = LimitSpec(step_seconds=0.02)
    good, bad = grown(rollouts, tasks=[HAND, replace(HAND, id="broken")])
    assert ends(good) == [("plan", "finished", "")]
    assert told == ["TimeUp"] * (2 if swallows else 1)
    if not swallows:
        assert ends(bad) == [("plan", "failed", "workflow: Timeout: no end within 0.02 s between two awaits")]
        [fault] = rollouts.guard.records()
        assert "test_drive.py:" in fault["place"]


@pytest.mark.parametrize("apart", [False, True])
def test_in_free_mode_the_samplers_time_is_not_the_workflows(own, apart):
    class Slow(Listening):
        def sample(self, requests):
            sleep(0.05)
            return super().sample(requests)

    async def plans(t, task, n):
        await (asyncio.gather(t.fork("plan", 1)) if apart else t.fork("plan", 1))

    own(plans)
    rollouts = rollouts_of("own", say=right, free=True, engine=Slow)
    rollouts.guard.limits = LimitSpec(step_seconds=0.02)
    [tree] = grown(rollouts)
    assert ends(tree) == [("plan", "finished", "")]


def test_what_a_workflow_does_wrong_is_counted_once_with_its_line(own):
    own(goes_on)
    rollouts = rollouts_of("own", say=right)
    grown(rollouts)
    [fault] = rollouts.guard.records()
    assert fault["count"] == 1 and "test_drive.py:" in fault["place"] and "(in own, " in fault["first"]
