"""docs/text.md and docs/from-trl.md: their recipes and functions, as they stand there."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from forethought.recipe.check import check
from forethought.recipe.convert import from_dict
from forethought.recipe.options import names
from forethought.recipe.options.texts import Text as Table
from forethought.recipe.speaking import roles_of
from forethought.tasks.text.graders import GRADERS
from forethought.tasks.text.taskset import Text

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["text.md", "from-trl.md"])
def test_the_recipe_of_the_page(page, tmp_path):
    text = (DOCS / page).read_text()
    [said] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    recipe = from_dict(tomllib.loads(said))
    check(recipe)
    assert roles_of(recipe) == ("act",) and len(said.splitlines()) <= 15
    data = tmp_path / "data.jsonl"
    rows = [{"question": f"{i} + 1 = ?", "prompt": f"{i}", "answer": i + 1} for i in range(4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Text((), **{**recipe.task.options, "train": str(data)}).pool(0, "train")


def test_the_function_of_the_page():
    [code] = re.findall(r"```python\n(.*?)```", (DOCS / "text.md").read_text(), re.DOTALL)
    page: dict = {}
    exec(compile(code, "docs/text.md", "exec"), page)
    assert page["short"](completions=["", "x" * 400]) == [1.0, 0.0]


def test_the_page_of_a_minute_runs_as_it_stands(tmp_path, monkeypatch):
    """All of its files, with fewer steps."""
    pytest.importorskip("torch")
    from forethought.cli import main
    from forethought.recipe.load import load
    from forethought.runs import run

    monkeypatch.chdir(tmp_path)
    page = (DOCS / "minute.md").read_text()
    for code in re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", page, re.DOTALL):
        Path(code[0]).write_text(code[1])
    exec(compile(Path("make.py").read_text(), "make.py", "exec"), {})
    assert main(["check", "small.toml"]) == 0
    few = [
        "stage.0.until.steps=2",
        "stage.1.until.steps=1",
        "stage.1.batch=4",
        "eval.tasks=4",
        "eval.every=0",
    ]
    run.train(load("small.toml", few), Path("run"), lambda event: None)
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert "eval/e2e" in rows[-1] and 0 <= rows[-1]["reward/act.brief"] <= 1


def test_the_page_names_every_option_and_every_grader():
    text = (DOCS / "text.md").read_text()
    assert [name for name in (*names(Table), *GRADERS) if f"`{name}`" not in text] == []
