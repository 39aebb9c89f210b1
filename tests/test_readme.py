"""What the README promises can be typed: every command parses, every shipped recipe runs, every script it names is there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from forethought import cli
from forethought.recipe.load import load, shipped

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = ["eval.tasks=2", "engine.threads=1", "model.layers=2", "model.width=64", "model.mlp=64"]


def commands() -> list[str]:
    """Every `forethought ...` of the README's code, without its comment; alternatives and options in brackets are taken in turn."""
    code = re.findall(r"^```\n(.*?)^```", README, re.S | re.M) + re.findall(r"`(forethought [^`]+)`", README)
    lines = [line.split("#")[0].strip() for block in code for line in block.splitlines()]
    found = {part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("forethought ")}
    return sorted(c for c in found if "DIR DIR ..." not in c)


def test_the_first_screen_has_the_two_commands():
    first = README[: README.index("## ")]
    assert re.search(r"^pip install .*&& forethought train$", first, re.M)
    assert len(re.findall(r"^pip install .*&& pytest$", README, re.M)) == 1 and "&& pytest" in first
    assert "&& *pytest" in (ROOT / ".ci/run").read_text()  # CI runs that very line


@pytest.mark.parametrize("command", commands())
def test_every_command_parses(command):
    plain = re.sub(r"\[(RECIPE|NAME)\]", "desk", command)
    words = [w for w in shlex.split(re.sub(r"[\[\]]", "", plain))[1:]]
    values = {"K=V": "seed=1", "N": "3", "RUN": "runs/desk-1", "DIR": "runs/desk-1", "FILE": "problems.jsonl", "FILE.jsonl": "problems.jsonl",
              "PATH": "model"}
    args = cli._parser().parse_args([values.get(w, w) for w in words])
    assert callable(args.do)


def test_every_script_and_page_it_names_exists():
    named = set(re.findall(r"(?:benchmarks|docs|examples|forethought|recipes)/[\w/.]+\.(?:py|md|toml)", README))
    assert {"benchmarks/steps.py", "benchmarks/recipes.py", "examples/one_file_grpo.py", "docs/design.md"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("name", [name for name, _, _ in shipped()])
def test_every_recipe_runs_through_all_its_stages(name, tmp_path, capsys):
    recipe = load(name)
    steps = [f"stage.{i}.until.steps=2" for i in range(len(recipe.stage))] + [f"stage.{i}.batch=8" for i in range(len(recipe.stage))]
    code = cli.main(["train", name, "--plain", "--out", str(tmp_path / "run"), *(x for s in SMALL + steps for x in ("--set", s))])
    assert code == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    levels = load(name).task.levels
    assert {"eval/plan", "eval/act", "eval/e2e", *(f"eval/act@{level}" for level in levels)} <= set(lines[-1])
    assert {line["stage"] for line in lines} == set(range(len(recipe.stage)))
    assert (tmp_path / "run/report.html").stat().st_size > 10_000 and (tmp_path / "run/decisions.jsonl").exists()
    assert next((tmp_path / "run/tensorboard").iterdir()).stat().st_size > 0
    assert cli.main(["eval", str(tmp_path / "run"), "--json", "--tasks", "2"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found["plan"]) == {"value", "low", "high", "n", "by_level"} and set(found) == {"plan", "act", "e2e"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_recipe_keeps_its_promise(seed, tmp_path):
    assert cli.main(["train", "--plain", "--seed", str(seed), "--out", str(tmp_path / "run")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    before = next(line for line in lines if line["stage"] == 1)
    assert lines[-1]["eval/e2e@5"] >= 0.85 and abs(lines[-1]["eval/act@5"] - before["eval/act@5"]) <= 0.01
