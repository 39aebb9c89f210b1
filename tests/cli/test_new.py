"""`forethought new`: files that are fine, train on the first try, and never replace what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import fake_desk, lines_of, nothing

from forethought.cli import main
from forethought.cli.new import KINDS
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.load import load
from forethought.recipe.speaking import roles_of
from forethought.runs import run

FEW = ["stage.0.until.steps=1", "stage.1.until.steps=1", "stage.0.batch=8", "stage.1.batch=2", "eval.tasks=2"]


def engine(recipe, taskset):
    roles = roles_of(recipe)
    return FakeEngine(taskset.words(roles), {role: taskset.stop(role) for role in roles})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_fine_and_trains(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", kind, "my_thing"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "next: forethought train my_thing.toml"
    assert {path.name for path in tmp_path.iterdir()} == {"my_thing.toml", "my_thing.py"} - (
        {"my_thing.py"} if kind == "recipe" else set()
    )
    for path in tmp_path.iterdir():
        assert not {"NAME", "CLASS"} & set(path.read_text().replace(".", " ").split()), path
    assert main(["check", "my_thing.toml"]) == 0
    if kind == "task":
        assert main(["check", "my_thing.py"]) == 0
    own = {"reward": fake_desk(), "environment": run.torch_engine}.get(kind, engine)  # free text has no words
    run.train(load("my_thing.toml", FEW), tmp_path / "run", nothing, own)
    steps = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if "tokens/sampled" in line]
    assert len(steps) == 1
    if kind == "environment":  # a class and the recipe that uses it
        body = Path("my_thing.py").read_text().partition("class ")[2].splitlines()
        assert len([line for line in body if line.strip()]) <= 12 and "reward/act" in steps[0]
    if kind == "reward":
        assert 0 <= steps[0]["reward/act.my_thing"] <= 1


@pytest.mark.slow
def test_the_environment_is_learned_as_the_docs_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "environment", "mine"]) == 0
    run.train(load("mine.toml"), tmp_path / "run", nothing)
    found = [line["eval/e2e"] for line in lines_of(tmp_path / "run" / "metrics.jsonl") if "eval/e2e" in line]
    assert found[0] == 0 and found[-1] == 1


def test_nothing_is_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("keep")
    assert main(["new", "task", "mine"]) == 2
    assert "mine.toml is there already" in capsys.readouterr().err
    assert not (tmp_path / "mine.py").exists() and (tmp_path / "mine.toml").read_text() == "keep"
    assert main(["new", "task", "mine", "--to", "deep/er"]) == 0
    assert sorted(path.name for path in Path("deep/er").iterdir()) == ["mine.py", "mine.toml"]
    assert main(["new", "task", "other", "--to", "mine.toml"]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["My", "a-b", "1a", "class", "../x", ""])
def test_a_name_that_no_python_file_can_have_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "reward", name]) == 2
    assert "use a lower-case word such as my_reward" in capsys.readouterr().err and not list(
        tmp_path.iterdir()
    )
