"""Trackers: what they get, that none of them ends a run, and each row against its real package."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, node, nothing

from forethought.core.errors import RecipeError
from forethought.core.types import Node, Task, Tree
from forethought.recipe import check
from forethought.runs import run, trackers
from forethought.runs.trackers import ROWS, Trackers, makers, sample_text, tags

PLAN = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 2},
    "batch": 2,
    "tree": {"plan": 3, "act": 1},
}


def recipe_with(*names: str):
    return replace(desk_recipe(PLAN), trackers=names)


def trained(out: Path, *names: str) -> list[str]:
    notes: list[str] = []
    found = run.train(
        recipe_with(*names), out, lambda e: notes.append(e.text) if e.kind == "note" else None, fake_desk()
    )
    assert found.status == "done"
    return [note for note in notes if "tracker" in note]


def test_the_names_that_recipes_know_are_the_rows():
    assert check.TRACKERS == (trackers.AUTO, *ROWS)


def test_tags_leave_intervals_out_and_group_levels():
    line = {
        "step": 3,
        "stage_name": "plan",
        "eval/plan": 0.5,
        "eval/plan@3": 0.25,
        "eval_low/plan@3": 0.1,
        "eval_high/plan": 0.9,
        "eval_n/plan": 100,
        "eval_change/plan": 0.1,
        "eval_change_low/plan": 0.0,
        "interference_high/act": 0.0,
        "curriculum/reward@2": 0.5,
        "lr": 1e-3,
        "flag": True,
    }
    assert tags(line) == {
        "step": 3,
        "eval/plan": 0.5,
        "eval_by_level/plan/3": 0.25,
        "eval_change/plan": 0.1,
        "curriculum_by_level/reward/2": 0.5,
        "lr": 1e-3,
    }


def test_a_sample_is_the_first_path():
    task = Task(id="t", taskset="desk", level=1, context="", prompt="GOAL")
    nodes = (
        Node(id=0, parent=None, role=None, text="GOAL", token_ids=(1,)),
        node(1, 0, "plan", 2, reward=0.5),
        node(2, 0, "plan", 2, reward=0.0),
        node(3, 1, "act", 2, reward=1.0),
    )
    assert sample_text(Tree(task=task, nodes=nodes)) == (
        "**prompt**\n\n```\nGOAL\n```\n\n**plan** (reward 0.5)\n\n```\nplan1\n```\n\n"
        "**act** (reward 1)\n\n```\nact3\n```"
    )


def test_the_tracker_of_the_page(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "lines.py").write_text(code)
    assert trained(tmp_path / "run", f"{tmp_path}/lines.py:Lines") == []
    lines = (tmp_path / "run" / "lines.txt").read_text().splitlines()
    assert lines[0].startswith("0 0.") and lines[-1] == "done"
    assert re.fullmatch(r"1 sample \d+ characters", lines[2])
    assert [line.split()[0] for line in lines if line[0].isdigit()] == ["0", "1", "1", "2", "2"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def __init__(self, begun): raise RuntimeError('no network')", "RuntimeError: no network"),
        ("def __init__(self): pass", "TypeError: "),
        ("def __init__(self, begun): pass\n    def numbers(self, step, values): 1 / 0", "ZeroDivisionError"),
        ("def __init__(self, begun): raise SystemExit('log in first')", "SystemExit: log in first"),
    ],
)
def test_a_tracker_that_fails_is_told_once_and_ends_no_run(tmp_path, body, says):
    others = ("numbers(self, step, values)", "text(self, step, tag, text)", "close(self, status)")
    whole = "".join(f"    def {one}: pass\n" for one in others)
    (tmp_path / "bad.py").write_text(f"class Bad:\n{whole}    {body}\n")
    (note,) = trained(tmp_path / "run", f"{tmp_path}/bad.py:Bad")
    assert says in note and note.endswith("the run goes on without it")


def test_what_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "_installed", lambda package: False)
    assert makers(["auto"]) == {}
    for name, message in (
        ("wandb", "trackers.0: 'wandb' needs its package: pip install \"forethought[wandb]\""),
        ("wanbd", "trackers.0: unknown tracker 'wanbd'; did you mean 'wandb'?"),
        (f"{tmp_path}/none.py:X", "does not exist"),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            run.train(recipe_with(name), tmp_path / "run", nothing, fake_desk())
        assert not (tmp_path / "run").exists()


def test_a_start_knows_the_run_again(tmp_path):
    one, two = (trackers.begun_of(recipe_with("auto"), tmp_path / "run", step) for step in (0, 7))
    other = trackers.begun_of(recipe_with("auto"), tmp_path / "other", 0)
    assert one.id == two.id != other.id and two.step == 7
    assert one.config["stage.0.optim.lr"] == 3e-4 and one.config["task.levels"] == "1 2"


# Each row, against its package ------------------------------------------------------------------------------


def test_tensorboard(tmp_path):
    event_files = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert trained(tmp_path / "run", "tensorboard") == []
    seen = event_files.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    seen.Reload()
    scalars = seen.Tags()["scalars"] + seen.Tags()["tensors"]
    assert "eval_by_level/plan/2" in scalars and not [tag for tag in scalars if "_low" in tag or "@" in tag]
    assert "_hparams_/session_start_info" in seen.summary_metadata
    assert "sample/text_summary" in scalars


def test_wandb_without_an_account(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    assert trained(tmp_path / "run", "wandb") == []
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    assert b"eval_by_level" in log.read_bytes()


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    import sqlite3

    assert trained(tmp_path / "run", "trackio") == []
    (path,) = Path(tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(path) as db:
        rows = [(step, json.loads(said)) for step, said in db.execute("select step, metrics from metrics")]
    steps = {step for step, said in rows if "eval/plan" in said}
    assert steps == {0, 2}


def test_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert trained(tmp_path / "run", "mlflow") == []
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("made").experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["stage.0.batch"] == "2"
    assert [m.step for m in client.get_metric_history(found.info.run_id, "eval/plan")] == [0, 2]
    with Trackers(makers(["mlflow"]), tmp_path / "run", recipe_with("mlflow")) as again:
        again.open(2, pytest.fail)
        again.write(3, {"eval/plan": 1.0})
    assert [m.step for m in client.get_metric_history(found.info.run_id, "eval/plan")] == [0, 2, 3]


def test_a_tracker_that_lacks_methods_is_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "t.py").write_text(
        "class Half:\n    def __init__(self, begun): pass\n    def numbers(self, step, values): pass\n"
        "def made(begun):\n    return Half(begun)\n"
    )
    with pytest.raises(RecipeError, match=r"^trackers\.0: .*t\.py:Half has no text\(\) or close\(\)"):
        makers([f"{tmp_path}/t.py:Half"])
    [told] = trained(tmp_path / "run", f"{tmp_path}/t.py:made")  # a function has to be called first
    assert told.endswith("has no text() or close()); the run goes on without it")
