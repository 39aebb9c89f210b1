"""Stop anywhere, go on, and get the same bits: a run with the torch engine, ended by SIGTERM and by SIGKILL
in true processes.

`test_torch_resume_layouts.py` has every layout and everything that changes hands,
`test_torch_resume_moments.py` every moment."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import resume_kit as kit  # one thread
from conftest import lines_of, nothing

from forethought.core.errors import Interrupted
from forethought.recipe.convert import from_dict
from forethought.recipe.load import write_resolved
from forethought.recipe.schema import Recipe
from forethought.runs import run
from forethought.store import Store


def recipe(**fields) -> Recipe:
    """Imitation into the base with Muon; an adapter learns to plan beside a reference, two updates a batch;
    another to act."""
    tables = {
        "name": "resumed",
        "layout": "adapters",
        "seed": 3,
        "task": {"name": "desk", "levels": [1, 2], "widgets": 4, "slip": 0.1},
        "model": {"layers": 2, "width": 32, "mlp": 32},
        "adapter": {"rank": 2},
        "engine": {
            "device": "cpu",
            "precision": "bf16",
            "layers": "c",
            "threads": 1,
            "pack_tokens": 300,
            "sample_rows": 8,
        },
        "eval": {"tasks": 2, "every": 3},
        "save": {"every": 2, "trees_every": 2, "trees": 2},
        "stage": [
            {
                "kind": "imitate",
                "weights": "base",
                "until": {"steps": 5},
                "batch": 6,
                "share": 2,
                "easy_first": 0.5,
                "easy_levels": [1],
                "loss_share": {"plan": [1, 0.5]},
                "optim": {"name": "muon", "lr": 5e-3, "muon_lr": 0.02, "decay": 0.5},
            },
            {
                "kind": "reinforce",
                "roles": ["plan"],
                "until": {"steps": 5},
                "batch": 4,
                "tree": {"plan": 3, "act": 2},
                "ref_kl": 0.05,
                "updates": 2,
                "credit": {"name": "rloo"},
                "reward": {"plan": {"format": 1, "valid": 1}},
                "optim": {"lr": 0.01},
            },
            {
                "kind": "reinforce",
                "roles": ["act"],
                "until": {"steps": 3},
                "batch": 3,
                "tree": {"oracle": ["plan"], "act": 3},
                "reward": {"act": {"format": 1, "follows": 1}},
                "optim": {"lr": 0.01},
            },
        ],
    }
    return from_dict(tables | fields)


SHARED = {
    "layout": "shared",
    "stage": [
        {"kind": "imitate", "until": {"steps": 4}, "batch": 4, "optim": {"lr": 5e-3}},
        {
            "kind": "reinforce",
            "roles": ["plan"],
            "until": {"steps": 5},
            "batch": 4,
            "tree": {"plan": 3, "act": 1},
            "ref_kl": 0.05,
            "reward": {"plan": {"format": 1}},
            "optim": {"name": "muon", "lr": 5e-3},
        },
    ],
}


def left(out: Path) -> dict:
    """Every tensor of the last checkpoint, bit for bit, and every number that was logged, without the
    clocks."""
    folder, state = Store.open(out).latest()
    clock = lambda name: name.startswith(("seconds", "tokens_per_second", "memory/"))  # noqa: E731  of a run, a step, a probe
    assert state["progress"]["finished"]
    return {
        "tensors": {
            str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))
        },
        "metrics": [
            {k: v for k, v in line.items() if not clock(k)} for line in lines_of(out / "metrics.jsonl")
        ],
        "decisions": [d for d in lines_of(out / "decisions.jsonl") if d["kind"] != "run"],
        "policies": {
            str(p.relative_to(folder)): json.loads(p.read_text()) for p in sorted(folder.rglob("engine.json"))
        },
    }


def same(a: dict, b: dict) -> None:
    assert (
        a["metrics"] == b["metrics"] and a["decisions"] == b["decisions"] and a["policies"] == b["policies"]
    )
    assert a["tensors"].keys() == b["tensors"].keys()
    assert [name for name in a["tensors"] if a["tensors"][name] != b["tensors"][name]] == []


@pytest.fixture(scope="module", params=["adapters", "shared"])
def straight(request, tmp_path_factory) -> tuple[Recipe, dict]:
    chosen = recipe(**SHARED) if request.param == "shared" else recipe()
    out = tmp_path_factory.mktemp("straight") / "run"
    run.train(chosen, out, nothing)
    return chosen, left(out)


def test_the_run_has_something_to_lose(straight):
    """The comparison below would pass on a run that trains nothing."""
    chosen, found = straight
    adapters = {name for name in found["tensors"] if "adapters/" in name}
    assert adapters == (
        {"engine/adapters/plan/adapter_model.safetensors", "engine/adapters/act/adapter_model.safetensors"}
        if chosen.layout == "adapters"
        else set()
    )
    assert any(
        line.get("grad_norm/plan", line.get("grad_norm/base", 0)) > 1e-4 and "kl/ref" in line
        for line in found["metrics"]
    )
    assert any(line.get("kl/ref", 0) > 1e-7 for line in found["metrics"])
    assert {line["stage"] for line in found["metrics"]} == set(range(len(chosen.stage)))


def test_sigterm_in_another_process_and_resume_in_this_one(straight, tmp_path):
    """The command line ends with 143 and says how to go on; what goes on here gets the bits that nothing
    interrupted got."""
    chosen, wanted = straight
    if chosen.layout == "shared":
        pytest.skip("a process takes seconds to begin; what is left to stop and go on is below")
    write_resolved(chosen, tmp_path / "recipe.json")
    out, log = tmp_path / "run", tmp_path / "run/metrics.jsonl"
    command = "import sys; from forethought.cli import main; sys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", command, "train", str(tmp_path / "recipe.json"), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while (
        time.monotonic() < deadline
        and child.poll() is None
        and (not log.exists() or len(lines_of_so_far(log)) < 7)
    ):
        time.sleep(0.002)
    child.send_signal(signal.SIGTERM)
    said, errors = child.communicate(timeout=60)
    assert child.returncode == 143, (child.returncode, said[-500:], errors[-2000:])
    assert f"forethought train --resume {out}" in said + errors
    run.resume(out, nothing)
    same(wanted, left(out))


def lines_of_so_far(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("stop", [7])
def test_sigterm_at_a_step_and_resume(straight, stop, tmp_path):
    """In the second stage, between two checkpoints."""
    chosen, wanted = straight
    same(wanted, stopped_once(chosen, tmp_path / "run", stop))


def stopped_once(chosen: Recipe, out: Path, stop: int) -> dict:
    def ask_to_stop(event):
        return (
            os.kill(os.getpid(), signal.SIGTERM)
            if event.kind in ("step", "eval") and event.step == stop
            else None
        )

    with pytest.raises(Interrupted, match=f"interrupted at step {stop}, everything is saved"):
        run.train(chosen, out, ask_to_stop)
    run.resume(out, nothing)
    return left(out)


@pytest.mark.parametrize("planner", [None, {"init": "small", "layers": 2, "width": 48, "mlp": 32}])
def test_a_model_for_each_role_stops_and_goes_on(planner, tmp_path):
    """A copy of the base that plans, and a planner of another width in an engine of its own."""
    fields = {
        "layout": "models",
        "stage": [
            {"kind": "imitate", "until": {"steps": 2}, "batch": 4, "optim": {"name": "muon", "lr": 5e-3}},
            {"kind": "imitate", "roles": ["plan"], "until": {"steps": 3}, "batch": 3, "optim": {"lr": 5e-3}},
        ],
    }
    chosen = recipe(**fields, **({"planner": planner} if planner else {}))
    run.train(chosen, tmp_path / "straight", nothing)
    wanted = left(tmp_path / "straight")
    weights = "plan/base/model.safetensors" if planner else "models/plan/model.safetensors"
    assert f"engine/{weights}" in wanted["tensors"]
    trained = [
        {name for name in ("base", "plan") if line.get(f"grad_norm/{name}", 0) > 1e-4}
        for line in wanted["metrics"]
    ]
    assert [names for names in trained if names] == [{"base", "plan"} if planner else {"base"}] * 2 + [
        {"plan"}
    ] * 3
    same(wanted, stopped_once(chosen, tmp_path / "run", 4))


@pytest.mark.parametrize("layout", ["adapters", "shared"])
def test_sigkill_at_random_moments(layout, tmp_path, monkeypatch):
    """No handler runs and no file is finished. Killed again and again, at any time, then left to end."""
    kit.lively(monkeypatch)
    chosen, began = (
        kit.recipe(kit.IMITATE, kit.PLAN | {"updates": 2}, kit.ACT, layout=layout),
        time.perf_counter(),
    )
    wanted, _ = kit.straight(chosen, tmp_path)
    seconds, out, moments, rng = time.perf_counter() - began, tmp_path / "run", [], random.Random()
    for _ in range(4):
        moments.append(rng.uniform(0.02, 0.5 * seconds))
        child = forked(lambda: go_on(chosen, out))
        time.sleep(moments[-1])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if out.exists() and not (out / "recipe.json").exists():
            shutil.rmtree(out)  # killed before the run had said what it is
    go_on(chosen, out)
    try:
        kit.same(wanted, kit.left(out))
    except AssertionError as e:
        raise AssertionError(f"killed after {moments} seconds each: {e}") from e


def go_on(chosen: Recipe, out: Path) -> None:
    if not (out / "recipe.json").exists():
        run.train(chosen, out, nothing)
    elif (latest := Store.open(out).latest()) is None or not latest[1]["progress"]["finished"]:
        run.resume(out, nothing)


def forked(work) -> int:
    """The id of a child process that does `work` and ends; nothing of pytest runs in it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child
