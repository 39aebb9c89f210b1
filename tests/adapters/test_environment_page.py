"""docs/external-environments.md: its code runs, its recipes are recipes, its examples train, and the numbers
of lines are those of the folders."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from adapters_kit import EXAMPLES, served

from forethought.core.types import Event
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict
from forethought.recipe.load import load
from forethought.runs.run import train

PAGE = EXAMPLES.parent / "docs" / "external-environments.md"
FOLDERS = ("gymnasium", "trl_environment", "mcp", "openenv", "verifiers")
NODE = ("playwright",)  # needs a browser: tests/adapters/test_playwright.py
NEEDS = {
    "gymnasium": "gymnasium",
    "mcp": "mcp.server.mcpserver",
    "openenv": "openenv.core",
    "verifiers": "verifiers.v1",
}
SMALL = {
    "model.path=''", "model.init=small", "model.layers=2", "model.width=64", "model.mlp=128",
    "model.vocabulary=600", "layout=shared", "eval.tasks=2", "task.budgets.act=24",
}  # fmt: skip


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def is_there(package: str) -> bool:
    try:
        import_module(package)
    except ImportError:  # also of one that is there beside a wrong version of something else
        return False
    return True


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, names = blocks("python"), {}
    assert len(found) == 5
    assert len(found[0].strip().splitlines()) <= 20
    (tmp_path / "env.py").write_text(found[0], encoding="utf-8")
    for block in found[1:]:
        if "# needs gymnasium" not in block or is_there("gymnasium"):
            exec(compile(block, str(PAGE), "exec"), names)


def test_the_recipes_of_the_page_are_recipes():
    found = blocks("toml")
    assert len(found) == 2
    for text in found:
        recipe = from_dict(tomllib.loads(text))
        check(recipe)
        assert recipe.workflow.name == "act_only"


@pytest.mark.parametrize("folder", [*FOLDERS, *NODE])
def test_the_lines_of_an_example_are_counted(folder):
    def lines(path: Path) -> int:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'""".*?"""', "", text, flags=re.S) if path.suffix == ".py" else text
        return sum(bool(line.strip()) for line in text.splitlines())

    code = sorted((EXAMPLES / folder).glob("*.py"))
    said = sum(map(lines, code))
    row = f"| `{folder}/` | {lines(EXAMPLES / folder / 'recipe.toml')} | {said or '0'} |"
    assert row in PAGE.read_text(encoding="utf-8")


@contextmanager
def begun(folder: str) -> Iterator[list[str]]:
    """Settings with which an example can be run here: OpenEnv's needs its server."""
    if folder != "openenv":
        yield []
        return
    with served(str(EXAMPLES / folder / "server.py"), "PORT") as address:
        yield [f"task.environment={address}"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_example_trains(folder, tmp_path):
    """Its own recipe, with a model from scratch and few episodes."""
    package = NEEDS.get(folder)
    if package and not is_there(package):
        pytest.skip(f"needs the extra of {folder}: {package} is not installed")
    with begun(folder) as more:
        small = {s for s in SMALL if "budgets" not in s} if folder == "gymnasium" else SMALL
        stages = 2 if folder == "gymnasium" else 1
        short = [f"stage.{i}.until.steps=2" for i in range(stages)]
        short += [f"stage.{i}.batch=2" for i in range(stages)] + [f"stage.{stages - 1}.tree.act=2"]
        recipe = load(str(EXAMPLES / folder / "recipe.toml"), [*sorted(small), *short, *more])
        events: list[Event] = []
        train(recipe, tmp_path / "run", events.append)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    stepped = [row for row in rows if "reward/act.legal" in row]
    assert len(stepped) == 2 and all(row["failed/act"] == 0.0 for row in stepped)
    assert all(row["eval/e2e"] == 0.0 for row in rows if "eval/e2e" in row) or folder == "verifiers"
