"""Killed at any moment: between two operations on the run's files, whichever they are. One straight run is
pictured (`resume_kit`), and its pictures are resumed. Adapters in bf16, a gate that rolls back and lowers the
rate, two updates a batch, a second adapter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import lines_of, nothing
from resume_kit import (
    ACT,
    IMITATE,
    PLAN,
    Moment,
    goes_on,
    gradients,
    left,
    lively,
    pictures,
    recipe,
    same,
    saved,
    some,
    straight,
)
from test_distill_stage import tables  # noqa: F401  a fixture

from forethought.engines.torch.forest.native.library import library, why_not
from forethought.look.measure import evaluate
from forethought.look.source import find
from forethought.recipe.convert import from_dict
from forethought.recipe.load import load as load_recipe
from forethought.recipe.load import write_resolved
from forethought.runs import run
from forethought.store import Store

GATE = {"metric": "eval/plan", "at_least": 1.0, "on_fail": "roll_back", "then": "lower_rate", "retries": 1}
CHOSEN = recipe(IMITATE, PLAN | {"updates": 2, "gates": [GATE]}, ACT)

NAMED = {  # moment -> (event, path)
    "the engine's files are being written": ("open", "checkpoints/.step-000006.tmp/engine/engine.json"),
    "its files are there, the loop's state is not": ("open", "checkpoints/.step-000006.tmp/state.json"),
    "the manifest is not there": ("open", "checkpoints/.step-000006.tmp/manifest.json"),
    "whole, and not yet renamed": ("os.rename", "checkpoints/step-000006"),
    "renamed, and nothing pruned": ("os.rmdir", "checkpoints/step-000002"),
    "a tree is being written": ("os.rename", "trees/step-000006.jsonl.gz"),
    "the summary is beside its place": ("os.rename", "summary.json"),
    "the report is not there": ("open", "report.html"),
}


@pytest.fixture(scope="module")
def pictured(tmp_path_factory) -> tuple[dict, list[Moment]]:
    """What the straight run left, and a picture of every moment of it (the files of a run are small)."""
    with pytest.MonkeyPatch.context() as patch:
        lively(patch)
        return straight(
            CHOSEN, tmp_path_factory.mktemp("pictured"), lambda moment: "tensorboard" not in moment.path
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    lively(monkeypatch)


def resumed(pictured, moment: Moment, tmp_path: Path) -> list[float]:
    return goes_on(replace(moment, folder=copied(moment, tmp_path / "killed")), pictured[0])


def copied(moment: Moment, folder: Path) -> Path:
    """A picture is resumed in a copy: other tests want it too."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(moment.folder, folder))


def test_the_run_has_something_to_lose(pictured):
    wanted, moments = pictured
    assert [d["outcome"] for d in wanted["decisions"] if d["kind"] in ("gate", "schedule")].count(
        "roll_back"
    ) == 2
    assert {line["stage"] for line in wanted["metrics"]} == {0, 1, 2} and len(wanted["trees"]) >= 3
    assert len(moments) > 150 and len({moment.newest for moment in moments}) > 8


@pytest.mark.parametrize("name", NAMED)
def test_killed_where(pictured, name, tmp_path):
    moment = [m for m in pictured[1] if (m.event, m.path) == NAMED[name]][-1]
    updates = resumed(pictured, moment, tmp_path)
    assert updates or moment.path in ("summary.json", "report.html")


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_a_moment_drawn_with_a_seed(pictured, seed, tmp_path):
    [moment] = some(seed, 1)(pictured[1])
    resumed(pictured, moment, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_killed_at_many_moments(pictured, seed, tmp_path):
    [moment] = some(seed, 1)(pictured[1])
    resumed(pictured, moment, tmp_path)


def test_killed_again_while_it_goes_on(pictured, tmp_path):
    """Pictured once more, in the resumed run, and once more in that one."""
    wanted, moments = pictured
    moment = next(m for m in moments if saved(3)(m))
    for n, step in enumerate((5, 8)):
        with pictures(moment.folder, tmp_path / str(n), saved(step)) as seen:
            run.resume(moment.folder, nothing)
        same(wanted, left(moment.folder))
        moment = next(m for m in seen if m.folder)
    assert goes_on(moment, wanted)


def test_a_roll_back_measures_what_the_anchor_measured(pictured):
    """The start of the stage, loaded again: the same scores, from the same bits."""
    rows = pictured[0]["metrics"]
    back = [line for line in rows if "rolled_back_to" in line]
    assert len(back) == 2
    for line in back:
        anchor = next(row for row in rows if row["step"] == line["rolled_back_to"] and "eval/plan" in row)
        scores = [k for k in anchor if k.startswith(("eval/", "eval_low/", "eval_high/", "eval_n/"))]
        assert scores and {k: line[k] for k in scores} == {k: anchor[k] for k in scores}


# In another process -----------------------------------------------------------------------------------------

ALONE = """
import sys
import pytest
from resume_kit import lively
from conftest import nothing, time_nothing
from pathlib import Path
from forethought.runs import run
from forethought.recipe.load import load
lively(pytest.MonkeyPatch())
time_nothing(pytest.MonkeyPatch())
recipe, straight, killed = map(Path, sys.argv[1:])
run.resume(killed, nothing)
run.train(load(recipe), straight, nothing)
"""


def test_other_processes_leave_the_same_files_whatever_their_hash_seed(pictured, tmp_path):
    """A process resumes a run that this one began, then makes the whole run itself: nothing that one of them
    has kept in memory, and no order of a set, is in a file."""
    moment = next(m for m in pictured[1] if saved(5)(m))
    write_resolved(CHOSEN, tmp_path / "recipe.json")
    env = os.environ | {
        "PYTHONHASHSEED": "77",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    command = [
        sys.executable,
        "-c",
        ALONE,
        str(tmp_path / "recipe.json"),
        str(tmp_path / "straight"),
        str(moment.folder),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    same(pictured[0], left(tmp_path / "straight"))
    same(pictured[0], left(moment.folder))
    assert load_recipe(moment.folder / "recipe.json") == CHOSEN and gradients(moment.folder, 5)


# On another machine -----------------------------------------------------------------------------------------


@pytest.mark.skipif(library() is None, reason=why_not())
def test_resumed_without_the_kernels_it_goes_on_and_says_that_its_bits_are_others_from_there_on(
    pictured, tmp_path, monkeypatch
):
    moment, notes = next(m for m in pictured[1] if saved(8)(m)), []
    shutil.copytree(moment.folder, tmp_path / "killed")
    monkeypatch.setenv("FORETHOUGHT_KERNELS", "0")
    library.cache_clear()
    try:
        run.resume(
            tmp_path / "killed", lambda event: notes.append(event.text) if event.kind == "note" else None
        )
    finally:
        monkeypatch.delenv("FORETHOUGHT_KERNELS")
        library.cache_clear()
    [said] = [d for d in lines_of(tmp_path / "killed" / "decisions.jsonl") if d["outcome"] == "elsewhere"]
    began = Store.open(moment.folder).latest()[1]["chosen"]
    moved = (
        "layers computed by: c before, torch now",
        "rows sampled by: c before, torch now",
        f"instructions of the products: {began['products']} before, none now",
        "kernels: c before, torch: switched off by FORETHOUGHT_KERNELS=0 now",
        f"build of the kernels: {began['kernels/build']} before, none now",
    )
    assert said["step"] == 8 and said["reason"] == (
        f"from step 8 on this run is not, bit for bit, the one that was never stopped: {'; '.join(moved)}"
    )
    assert said["reason"] in notes


def test_a_precision_that_auto_would_choose_otherwise_now_is_that_of_the_run(tmp_path, monkeypatch):
    """`auto` is chosen on the machine as it is: what it became stands in the checkpoint."""
    from forethought.engines.torch.machine import device as machine

    chosen = recipe(IMITATE, PLAN, engine={"precision": "auto", "threads": "auto"})
    monkeypatch.setattr(machine, "_fast_bf16", lambda: True, raising=False)
    wanted, (moment, *_) = straight(chosen, tmp_path, saved(4))
    record = json.loads((Store.open(moment.folder).latest()[0] / "state.json").read_text())["chosen"]
    monkeypatch.setattr(machine, "_fast_bf16", lambda: False, raising=False)
    assert goes_on(moment, wanted)
    assert Store.open(moment.folder).latest()[1]["chosen"] == record


# What is measured afterwards --------------------------------------------------------------------------------


def test_an_evaluation_of_the_run_measures_the_weights_that_the_run_measured(tmp_path, monkeypatch):
    """`forethought eval RUN`: the run's last numbers, and the same log-probs for the same requests, bit for
    bit."""
    from forethought.engines.torch.engine import TorchEngine

    asked, real = [], TorchEngine.sample

    def sample(self, requests):
        out = real(self, requests)
        asked.append((list(requests), [[(c.token_ids, c.logprobs) for c in row] for row in out]))
        return out

    monkeypatch.setattr(TorchEngine, "sample", sample)
    out = tmp_path / "run"
    chosen = recipe(IMITATE | {"until": {"steps": 12}, "batch": 16}, PLAN, eval={"tasks": 4, "every": 0})
    run.train(chosen, out, nothing)
    last = next(line for line in reversed(lines_of(out / "metrics.jsonl")) if "eval/plan" in line)
    monkeypatch.setattr(TorchEngine, "sample", real)
    measured = evaluate(find(out))
    assert {side: measured[side]["value"] for side in ("plan", "act", "e2e")} == {
        side: last[f"eval/{side}"] for side in ("plan", "act", "e2e")
    }
    source = find(out)
    engine = source.open(run.build(chosen)[1].taskset)
    final = [said for said in asked if said[0][0].temperature == 0.0][-1]
    again = engine.sample(final[0])
    assert [[(c.token_ids, c.logprobs) for c in row] for row in again] == final[1] and any(
        len(row[0][0]) > 1 for row in final[1]
    )


# A stage that distils ---------------------------------------------------------------------------------------


def test_killed_around_a_stage_that_distils(tables, tmp_path):  # noqa: F811  a fixture
    """Its checkpoint has the step of the next stage's start, which is saved over it: between the two renames
    it has no name."""
    stages = [{"kind": "distill"}, {"kind": "imitate", "until": {"steps": 3}, "batch": 2}]
    chosen = from_dict(
        tables | {"engine": {"device": "cpu", "precision": "bf16", "threads": 1}, "stage": stages}
    )
    renames = lambda m: m.event == "os.rename" and m.path == "checkpoints/step-000000"  # noqa: E731
    wanted, moments = straight(
        chosen, tmp_path, lambda m: renames(m) or saved(1)(m) or m.path.startswith("guided/stage-0")
    )
    assert [
        m
        for m in moments
        if renames(m) and m.newest == -1 and (m.folder / "checkpoints" / ".step-000000.old").exists()
    ]
    for moment in (
        [m for m in moments if renames(m)][-1:]
        + [m for m in moments if saved(1)(m)][:1]
        + some(1, 2)(moments)
    ):
        goes_on(replace(moment, folder=copied(moment, tmp_path / "resumed")), wanted)
