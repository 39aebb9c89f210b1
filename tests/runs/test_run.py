"""A run from its first line to its report, on `desk` with the fake engine: what it writes, how it stops, how
it goes on."""

from __future__ import annotations

import copy
import errno
import gzip
import importlib.util
import json
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest
from conftest import REFUSED, RIGHT, WRONG, desk_choices, desk_recipe, fake_desk, lines_of, nothing, opened

from forethought import cli, report
from forethought.core.errors import CheckpointError, GateStop, Interrupted, UserError
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.load import write_resolved
from forethought.runs import handover, run, runner, trackers
from forethought.runs.progress import Progress
from forethought.runs.runner import Runner
from forethought.runs.trackers import tags
from forethought.store import Store, checkpoints
from forethought.store import files as store_files

TENSORBOARD = {"tensorboard"} if importlib.util.find_spec("tensorboard") else set()

SGD = {"lr": 0.5, "warmup": 2, "decay": 0.5, "betas": [0.5, 0.9]}
IMITATE = {"kind": "imitate", "until": {"steps": 3}, "batch": 2, "optim": SGD}
PLAN = {
    "kind": "reinforce",
    "name": "learn to plan",
    "roles": ["plan"],
    "until": {"steps": 3},
    "batch": 2,
    "tree": {"plan": 3, "act": 2},
    "ref_kl": 0.1,
    "optim": SGD,
}
ACT = {
    "kind": "reinforce",
    "roles": ["act"],
    "until": {"steps": 4},
    "batch": 2,
    "tree": {"plan": 2, "act": 2},
    "credit": {"name": "role_baseline"},
    "optim": SGD,
}
BOTH = {
    "kind": "reinforce",
    "until": {"steps": 2},
    "batch": 2,
    "tree": {"plan": 3, "act": 2},
    "updates": 2,
    "optim": SGD,
}
IMPOSSIBLE = {"metric": "eval/act", "at_most": 0.0, "on_fail": "roll_back"}

WHOLE = desk_recipe(IMITATE, PLAN, ACT | {"gates": [IMPOSSIBLE]}, BOTH)
"""Four stages: the base, an adapter with a reference, an adapter that a gate takes back after two steps, both
adapters."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Durability is test_store's business; here runs are many."""
    monkeypatch.setattr(store_files, "sync", lambda path: None)


@pytest.fixture
def tmp_path():
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(report, "write", lambda out: out / "report.html")


class Killed(BaseException):
    """What nothing catches: as good as SIGKILL, and the test lives on."""


def train(recipe, out: Path, observe=nothing, engine_of=None) -> runner.Result:
    return run.train(recipe, out, observe, engine_of or fake_desk())


def resume(out: Path, observe=nothing, engine_of=None) -> runner.Result:
    return run.resume(out, observe, engine_of or fake_desk())


def events_of(recipe, out: Path, **fields) -> list:
    """But for `busy`, which comes before each evaluation that is made."""
    events = []
    train(recipe, out, events.append, fake_desk(**fields))
    busy = [i for i, event in enumerate(events) if event.kind == "busy"]
    assert busy and all(events[i].text.startswith("evaluating ") for i in busy)
    assert {events[i + 1].kind for i in busy} <= {"eval", "decision"}
    return [event for event in events if event.kind != "busy"]


def metrics(out: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if not _clock(k)} for line in lines_of(out / "metrics.jsonl")]


def _clock(name: str) -> bool:
    return name.startswith(("seconds", "tokens_per_second", "memory/"))


def decisions(out: Path, kind: str | None = None) -> list[dict]:
    return [d for d in lines_of(out / "decisions.jsonl") if d["kind"] != "run" and kind in (None, d["kind"])]


def newest(out: Path) -> tuple[dict, dict]:
    """(the fake's file, the loop's state) of the newest checkpoint."""
    folder, state = Store.open(out).latest()
    return json.loads((folder / "engine" / "fake.json").read_text()), state


def timeless(value):
    """The same value without anything that a clock wrote."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not _clock(k) and k not in ("logs", "digest")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def everything(out: Path) -> dict:
    """All that a run left, apart from clocks and from what says that it was interrupted."""
    engine, state = newest(out)
    summary = json.loads((out / "summary.json").read_text())
    return {
        "metrics": metrics(out),
        "decisions": decisions(out),
        "engine": engine,
        "state": timeless(state),
        "summary": timeless(summary),
        "trees": {p.name: gzip.decompress(p.read_bytes()) for p in sorted((out / "trees").iterdir())},
        "checkpoints": Store.open(out).steps()[-1],
    }


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[dict, list]:
    """The whole recipe, never interrupted: (all that it left, its events)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_files, "sync", lambda path: None)
        events = events_of(WHOLE, out := tmp_path_factory.mktemp("straight") / "run")
    return everything(out), events


# a run from start to end ------------------------------------------------------------------------------------


def test_what_a_run_tells_its_watcher(straight):
    told = [(e.kind, e.step, e.stage, e.stage_step, e.outcome) for e in straight[1]]
    assert told == [
        ("start", 0, 0, 0, ""),
        ("decision", 0, 0, 0, "start"),
        ("stage", 0, 0, 0, ""),
        ("eval", 0, 0, 0, ""),
        ("step", 1, 0, 1, ""),
        ("eval", 2, 0, 2, ""),
        ("eval", 3, 0, 3, ""),
        ("decision", 3, 0, 3, "advance"),
        ("decision", 3, 1, 0, "fork"),
        ("stage", 3, 1, 0, ""),
        ("eval", 3, 1, 0, ""),
        ("step", 4, 1, 1, ""),
        ("eval", 5, 1, 2, ""),
        ("eval", 6, 1, 3, ""),
        ("decision", 6, 1, 3, "advance"),
        ("decision", 6, 2, 0, "fork"),
        ("stage", 6, 2, 0, ""),
        ("eval", 6, 2, 0, ""),
        ("step", 7, 2, 1, ""),
        ("eval", 8, 2, 2, ""),
        ("decision", 8, 2, 2, "roll_back"),
        ("eval", 9, 2, 2, ""),
        ("decision", 9, 2, 2, "advance"),
        ("stage", 9, 3, 0, ""),
        ("eval", 9, 3, 0, ""),
        ("step", 10, 3, 1, ""),
        ("eval", 11, 3, 2, ""),
        ("decision", 11, 3, 2, "advance"),
        ("decision", 11, 4, 0, "end"),
        ("end", 11, 4, 0, ""),
    ]
    assert {(e.steps, e.stages) for e in straight[1]} == {(12, 4)}


def test_the_log_says_what_was_told_and_keeps_the_contracts_names(straight):
    left, events = straight
    lines = left["metrics"]
    told = [e for e in events if e.kind in ("step", "eval")]
    assert (
        [line["step"] for line in lines]
        == [e.step for e in told]
        == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11]
    )
    assert [(line["stage"], line["stage_name"], line["kind"], line["stage_step"]) for line in lines[4:8]] == [
        (1, "learn to plan", "reinforce", step) for step in (0, 1, 2, 3)
    ]
    for line, event in zip(lines, told, strict=True):
        assert all(line[k] == v for k, v in event.values.items() if k in line)
        measured = event.kind == "eval"
        for side in ("plan", "act", "e2e"):
            for key in (side, f"{side}@1", f"{side}@2"):
                assert (f"eval/{key}" in line) is measured
                if measured:
                    assert line[f"eval_low/{key}"] <= line[f"eval/{key}"] <= line[f"eval_high/{key}"]
                    assert line[f"eval_n/{key}"] == (4 if key == side else 2)
    assert {
        "loss/sft",
        "entropy/plan",
        "entropy/act",
        "lr",
        "grad_norm/base",
        "tokens/trained",
        "tokens/forward",
    } <= lines[1].keys()
    assert {
        "loss/pg",
        "kl/ref",
        "reward/plan.outcome",
        "reward/act",
        "reward/plan.valid",
        "refused/plan",
        "truncated/plan",
        "failed/act",
        "groups/zero",
        "gap/sampler",
        "grad_norm/plan",
        "tokens/sampled",
        "curriculum/reward@1",
    } <= lines[5].keys()
    # warm-up 2, decay over half of 3 steps
    assert [line["lr"] for line in lines[1:4]] == pytest.approx([0.25, 0.5, 0.5 * (1 / 1.5)])


def test_the_run_directory_at_the_end(tmp_path):
    result = train(WHOLE, tmp_path / "run")
    out = tmp_path / "run"
    assert (result.out, result.status, result.exit_code) == (out, "done", 0)
    assert result.values == {
        k: v for k, v in metrics(out)[-1].items() if k.startswith("eval") and not k.startswith("eval_change")
    }
    assert {p.name for p in out.iterdir()} == {
        ".lock",
        "run.json",
        "files.jsonl",
        "recipe.json",
        "metrics.jsonl",
        "decisions.jsonl",
        "summary.json",
        "report.html",
        "checkpoints",
        "trees",
    } | TENSORBOARD
    assert [p.name for p in sorted((out / "checkpoints").iterdir())] == ["step-000010", "step-000011"]
    assert [p.name for p in sorted((out / "trees").iterdir())] == [
        f"step-{s:06d}.jsonl.gz" for s in (4, 5, 6, 7, 8, 10, 11)
    ]
    page = (out / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "learn to plan" in page
    run_decisions = [(d["kind"], d["outcome"]) for d in lines_of(out / "decisions.jsonl")]
    assert run_decisions[0] == ("run", "start") and run_decisions[-1] == ("run", "end")
    from forethought.recipe.load import load

    assert load(out) == WHOLE  # the resolved recipe feeds back in


def test_the_summary(straight):
    left, _ = straight
    assert {k: v for k, v in left["summary"].items() if k not in ("stages", "machine")} == {
        "name": "made",
        "seed": 0,
        "status": "done",
        "step": 11,
    }
    assert left["summary"]["machine"] | {"forethought": 0, "parameters": 0} == {
        "model": "fake",
        "device": "none",
        "parameters": 0,
        "forethought": 0,
    }
    assert [
        {k: s[k] for k in ("name", "kind", "roles", "steps", "ended")} for s in left["summary"]["stages"]
    ] == [
        {
            "name": "imitate",
            "kind": "imitate",
            "roles": ["plan", "act"],
            "steps": 3,
            "ended": "its 3 steps are done",
        },
        {
            "name": "learn to plan",
            "kind": "reinforce",
            "roles": ["plan"],
            "steps": 3,
            "ended": "its 3 steps are done",
        },
        {
            "name": "reinforce",
            "kind": "reinforce",
            "roles": ["act"],
            "steps": 2,
            "ended": "a gate rolled it back (eval/act)",
        },
        {
            "name": "reinforce",
            "kind": "reinforce",
            "roles": ["plan", "act"],
            "steps": 2,
            "ended": "its 2 steps are done",
        },
    ]
    lines = left["metrics"]
    for i, stage in enumerate(left["summary"]["stages"]):
        of_stage = [line for line in lines if line["stage"] == i]
        assert stage["tokens_trained"] == sum(line.get("tokens/trained", 0) for line in of_stage)
        assert stage["tokens_sampled"] == sum(line.get("tokens/sampled", 0) for line in of_stage)
    assert (
        left["summary"]["stages"][0]["tokens_trained"] > 0 == left["summary"]["stages"][0]["tokens_sampled"]
    )


def test_event_files_say_what_the_log_says(tmp_path, no_report):
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_file_loader",
        reason="the extra tensorboard is not installed",
    )

    train(desk_recipe(IMITATE), tmp_path / "run")
    [file] = (tmp_path / "run" / "tensorboard").iterdir()
    seen = [
        (
            e.step,
            {
                v.tag: v.tensor.float_val[0] if v.HasField("tensor") else v.simple_value
                for v in e.summary.value
            },
        )
        for e in loader.EventFileLoader(str(file)).Load()
        if e.HasField("summary") and not e.summary.value[0].tag.startswith("_hparams_")
    ]
    for (step, values), line in zip(seen, metrics(tmp_path / "run"), strict=True):
        assert step == line["step"]
        own = {k: v for k, v in tags(line).items() if "/" in k or k == "lr"}
        assert {k: values[k] for k in own} == pytest.approx(own, rel=1e-6)  # event files hold 32 bits


def test_without_tensorboard_a_run_goes_on_and_writes_no_event_files(tmp_path, no_report, monkeypatch):
    monkeypatch.setattr(trackers, "_installed", lambda package: False)
    assert (
        train(desk_recipe(IMITATE), tmp_path / "run").status == "done"
        and not (tmp_path / "run" / "tensorboard").exists()
    )


def test_the_same_recipe_twice_is_the_same_run(tmp_path, straight):
    train(WHOLE, tmp_path / "again")
    assert everything(tmp_path / "again") == straight[0]


def test_another_seed_is_another_run(tmp_path, straight, no_report):
    from dataclasses import replace

    train(replace(WHOLE, seed=1), tmp_path / "other")
    assert everything(tmp_path / "other")["engine"]["weights"] != straight[0]["engine"]["weights"]


def test_a_stage_begins_where_the_last_one_ended_without_measuring_twice(straight):
    lines = straight[0]["metrics"]
    for end, begin in ((3, 4), (7, 8), (11, 12)):
        shown = lambda line: {k: v for k, v in line.items() if k.startswith("eval") and "change" not in k}  # noqa: E731
        assert shown(lines[end]) == shown(lines[begin]) != {}
        assert lines[end]["step"] == lines[begin]["step"] and lines[begin]["stage_step"] == 0


def test_a_run_learns(tmp_path, no_report):
    plan = PLAN | {
        "until": {"steps": 30},
        "ref_kl": 0.0,
        "tree": {"plan": 6, "act": 0},
        "reward": {"plan": {"valid": 1.0}},
        "optim": SGD | {"lr": 1.0},
    }
    train(desk_recipe(plan | {"batch": 4}), tmp_path / "run")
    lines = metrics(tmp_path / "run")
    assert lines[0]["eval/plan"] == 0.0 and lines[-1]["eval/plan"] == 1.0
    assert lines[0]["eval/act"] == lines[-1]["eval/act"] == 0.0  # nobody taught it to act
    assert lines[-1]["reward/plan.valid"] > 0.6 > 0.4 > lines[1]["reward/plan.valid"]


# who moves --------------------------------------------------------------------------------------------------


def watched(recipe, out: Path, **fields) -> list[tuple]:
    """(event, a copy of the engine's weights, optimizers' memory and versions) at every event."""
    made = []

    def engine_of(recipe, taskset):
        made.append(FakeEngine(taskset.vocabulary(), taskset.stops, choices=desk_choices, **fields))
        return made[0]

    seen = []

    def observe(event):
        engine = made[0]
        seen.append(
            (
                event,
                copy.deepcopy(
                    {
                        "weights": engine.weights,
                        "served": engine.served,
                        "momentum": engine.momentum,
                        "versions": engine.versions,
                    }
                ),
            )
        )

    train(recipe, out, observe, engine_of)
    return seen


def test_roles_that_a_stage_does_not_train_do_not_move(tmp_path, no_report):
    seen = watched(WHOLE, tmp_path / "run")
    by_stage = {
        stage: [state for event, state in seen if event.stage == stage and event.kind in ("eval", "step")]
        for stage in range(4)
    }
    for stage, moved in {0: {"base"}, 1: {"plan"}, 2: {"act"}, 3: {"plan", "act"}}.items():
        states = by_stage[stage]
        for name in states[0]["weights"]:
            changes = [state["weights"][name] != states[0]["weights"][name] for state in states[1:]]
            if name in moved:
                assert any(changes), (stage, name)
            else:
                assert not any(changes), (stage, name)
                assert all(
                    state["versions"].get(name) == states[0]["versions"][name]
                    for state in states
                    if name in state["versions"]
                )


def test_a_reference_lives_as_long_as_its_stage(tmp_path, no_report):
    names = [
        (e.stage, e.kind, "plan-at-stage-1" in state["versions"])
        for e, state in watched(WHOLE, tmp_path / "run")
    ]
    assert {kept for stage, kind, kept in names if stage == 1 and kind in ("eval", "step")} == {True}
    assert not any(kept for stage, _, kept in names if stage != 1)


def test_every_stage_begins_with_fresh_optimizers(tmp_path, no_report):
    seen = watched(desk_recipe(IMITATE, PLAN, PLAN | {"name": "again"}), tmp_path / "run")
    momentum = {(e.stage, e.stage_step): state["momentum"] for e, state in seen if e.kind in ("eval", "step")}
    assert momentum[1, 3]["plan"] != {} == momentum[2, 0]["plan"]
    # those of ended stages are gone
    assert set(momentum[0, 3]) == {"base"} and set(momentum[1, 3]) == set(momentum[2, 3]) == {"plan"}


def test_an_adapter_starts_as_the_base_and_is_not_forked_again(tmp_path, no_report):
    seen = watched(WHOLE, tmp_path / "run")
    forked = next(state for event, state in seen if event.kind == "stage" and event.stage == 1)
    assert forked["weights"]["plan"] == forked["weights"]["base"] != {}
    assert [
        (d["step"], d["reason"].split()[0]) for d in decisions(tmp_path / "run") if d["outcome"] == "fork"
    ] == [(3, "plan"), (6, "act")]


# gates ------------------------------------------------------------------------------------------------------


def test_a_roll_back_restores_weights_optimizers_and_curriculum_and_says_why(tmp_path, no_report):
    made = {}

    def engine_of(recipe, taskset):
        return made.setdefault(
            "engine", FakeEngine(taskset.vocabulary(), taskset.stops, choices=desk_choices)
        )

    engine, rollouts = run.build(WHOLE, engine_of)
    seen = {}

    def observe(event):
        p = runner.progress
        if event.stage == 2 and event.kind in ("eval", "step"):
            seen[event.step] = copy.deepcopy(
                (engine.weights, engine.served, engine.momentum, engine.versions, p.curriculum, p.policies)
            )

    (tmp_path / "run").mkdir()
    write_resolved(WHOLE, tmp_path / "run" / "recipe.json")
    runner = Runner(WHOLE, engine, rollouts, Store(tmp_path / "run"), observe)
    runner.go(Progress(policies=handover.first_policies(WHOLE)), "start")
    start, moved, back = seen[6], seen[8], seen[9]
    # else nothing was taken back
    assert all(one != other for one, other in zip(moved[:5], start, strict=False))
    assert [*back[:3], *back[4:]] == [*start[:3], *start[4:]]
    # the weights of the start under a number that was never used
    assert back[3] == start[3] | {"act": moved[3]["act"] + 1}
    [decision] = [d for d in decisions(tmp_path / "run", "gate")]
    assert decision == {
        "step": 8,
        "stage": 2,
        "kind": "gate",
        "name": "eval/act",
        "outcome": "roll_back",
        "reason": "eval/act is not at most 0.0: 1.000",
        "numbers": {"value": 1.0, "bound": 0.0},
    }
    line = metrics(tmp_path / "run")[11]
    assert (line["step"], line["stage"], line["stage_step"], line["rolled_back_to"]) == (9, 2, 2, 6)
    assert {k: line[k] for k in line if k.startswith("eval/")} == {
        k: v for k, v in metrics(tmp_path / "run")[8].items() if k.startswith("eval/")
    }


@pytest.mark.parametrize("keep", [1, 2])
def test_the_place_to_roll_back_to_is_kept_while_its_stage_runs(tmp_path, no_report, keep):
    long = ACT | {"until": {"steps": 8}, "gates": [IMPOSSIBLE | {"at_most": 0.5}]}
    recipe = desk_recipe(IMITATE, long, save={"every": 1, "keep": keep}, eval={"tasks": 2, "every": 7})
    kept = []
    train(
        recipe,
        tmp_path / "run",
        lambda e: kept.append(Store(tmp_path / "run").steps()) if e.stage == 1 and e.kind == "step" else None,
    )
    assert kept[-1] == [3, *range(9 - keep, 9)]  # the anchor, and the newest
    assert metrics(tmp_path / "run")[-1]["rolled_back_to"] == 3


def test_a_roll_back_in_the_first_stage_ends_at_the_beginning(tmp_path, no_report):
    gate = {"metric": "eval/plan", "at_most": 0.5, "on_fail": "roll_back"}
    result = train(desk_recipe(IMITATE | {"gates": [gate]}), tmp_path / "run")
    engine, state = newest(tmp_path / "run")
    assert (
        engine["weights"] == {"base": {}}
        and engine["versions"] == {"base": 3}
        and result.values["eval/plan"] == 0.0
    )
    assert state["progress"]["step"] == 3 and state["progress"]["finished"]


def test_a_stop_keeps_everything_and_exits_with_3(tmp_path):
    recipe = desk_recipe(IMITATE, ACT | {"gates": [IMPOSSIBLE | {"on_fail": "stop"}]})
    out = tmp_path / "run"
    with pytest.raises(GateStop) as caught:
        train(recipe, out)
    assert caught.value.exit_code == 3
    assert (
        str(caught.value)
        == f"gate 0 of stage 1 stopped the run: eval/act is not at most 0.0: 1.000; everything is kept in "
        f"{out}"
    )
    assert (
        json.loads((out / "summary.json").read_text())["status"] == "stopped"
        and (out / "report.html").stat().st_size > 10_000
    )
    engine, state = newest(out)
    assert (state["step"], state["progress"]["stage"], state["progress"]["stage_step"]) == (
        5,
        1,
        2,
    ) and engine["weights"]["act"]
    assert decisions(out)[-1]["outcome"] == "stop" and lines_of(out / "decisions.jsonl")[-1]["kind"] == "gate"
    with pytest.raises(GateStop):  # who resumes goes on to the next time that the gate looks
        resume(out)
    assert newest(out)[1]["step"] == 7
    resume(out)  # the stage's steps are done
    assert json.loads((out / "summary.json").read_text())["status"] == "done"


def test_a_warning_goes_on(tmp_path, no_report, straight):
    recipe = desk_recipe(
        IMITATE,
        PLAN | {"gates": [IMPOSSIBLE | {"on_fail": "warn"}, {"metric": "eval/plan", "at_least": 0.0}]},
    )
    train(recipe, tmp_path / "run")
    assert [(d["step"], d["name"], d["outcome"]) for d in decisions(tmp_path / "run", "gate")] == [
        (5, "eval/act", "warn"),
        (5, "eval/plan", "vacuous"),
        (6, "eval/act", "warn"),
        (6, "eval/plan", "vacuous"),
    ]
    mine, other = metrics(tmp_path / "run")[:8], straight[0]["metrics"][:8]
    assert mine == other  # the same two stages without gates


def test_gates_may_read_the_numbers_of_the_step(tmp_path, no_report):
    gates = [
        {"metric": "refused/plan", "at_most": 0.0, "on_fail": "warn"},
        {"metric": "entropy/plan", "max_drop": 0.001, "on_fail": "warn"},
    ]
    train(desk_recipe(PLAN | {"until": {"steps": 6}, "gates": gates}), tmp_path / "run")
    found = [(d["step"], d["name"], d["outcome"]) for d in decisions(tmp_path / "run", "gate")]
    # the first one that was measured is the start
    assert found[:2] == [(2, "refused/plan", "warn"), (2, "entropy/plan", "pass")]
    assert found[-1] == (6, "entropy/plan", "warn")


def test_a_stage_ends_early_when_its_metric_is_there(tmp_path, no_report):
    until = {"steps": 9, "metric": "eval/plan", "at_least": 1.0, "patience": 2}
    train(desk_recipe(IMITATE | {"until": until}, PLAN), tmp_path / "run")
    [first, *_] = [d for d in decisions(tmp_path / "run") if d["outcome"] == "advance"]
    assert (first["step"], first["reason"]) == (4, "eval/plan is 1.000, at least 1.0, 2 evaluations in a row")
    assert [line["stage"] for line in metrics(tmp_path / "run")] == [0] * 5 + [1] * 4


# stop anywhere, go on ---------------------------------------------------------------------------------------


def at(n: int, act):
    """An observer that does `act` at the n-th event (from 0) that is not `busy`."""
    count = iter(range(10**6))
    return lambda event: act() if event.kind != "busy" and next(count) == n else None


def kill():
    raise Killed


EVENTS = 30  # of the whole recipe; test_what_a_run_tells_its_watcher counts them


@pytest.mark.parametrize("n", range(EVENTS - 1))
def test_killed_at_any_moment_and_resumed_is_the_straight_run(tmp_path, no_report, straight, n):
    assert len(straight[1]) == EVENTS
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(WHOLE, out, at(n, kill))
    resume(out)
    assert everything(out) == straight[0]


# event -> the step at which the run leaves. At a stage's start and end (a gate's too) it leaves after the
# next step: there the stage's start has been measured and saved. At the last event of a step nothing is left
# to do.
STOPS = {
    3: 1,
    4: 1,
    5: 2,
    6: 4,
    10: 4,
    11: 4,
    12: 5,
    13: 7,
    17: 7,
    18: 7,
    19: 10,
    21: 10,
    24: 10,
    25: 10,
    26: None,
}


@pytest.mark.parametrize("n", STOPS)
def test_told_to_stop_at_any_step_it_saves_and_goes_on_as_the_straight_run(tmp_path, straight, n):
    out = tmp_path / "run"
    before, left = signal.getsignal(signal.SIGTERM), STOPS[n]
    assert list(STOPS) == [i for i, event in enumerate(straight[1]) if event.kind in ("step", "eval")]
    stop = at(n, lambda: os.kill(os.getpid(), signal.SIGTERM))
    if left is None:
        train(WHOLE, out, stop)
    else:
        with pytest.raises(Interrupted) as caught:
            train(WHOLE, out, stop)
        assert caught.value.exit_code == 128 + signal.SIGTERM
        assert (
            str(caught.value)
            == f"interrupted at step {left}, everything is saved; continue with: forethought train --resume "
            f"{out}"
        )
        assert Store.open(out).latest()[1]["step"] == left
        assert (
            json.loads((out / "summary.json").read_text())["status"] == "interrupted"
            and (out / "report.html").exists()
        )
        assert lines_of(out / "decisions.jsonl")[-1]["outcome"] == "interrupt"
        resume(out)
    assert everything(out) == straight[0]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_in_a_thread_leaves_signals_alone(tmp_path, no_report):
    done = []
    thread = threading.Thread(
        target=lambda: done.append(train(desk_recipe(IMITATE), tmp_path / "run").status)
    )
    thread.start()
    thread.join()
    assert done == ["done"]


def test_a_second_signal_ends_it_at_once_and_it_resumes_all_the_same(tmp_path, no_report, straight):
    def stop_twice(event):
        if event.step == 4 and event.kind == "step":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(WHOLE, tmp_path / "run", stop_twice)
    resume(tmp_path / "run")
    assert everything(tmp_path / "run") == straight[0]


@pytest.mark.parametrize(("first", "second"), [(1, 1), (5, 3), (13, 9), (20, 4), (22, 8)])
def test_resumed_twice(tmp_path, no_report, straight, first, second):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(WHOLE, out, at(first, kill))
    with pytest.raises(Killed):
        resume(out, at(second, kill))
    resume(out)
    assert everything(out) == straight[0]


SAVES = 8  # four starts of stages, steps 2, 4 and 10, and the end


@pytest.mark.parametrize("n", range(SAVES))
@pytest.mark.parametrize("where", ["engine", "state"])
def test_a_full_disk_in_the_middle_of_a_checkpoint(tmp_path, no_report, straight, monkeypatch, n, where):
    out = tmp_path / "run"
    full = OSError(errno.ENOSPC, "No space left on device")
    count = iter(range(10**6))

    class Full(FakeEngine):
        def save(self, directory):
            if where == "engine" and next(count) == n:
                directory.mkdir()
                (directory / "fake.json").write_text('{"weights": {"ba')
                raise full
            super().save(directory)

    digest = store_files.digest

    def failing_digest(path):
        if where == "state" and path.name == "state.json" and next(count) == n:
            raise full
        return digest(path)

    monkeypatch.setattr(store_files, "digest", failing_digest)
    with pytest.raises(OSError) as caught:
        train(
            WHOLE,
            out,
            nothing,
            lambda recipe, taskset: Full(taskset.vocabulary(), taskset.stops, choices=desk_choices),
        )
    assert caught.value is full
    monkeypatch.setattr(store_files, "digest", digest)
    store = Store.open(out)
    assert [p.name for p in store.checkpoints.iterdir() if not p.name.startswith("step-")] == []  # no trace
    assert all(checkpoints.verify(store.checkpoints / f"step-{step:06d}") == "" for step in store.steps())
    resume(out)
    assert everything(out) == straight[0]


def test_a_full_disk_in_the_middle_of_a_log_line(tmp_path, no_report, straight, monkeypatch):
    append = Store._append

    def half(self, name, record):
        if name == "metrics.jsonl" and record["step"] == 7:
            with open(self.out / name, "a") as f:
                f.write('{"step": 7, "sta')
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, name, record)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_append", half)
        with pytest.raises(OSError):
            train(WHOLE, tmp_path / "run")
    resume(tmp_path / "run")
    assert everything(tmp_path / "run") == straight[0]


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_leads_to_the_same_end(
    tmp_path, no_report, straight
):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(WHOLE, out, at(20, kill))
    store = Store.open(out)
    folder, _ = store.latest()
    assert len(store.steps()) > 1
    (folder / "engine" / "fake.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=f"checkpoint {folder} is damaged .*the one before it is whole: delete {folder}"
    ):
        resume(out)
    shutil.rmtree(folder)
    resume(out)
    assert everything(out) == straight[0]


def test_a_finished_run_is_not_resumed(tmp_path):
    train(desk_recipe(IMITATE), tmp_path / "run")
    before = metrics(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        resume(tmp_path / "run")
    assert str(caught.value) == f"{tmp_path / 'run'} is finished; there is nothing to resume"
    assert metrics(tmp_path / "run") == before
    with pytest.raises(UserError, match="is not a run"):
        resume(tmp_path)


def test_a_run_that_was_killed_between_its_last_step_and_its_report_is_closed_by_resuming(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(desk_recipe(IMITATE), out, lambda e: kill() if e.outcome == "end" else None)
    assert (
        not (out / "report.html").exists()
        and json.loads((out / "summary.json").read_text())["status"] == "running"
    )
    result = resume(out)
    assert (out / "report.html").exists() and json.loads((out / "summary.json").read_text())[
        "status"
    ] == "done"
    assert result.values["eval/plan"] == 1.0  # what it ended with, though nothing was measured again


# updates that are refused -----------------------------------------------------------------------------------


def test_a_refused_update_is_recorded_and_the_run_goes_on(tmp_path, no_report):
    out = tmp_path / "run"
    seen = watched(desk_recipe(IMITATE | {"until": {"steps": 4}}), out, nan_losses=[1])
    weights = {
        event.step: state["weights"]["base"] for event, state in seen if event.kind in ("step", "eval")
    }
    assert weights[0] != weights[1] == weights[2] != weights[3]
    assert decisions(out, "guard") == [
        {
            "step": 1,
            "stage": 0,
            "kind": "guard",
            "name": "finite",
            "outcome": "refuse",
            "numbers": {"refused": 1},
            "reason": "update refused: the loss of policy 'base' is nan",
        }
    ]
    lines = metrics(out)
    # the step has no numbers, its evaluation has
    assert "loss/sft" not in lines[2] and lines[2]["eval/plan"] == lines[2]["eval/act"]
    assert lines[4]["stage_step"] == 4


@pytest.mark.parametrize("kind", ["nan_losses", "nan_gradients"])
def test_too_many_refused_updates_stop_the_run_with_its_last_good_checkpoint(tmp_path, kind):
    out = tmp_path / "run"
    recipe = desk_recipe(IMITATE | {"until": {"steps": 9}}, max_bad_updates=2, save={"every": 3})
    with pytest.raises(UserError) as caught:
        train(recipe, out, engine_of=fake_desk(**{kind: [3, 5]}))
    what = "loss" if kind == "nan_losses" else "gradient norm"
    assert str(caught.value) == (
        f"weights have diverged at step 5: 2 updates were refused, the last because the {what} of policy "
        f"'base' is nan; lower stage.0.optim.lr "
        f"from 0.5 to 0.0003 and check the rewards: forethought train {out} --set stage.0.optim.lr=0.0003 "
        f"--out NEW; the weights of step 3 are "
        f"intact in {out / 'checkpoints'}"
    )
    assert [(d["step"], d["outcome"], d["numbers"]) for d in decisions(out, "guard")] == [
        (3, "refuse", {"refused": 1}),
        (5, "refuse", {"refused": 2}),
        (5, "stop", {}),
    ]
    assert (
        json.loads((out / "summary.json").read_text())["status"] == "stopped"
        and (out / "report.html").exists()
    )
    engine, state = newest(out)
    assert state["step"] == 3 and engine["versions"] == {"base": 3} and engine["weights"]["base"]
    resume(out)  # with an engine that finds no more of them
    assert newest(out)[0]["versions"] == {"base": 9}


def test_a_refused_update_and_a_stop_after_it_resume_as_the_straight_run(tmp_path, no_report):
    recipe = desk_recipe(IMITATE | {"until": {"steps": 5}}, BOTH)
    fields = {"nan_losses": [1, 9], "nan_gradients": [6]}
    train(recipe, tmp_path / "straight", engine_of=fake_desk(**fields))
    assert len(decisions(tmp_path / "straight", "guard")) >= 2
    for n in range(4, 18, 2):
        out = tmp_path / f"run-{n}"
        with pytest.raises(Killed):
            train(recipe, out, at(n, kill), fake_desk(**fields))
        resume(out, engine_of=fake_desk(**fields))
        assert timeless(decisions(out)) == timeless(decisions(tmp_path / "straight")) and metrics(
            out
        ) == metrics(tmp_path / "straight")
        assert newest(out)[0] == newest(tmp_path / "straight")[0]


# bad input, through the command line ------------------------------------------------------------------------

STAGE = '[[stage]]\nkind = "reinforce"\nroles = ["plan"]\ntree = { plan = 4, act = 1 }\n'


def refused(tmp_path, monkeypatch, capsys, text: str, *argv: str) -> str:
    """The one line that `forethought train` says about this recipe; nothing may be left behind."""
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(text)
    assert cli.main(["train", "r.toml", "--out", "out", *argv]) == 2
    assert not Path("out").exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.removeprefix("forethought: ").rstrip("\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'task = { name = "dsk" }\n' + STAGE,
            "task.name: unknown task 'dsk'; did you mean 'desk'? "
            "(known: blocksworld, desk, environment, math, screens, text, tools, web)",
        ),
        (
            'name = "empty"\n',
            'stage: a recipe needs at least one stage: [[stage]] with kind = "imitate" or "reinforce"',
        ),
        (
            'task = { name = "desk", levels = [3, 9] }\n' + STAGE,
            "task.levels: desk has levels 1 to 7 and needs a widget for each; found 9",
        ),
        (
            STAGE + "levels = [2, 6]\n",
            "stage.0.levels: desk has no level 6 here; its levels are [1, 2, 3, 4, 5]",
        ),
        (
            "eval = { levels = [6] }\n" + STAGE,
            "eval.levels: desk has no level 6 here; its levels are [1, 2, 3, 4, 5]",
        ),
        (
            STAGE + 'gates = [{ metric = "eval/act@9", max_drop = 0.01 }]\n',
            "stage.0.gates.0.metric: 'eval/act@9': level 9 is not evaluated (levels: 1, 2, 3, 4, 5)",
        ),
        (
            STAGE + 'until = { metric = "eval/plan@9", at_least = 0.9 }\n',
            "stage.0.until.metric: 'eval/plan@9': level 9 is not evaluated (levels: 1, 2, 3, 4, 5)",
        ),
        (
            STAGE + "easy_first = 0.5\neasy_levels = [9]\n",
            "stage.0.easy_levels.0: level 9 is not one of task.levels: 1, 2, 3, 4, 5",
        ),
        (
            STAGE.replace("plan = 4", "plan = 1"),
            "stage.0.tree: one rollout is a group of size 1, which has no baseline: every advantage is 0; "
            "sample "
            "more, such as plan = 4",
        ),
        (
            STAGE.replace('["plan"]', '["act"]') + 'credit = { name = "role_baseline" }\n',
            "stage.0.tree.act: role 'act' trains, and one act has no peers to be compared with; use at least "
            "2",
        ),
        (
            STAGE.replace("plan = 4, act = 1", "plan = 1, act = 4"),
            "stage.0.tree.plan: role 'plan' trains, and one plan has no peers to be compared with; use at "
            "least 2",
        ),
        (
            'task = { name = "desk", widget = 4 }\n' + STAGE,
            "task.widget: unknown option of desk 'widget'; did you mean 'widgets'? (known: bushiness, dead, "
            "flip, "
            "parents, plans, popup, retry, slip, stepwise, tags, told, widgets)",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_anything_is_made(
    tmp_path, monkeypatch, capsys, text, message
):
    assert refused(tmp_path, monkeypatch, capsys, text) == message


def test_a_folder_that_holds_another_run_is_refused(tmp_path, monkeypatch, capsys, no_report):
    monkeypatch.chdir(tmp_path)
    recipe = desk_recipe(IMITATE)
    train(recipe, Path("here"))
    before = {p: p.read_bytes() for p in Path("here").rglob("*") if p.is_file()}
    Path("r.toml").write_text(STAGE)
    assert cli.main(["train", "r.toml", "--out", "here"]) == 2
    assert capsys.readouterr().err == (
        "forethought: here is not empty; continue that run with --resume here, or choose another --out\n"
    )
    with pytest.raises(
        UserError, match="here already holds another run; choose a new --out, or continue with --resume here"
    ):
        train(recipe, Path("here"))  # the library's own refusal, for who calls it without the command line
    assert {p: p.read_bytes() for p in Path("here").rglob("*") if p.is_file()} == before


def test_resuming_a_finished_run_through_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train(desk_recipe(IMITATE), Path("here"))
    assert cli.main(["train", "--resume", "here"]) == 2
    assert capsys.readouterr().err == "forethought: here is finished; there is nothing to resume\n"


def test_the_choices_of_the_fake_are_what_the_tests_say_they_are():
    """The right one is right, the wrong one is accepted and wrong, the refused one is refused: on many
    screens."""
    import random

    from forethought.tasks.desk.taskset import Desk

    desk = Desk((1, 2), widgets=4)
    for seed in range(30):
        for task in desk.family(random.Random(seed), [1, 2], "train"):
            plans = desk_choices(f"{task.context} {task.prompt} <plan>", "plan")
            assert plans[RIGHT] == desk.oracle_plan(task)
            assert [(desk.parse_plan(task, p).score, desk.judge_plan(task, p).score) for p in plans] == [
                (1.0, 0.0),
                (1.0, 1.0),
                (0.0, 0.0),
            ]
            acts = desk_choices(f"{task.context} {task.prompt} <plan> {plans[RIGHT]}", "act")
            judged = [opened(desk, task).step(act) for act in acts]
            assert [o.success for o in judged] == [False, True, False] and judged[WRONG].reason.startswith(
                "the value set"
            )
            assert desk.follows(task, plans[RIGHT], [acts[RIGHT]]).score == 1.0 and not acts[
                REFUSED
            ].endswith("</act>")
