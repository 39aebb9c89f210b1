"""Probes by hand: entropies of known counts, the two-phase detector on made-up curves, format shares, and
held-out measurements."""

from __future__ import annotations

import math
import random
import re

import pytest

from forethought.core.paired import paired_difference
from forethought.core.types import Node, Task, Tree
from forethought.engines.base import BASE
from forethought.engines.fake.engine import FakeEngine
from forethought.measure.probes.held_out import HeldOut, Probed, since
from forethought.measure.probes.monitor import Monitor
from forethought.measure.probes.phases import Phases, slope
from forethought.measure.probes.plans import entropy, format_share, meaning_entropy
from forethought.recipe.schema import ProbeSpec, TaskSpec, WorkflowSpec
from forethought.tasks import families
from forethought.workflows.rollout import Rollouts

SHARED = {"plan": BASE, "act": BASE}


def tree(*plans: tuple[str, str], outcome: dict[int, float] | None = None) -> Tree:
    """A root with plans (text, status); `outcome`: index of a plan -> success of the one execution under
    it."""
    nodes = [Node(id=0, parent=None, role=None, text="q", token_ids=(0,))]
    for text, status in plans:
        nodes.append(
            Node(
                id=len(nodes),
                parent=0,
                role="plan",
                text=text,
                token_ids=(1,),
                status=status,
                reward_parts={"valid": 1.0},
            )
        )
    for i, success in (outcome or {}).items():
        nodes.append(
            Node(
                id=len(nodes),
                parent=i + 1,
                role="act",
                text="done",
                token_ids=(2,),
                status="finished",
                reward_parts={"outcome": success},
            )
        )
    return Tree(task=Task(id="t", taskset="d", level=1, context="", prompt="q"), nodes=tuple(nodes))


def words(_: Tree, text: str) -> str:
    return " ".join(text.split())


# ---- entropies


def test_entropy_of_known_counts():
    assert entropy([1, 1, 1, 1]) == pytest.approx(math.log(4))
    assert entropy([3, 1]) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert entropy([5]) == 0.0
    assert entropy([2, 0]) == 0.0


def test_plans_that_mean_the_same_are_one():
    one = tree(("a  b", "finished"), ("a b", "finished"), ("c", "finished"), ("x", "refused"))
    other = tree(("a", "finished"), ("a", "finished"))
    single = tree(("a", "finished"), ("b", "truncated"))
    found = meaning_entropy([one, other, single], words, "plan")
    assert found["meaning/plan"] == pytest.approx(entropy([2, 1]) / 2)
    assert found["meaning/distinct"] == pytest.approx(1.5)
    assert meaning_entropy([single], words, "plan") == {}


# ---- formats


FORMATS = {"code": re.compile(r"\bdef "), "boxed": re.compile(r"boxed")}


def test_format_share_counts_rollouts_and_what_is_right_in_each():
    one = tree(
        ("def f", "finished"),
        ("boxed 3", "finished"),
        ("definitely", "finished"),
        ("def g boxed", "finished"),
        outcome={0: 1.0, 1: 0.0, 2: 1.0, 3: 0.0},
    )
    found = format_share([one], FORMATS, 0.9)
    assert found["format/share_code"] == 0.5  # the first pattern counts; "definitely" is no definition
    assert found["format/share_boxed"] == found["format/share_other"] == 0.25
    assert found["format/right_code"] == 0.5 and found["format/right_other"] == 1.0
    assert found["format/entropy"] == pytest.approx(entropy([2, 1, 1]))
    assert found["format/collapsed"] == 0.0


def test_formats_collapse_at_the_declared_share():
    trees = [tree(("def f", "finished"))] * 9 + [tree(("boxed", "finished"))]
    assert format_share(trees, FORMATS, 0.9)["format/collapsed"] == 1.0
    assert format_share(trees, FORMATS, 0.91)["format/collapsed"] == 0.0
    assert "format/share_other" not in format_share(trees, FORMATS, 0.9)
    assert format_share([], FORMATS, 0.9) == {}


# ---- the two phases


def run_phases(curve, steps=60, window=10) -> list[dict[str, float]]:
    phases = Phases(window)
    return [phases.observe(t, *curve(t)) for t in range(steps)]


def test_slope_by_hand():
    assert slope([1.0, 2.0, 3.0]) == pytest.approx(1.0)
    assert slope([0.0, 3.0, 0.0]) == pytest.approx(0.0)


def test_execution_consolidates_then_planning_is_the_bottleneck():
    lines = run_phases(lambda t: (2.0 * 0.8**t, 1.0 if t < 40 else 1.0 * 0.7 ** (t - 40)))
    first = next(i for i, line in enumerate(lines) if "phase/consolidated_at" in line)
    # The last 10 of an exponential fall bring 0.8^(t-9) - 0.8^t of the first value; that is a tenth at about
    # t = 19.
    assert 15 <= first <= 22
    assert lines[0]["phase/now"] == 1.0 and lines[first]["phase/now"] == 2.0
    assert lines[-1]["phase/consolidated_at"] == lines[-1]["phase/bottleneck_at"] == first
    assert lines[-1]["phase/now"] == 0.0  # by then planning has been learned too


def test_while_execution_still_falls_there_is_no_second_phase():
    lines = run_phases(lambda t: (3.0 - 0.04 * t, 1.0))
    assert all(line["phase/now"] == 1.0 and "phase/bottleneck_at" not in line for line in lines)


def test_execution_that_was_there_from_the_start_is_said_when_the_window_is_full():
    lines = run_phases(lambda t: (0.002, 0.5))
    assert [line["phase/now"] for line in lines[:10]] == [1.0] * 9 + [2.0]


def test_phases_go_on_from_their_state():
    curve = lambda t: (2.0 * 0.8**t, 1.0)  # noqa: E731
    straight = run_phases(curve)
    half = Phases(10)
    for t in range(25):
        half.observe(t, *curve(t))
    other = Phases(10)
    other.load_state_dict(half.state_dict())
    assert [other.observe(t, *curve(t)) for t in range(25, 60)] == straight[25:]


# ---- held-out demonstrations


@pytest.fixture
def desk():
    taskset = families.build(TaskSpec(name="desk", levels=(1, 2)))
    engine = FakeEngine(taskset.vocabulary(), taskset.stops)
    return engine, Rollouts(engine, taskset)


def test_a_policy_that_knows_nothing_of_the_demonstrations(desk):
    engine, rollouts = desk
    held_out = HeldOut(rollouts, (1, 2), 3, seed=0)
    found = held_out.measure(SHARED)
    assert held_out.tasks == 6 and all(len(s) == 6 for s in found.scores.values())
    assert set(found.metrics) == {
        f"probe/{name}_{role}" for name in ("success", "entropy", "ppl") for role in ("plan", "act")
    }


def test_weights_that_did_not_move_are_looked_at_once(desk, monkeypatch):
    engine, rollouts = desk
    held_out, calls, inspect = HeldOut(rollouts, (1,), 2, seed=0), [], engine.inspect
    monkeypatch.setattr(
        engine, "inspect", lambda batch, against: calls.append(batch.policy) or inspect(batch, against)
    )
    first = held_out.measure(SHARED)
    assert held_out.measure(SHARED) == first and calls == [BASE]
    engine.weights[BASE]["plan"] = [0.0, 9.0, 0.0]
    engine.publish(BASE)
    held_out.measure(SHARED)
    assert calls == [BASE, BASE]
    engine.fork(BASE, "plan")
    held_out.measure({"plan": "plan", "act": BASE})  # other tokens are asked of the base now
    assert calls == [BASE, BASE, BASE, "plan"]


def test_held_out_demonstrations_are_the_same_every_time_and_of_the_evaluation_split(desk):
    engine, rollouts = desk
    one, two = (HeldOut(rollouts, (1, 2), 3, seed=0) for _ in range(2))
    assert one.segments == two.segments
    assert HeldOut(rollouts, (1, 2), 3, seed=1).segments != one.segments


def test_changes_since_the_start_are_paired():
    start = Probed({"probe/ppl_plan": 4.0, "probe/entropy_plan": 0.5}, {"plan": [0.0, 0.0, 1.0, 1.0]})
    now = Probed({"probe/ppl_plan": 2.0, "probe/entropy_plan": 0.25}, {"plan": [1.0, 0.0, 1.0, 1.0]})
    found = since(start, now)
    change, low, high = paired_difference([0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0])
    assert (found["interference/plan"], found["interference_low/plan"], found["interference_high/plan"]) == (
        change,
        low,
        high,
    )
    assert found["probe_rel/ppl_plan"] == found["probe_rel/entropy_plan"] == 0.5


def test_the_monitor_counts_what_its_probes_cost_and_goes_on_from_its_state(desk):
    engine, rollouts = desk
    monitor = Monitor(rollouts, ProbeSpec(tasks=2, every=2, conflict_every=3), (1, 2), 0)
    line = monitor.begin(0, SHARED, {})
    assert line["seconds_probe/held_out"] == monitor.seconds > 0
    assert "interference/act" not in line
    assert monitor.after(1, 1, [], SHARED, {}) == {}  # nothing is due
    assert monitor.after(2, 2, [], SHARED, {})["interference/act"] == 0.0
    assert [k for k in range(1, 7) if monitor.conflict_due(k)] == [3, 6]
    other = Monitor(rollouts, ProbeSpec(tasks=2, every=2), (1, 2), 0)
    other.load_state_dict(monitor.state_dict())
    assert (other.start, other.now, other.seconds) == (monitor.start, monitor.now, monitor.seconds)


def test_probes_can_be_switched_off(desk):
    _, rollouts = desk
    monitor = Monitor(rollouts, ProbeSpec(every=0, conflict_every=0), (1, 2), 0)
    assert monitor.begin(0, SHARED, {}) == {} and not monitor.due(5) and not monitor.conflict_due(25)


def test_random_trees_never_break_the_probes():
    rng = random.Random(0)
    for _ in range(50):
        plans = [
            (rng.choice(["a", "b c", "def x"]), rng.choice(["finished", "refused", "truncated", "failed"]))
            for _ in range(rng.randrange(5))
        ]
        found = format_share([tree(*plans)], FORMATS, 0.9) | meaning_entropy([tree(*plans)], words, "plan")
        assert all(math.isfinite(v) for v in found.values())


def test_demonstrations_with_two_observations_in_a_row_belong_to_their_own_tasks():
    """plan_steps: after what an act showed comes the plan's next step, and then the next act."""
    desk = families.build(TaskSpec(name="desk", levels=(2, 3), options={"stepwise": True, "widgets": 4}))
    rollouts = Rollouts(FakeEngine(desk.vocabulary(), desk.stops), desk, WorkflowSpec(name="plan_steps"))
    probe = HeldOut(rollouts, [2, 3], tasks=2, seed=0)
    assert probe.there == [0, 1, 2, 3]
    plans = [task for task, s in zip(probe.task_of, probe.segments, strict=True) if s.role == "plan"]
    acts = [task for task, s in zip(probe.task_of, probe.segments, strict=True) if s.role == "act"]
    assert plans == [0, 1, 2, 3] and acts == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
