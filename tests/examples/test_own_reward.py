"""`examples/own_reward` and `examples/own_reward_with_plans`: short, their data as their makers write them,
and a few steps of each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch_kit  # noqa: F401  one thread
from conftest import lines_of, nothing

from forethought.recipe.load import load
from forethought.runs import run

EXAMPLES = Path(__file__).parents[2] / "examples"
PAID = {
    "own_reward": ["reward/act.close"],
    "own_reward_with_plans": ["reward/plan.names_the_numbers", "reward/act.close"],
}


def code(path: Path) -> int:
    """Lines that say something."""
    return sum(bool(line.strip()) and not line.startswith("#") for line in path.read_text().splitlines())


@pytest.mark.parametrize("name", PAID)
def test_a_folder_is_short_and_its_data_are_what_its_maker_writes(name, tmp_path):
    folder = EXAMPLES / name
    assert code(folder / "recipe.toml") + code(folder / "rewards.py") <= 26
    maker = tmp_path / "make_data.py"
    maker.write_text((folder / "make_data.py").read_text())
    subprocess.run([sys.executable, maker], check=True)
    assert (tmp_path / "data.jsonl").read_text() == (folder / "data.jsonl").read_text()


@pytest.mark.parametrize("name", PAID)
def test_some_steps_of_it(name, tmp_path):
    short = ["stage.0.until.steps=40", "stage.1.until.steps=2", "eval.tasks=4", "eval.every=0"]
    recipe = load(EXAMPLES / name / "recipe.toml", short)
    run.train(recipe, tmp_path / "out", nothing)
    [*_, line] = lines_of(tmp_path / "out" / "metrics.jsonl")
    assert all(line[metric] > 0 for metric in PAID[name]) and line["failed/act"] == 0
    assert "eval/e2e" in line
