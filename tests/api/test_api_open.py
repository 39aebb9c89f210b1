"""`ft.open`: a run, read, and what the other verbs make of it."""

from __future__ import annotations

import builtins
import json

import pytest
from conftest import desk_recipe, fake_desk, lines_of

import forethought as ft
from forethought.look import evaluate, find, sample

ENGINE = {"engine_of": fake_desk()}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> ft.Run:
    recipe = desk_recipe(
        {"kind": "imitate", "until": {"steps": 3}, "batch": 4, "optim": {"lr": 5.0, "warmup": 0}},
        {"kind": "reinforce", "roles": ["plan"], "until": {"steps": 2}, "batch": 2},
    )
    return ft.train(recipe, out=tmp_path_factory.mktemp("api") / "run", progress=False, **ENGINE)


def test_what_a_run_says(run):
    opened = ft.open(str(run.path))
    assert repr(opened) == f"Run({str(run.path)!r}, done)"
    assert opened.recipe == run.recipe and opened.recipe.name == "made"
    assert opened.metrics() == lines_of(run.path / "metrics.jsonl")
    assert opened.decisions() == lines_of(run.path / "decisions.jsonl")
    assert opened.summary["stages"][1]["kind"] == "reinforce"
    assert [one.step for one in opened.checkpoints()] == sorted(
        int(path.name[5:]) for path in (run.path / "checkpoints").iterdir()
    )
    assert opened.checkpoints()[-1].path.name == "step-000005"
    trees = list(opened.trees())
    assert trees and {tree["step"] for tree in trees} > {5} == {tree["step"] for tree in opened.trees(5)}
    assert opened.report().read_text(encoding="utf-8").startswith("<!doctype html>")


def test_numbers_are_those_of_the_command_line(run):
    assert run.evaluate(**ENGINE) == evaluate(find(run.path), **ENGINE)
    assert ft.evaluate(run.path, tasks=1, levels=[2], **ENGINE)["e2e"]["n"] == 1
    early = run.checkpoints()[0]
    assert run.evaluate(step=early.step, **ENGINE)["e2e"] == ft.evaluate(early.path, **ENGINE)["e2e"]
    assert run.sample(n=2, **ENGINE) == sample(find(run.path), n=2, **ENGINE)
    (table,) = ft.swap(*(one.path for one in run.checkpoints()[-2:]), **ENGINE)
    assert table["n"] == 4
    assert ft.evaluate(run, samples=2, **ENGINE)["settings"]["temperature"] == 0.6


def test_compare_writes_one_page(run, tmp_path):
    other = ft.train(run.recipe, out=tmp_path / "other", seed=1, progress=False, **ENGINE)
    assert ft.compare(run, other.path, out=tmp_path / "page.html").is_file()


@pytest.mark.parametrize("made", ["", "empty", "file"])
def test_what_is_no_run(tmp_path, made):
    path = tmp_path / "x"
    if made == "file":
        path.write_text("x")
    elif made:
        path.mkdir()
    with pytest.raises(ft.UserError, match="x is not a run"):
        ft.open(path)
    with pytest.raises(ft.UserError):
        ft.evaluate(path)


def test_what_is_no_source():
    with pytest.raises(ft.UserError, match="give a run, a folder or a model's name, not a int"):
        ft.evaluate(3)


def test_damage_is_named(run, tmp_path):
    import shutil

    shutil.copytree(run.path, tmp_path / "run")
    damaged = ft.open(tmp_path / "run")
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write("{]\n")
    with pytest.raises(ft.UserError, match="metrics.jsonl"):
        damaged.metrics()
    said = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "summary.json").write_text(json.dumps(said | {"step": 99}))
    with pytest.raises(ft.UserError, match="summary.json is not what was written"):
        damaged.summary  # noqa: B018
    assert damaged.status == "running"


def test_a_frame_needs_pandas(run, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ft.UserError, match="pip install pandas"):
        run.frame()


def test_a_frame_where_pandas_is_installed(run):
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert run.frame()["step"].tolist() == [line["step"] for line in run.metrics()]
