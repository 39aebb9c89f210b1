"""Every misbehaving family of `misbehaving.py` in training and in an evaluation: what breaks is data, or ends
the run typed and saved."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing
from misbehaving import CASES, LIMIT, family_of

from forethought.cli.faults import explain
from forethought.core.errors import FaultStop, UserError
from forethought.measure.evaluate import evaluate, held_out
from forethought.recipe.schema import EvalSpec, LimitSpec
from forethought.runs import run
from forethought.tasks import families
from forethought.workflows.rollout import Rollouts

STAGES = (
    {"kind": "imitate", "batch": 2, "until": {"steps": 2}},
    {
        "kind": "reinforce",
        "batch": 4,
        "tree": {"plan": 2, "act": 2},
        "credit": {"name": "role_baseline"},
        "until": {"steps": 2},
    },
)
SAVED = {"every": 2, "trees_every": 1, "trees": 0}
INNER = ("follows", "meaning")  # reached only after a step, or a plan, was right
EXPENSIVE = "Timeout"


def seconds_of(case) -> float:
    """The limit of a step. What runs beside the main thread shares a busy machine with what ends, and
    has more."""
    beside = case.is_async or case.limits
    return 60.0 if EXPENSIVE not in case.said else 10 * LIMIT if beside else LIMIT


def recipe_of(case, **limits):
    limits = {"step_seconds": seconds_of(case)} | dict(case.limits) | limits
    return desk_recipe(*STAGES, limits=limits, save=SAVED, layout="shared", probes={"tasks": 1, "every": 1})


def trees_of(out: Path) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(out.glob("trees/*.gz"))
        for line in gzip.open(path, "rt", encoding="utf-8")
    ]


def faults_of(out: Path) -> list[dict]:
    return json.loads((out / "faults.json").read_text("utf-8"))["faults"]


@pytest.mark.parametrize("name", CASES)
def test_what_misbehaves_now_and_then_is_left_out_and_the_run_goes_on(name, tmp_path, monkeypatch):
    case = CASES[name]
    late = case.method in ("family", "demonstrate", "oracle_plan")  # the start of a run reads these
    family = family_of(case, lambda n: n % 5 == 4 if EXPENSIVE not in case.said else n == 9)
    monkeypatch.setitem(families.TASKSETS, "desk", family)
    out = tmp_path / "run"
    done = run.train(recipe_of(case, max_failed=1.0), out, nothing, engine_of=fake_desk())
    assert (done.status, done.exit_code) == ("done", 0)
    found = [fault for fault in faults_of(out) if case.said in fault["first"]]
    assert found and {fault["boundary"] for fault in found} == {case.boundary}
    assert late or family.closed == 1
    for tree in trees_of(out):
        for node in tree["nodes"]:
            if node["status"] == "failed":
                assert (
                    node["reward"] is None
                    and node["reward_parts"] == {}
                    and node["reason"].startswith(case.boundary)
                )
                # nothing was executed
                assert node["role"] == "act" or not [n for n in tree["nodes"] if n["parent"] == node["id"]]
    assert [d["outcome"] for d in lines_of(out / "decisions.jsonl") if d["kind"] == "guard"] == [
        "failed"
    ] * len(faults_of(out))


@pytest.mark.parametrize("name", CASES)
def test_what_misbehaves_always_stops_the_run_typed(name, tmp_path, monkeypatch, capsys):
    case = CASES[name]
    if case.method in INNER and case.method == "meaning":
        pytest.skip("a probe alone: it is left out, and the run goes on")
    family = family_of(case, lambda n: True)
    monkeypatch.setitem(families.TASKSETS, "desk", family)
    monkeypatch.setattr("forethought.envs.guard.GONE", 2)
    out = tmp_path / "run"
    with pytest.raises(UserError) as stopped:
        run.train(recipe_of(case, window=2), out, nothing, engine_of=fake_desk())
    assert explain(stopped.value, out) == 2
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and "This is a bug" not in said and case.boundary in said and case.said in said
    )
    assert not set("\x1b\x07") & set(said)
    assert family.closed == 1
    if isinstance(stopped.value, FaultStop):
        assert json.loads((out / "summary.json").read_text())["status"] == "stopped"


@pytest.mark.parametrize("name", CASES)
def test_an_evaluation_leaves_out_the_tasks_that_failed(name):
    case = CASES[name]
    if case.method in ("demonstrate", "meaning"):
        pytest.skip("an evaluation does not ask for it")
    desk = family_of(case, lambda n: n == 1)((1, 2), widgets=4)
    rollouts = Rollouts(fake_desk()(None, desk), desk)
    rollouts.guard.limits = LimitSpec(step_seconds=seconds_of(case), **case.limits)
    found = evaluate(
        rollouts, held_out(rollouts.taskset, EvalSpec(tasks=3), (1, 2)), {"plan": "base", "act": "base"}
    )
    assert {seen.boundary for seen in rollouts.guard.kinds.values()} == {case.boundary}
    lost = {side: found.scores[f"eval/{side}"].count(None) for side in ("plan", "act", "e2e")}
    assert 1 <= sum(lost.values()) <= 3
    for side, n in lost.items():
        assert found.metrics.get(f"eval_failed/{side}", 0) == n
        assert found.metrics[f"eval_n/{side}"] == 6 - n
        kept = [score for score in found.scores[f"eval/{side}"] if score is not None]
        assert found.metrics[f"eval/{side}"] == sum(kept) / len(kept)
