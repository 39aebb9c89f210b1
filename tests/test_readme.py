"""What the README promises can be typed: every command parses, every shipped recipe runs, every script it
names is there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from forethought import cli
from forethought.recipe.check import check
from forethought.recipe.load import load, shipped
from forethought.recipe.schema import Recipe
from forethought.recipe.speaking import roles_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = README + (ROOT / "docs/commands.md").read_text(encoding="utf-8")
SMALL = ["eval.tasks=2", "engine.threads=1", "model.layers=2", "model.width=64", "model.mlp=64"]


def commands() -> list[str]:
    """Every `forethought ...` in the code of README and of the page of commands, without its comment; of
    alternatives the first, and options in brackets as if they stood there."""
    code = re.findall(r"^```\n(.*?)^```", PAGE, re.S | re.M) + re.findall(r"`(forethought [^`]+)`", PAGE)
    lines = [line.split("#")[0].strip() for block in code for line in block.splitlines()]
    found = {
        part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("forethought ")
    }
    return sorted(c for c in found if "DIR DIR ..." not in c)


def test_the_first_screen_has_the_two_commands():
    first = README[: README.index("## ")]
    assert re.search(r"^pip install .*&& forethought train$", first, re.M)
    assert len(re.findall(r"^pip install .*&& pytest$", README, re.M)) == 1 and "&& pytest" in first
    assert "&& *pytest" in (ROOT / ".ci/run").read_text()  # CI runs that very line


@pytest.mark.parametrize("command", commands())
def test_every_command_parses(command):
    plain = re.sub(r"(?<= )(\w+)(?:\\?\|\w+)+", r"\1", re.sub(r"\[(RECIPE|NAME)\]", "desk", command))
    words = [w for w in shlex.split(re.sub(r"[\[\]]", "", plain))[1:]]
    values = {
        "K=V": "seed=1",
        "N": "3",
        "S": "2",
        "RUN": "runs/desk-1",
        "DIR": "runs/desk-1",
        "FILE": "problems.jsonl",
        "FILE.jsonl": "problems.jsonl",
        "PATH": "model",
    }
    args = cli._parser().parse_args([values.get(w, w) for w in words])
    assert callable(args.do)


def test_the_front_page_is_short():
    assert README.count("\n") <= 120


def test_every_script_and_page_it_names_exists():
    named = set(
        re.findall(r"(?:benchmarks|docs|examples|forethought|recipes)/[\w/.]+\.(?:py|md|toml)", README)
    )
    assert {
        "benchmarks/recipes.py",
        "examples/one_file_grpo.py",
        "docs/design.md",
    } <= named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("name", [name for name, _, _ in shipped()])
def test_every_recipe_runs_through_all_its_stages(name, tmp_path, capsys):
    recipe = load(name)
    sets = SMALL + [
        f"stage.{i}.{change}"
        for i, stage in enumerate(recipe.stage)
        if stage.kind != "distill"
        for change in ("until.steps=2", "batch=8", *(["phases=2"] if stage.kind == "webrl" else []))
    ]
    model = [] if recipe.task.name != "math" else math_at_hand(recipe, tmp_path, sets)
    if recipe.model.path and not model:
        model = ["--model", str(chat_at_hand(tmp_path / "model"))]
        sets += ["eval.give_up=0"]  # a random model ends nothing
    code = cli.main(
        [
            "train",
            name,
            "--plain",
            "--out",
            str(tmp_path / "run"),
            *model,
            *(x for s in sets for x in ("--set", s)),
        ]
    )
    assert code == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first, *_, last = roles = roles_of(recipe)
    # public math problems have no oracle's plan to act under
    later = roles[1:] if recipe.task.name != "math" else ()
    acts = [f"eval/{role}{at}" for role in later for at in ("", *(f"@{n}" for n in recipe.task.levels))]
    assert {f"eval/{first}", "eval/e2e", *acts} <= set(lines[-1])
    assert {line["stage"] for line in lines} == set(range(len(recipe.stage)))
    assert (tmp_path / "run/report.html").stat().st_size > 10_000 and (
        tmp_path / "run/decisions.jsonl"
    ).exists()
    assert cli.main(["eval", str(tmp_path / "run"), "--json", "--tasks", "2"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    groups = {"by_level", "by_task"} if recipe.task.name in ("web", "screens") else {"by_level"}
    assert set(found[first]) == {"value", "low", "high", "n", *groups} and set(found) >= {
        first,
        "e2e",
        *([last] if len(later) == 1 else []),
    }


def chat_at_hand(folder: Path) -> Path:
    """A tiny model with a chat template, in place of one of the hub."""
    pytest.importorskip("torch")
    from chat_kit import engine

    made = engine("qwen2_5")
    made.weights.base.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder


def math_at_hand(recipe: Recipe, folder: Path, sets: list[str]) -> list[str]:
    """Free text without a download: a tiny model that reads bytes, and problem files, in place of those of
    the hub. Adds to `sets`; returns what the command line says of the model."""
    solved = "She has {a} and gets {b}.\n{a} + {b} = <<{a}+{b}={c}>>{c}"
    rows = {
        kind: [
            {
                "problem": f"Ann, number {i} of {kind}, has {i} nuts and gets {j} more. How many?",
                "answer": str(i + j),
                "level": 1 + i % 2,
                "solution": solved.format(a=i, b=j, c=i + j),
            }
            for i, j in zip(range(12), range(3, 15), strict=True)
        ]
        for kind in ("train", "test", "demos")
    }
    for kind, some in rows.items():
        (folder / f"{kind}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in some), encoding="utf-8"
        )
    sets += [
        f"task.train={folder / 'train.jsonl'}",
        f"task.eval=['{folder / 'test.jsonl'}']",
        "task.budgets={ plan = 16, act = 24 }",
        "task.grader=exact",
        "engine.device=cpu",
        "engine.precision=fp32",
    ]
    if recipe.task.levels:
        sets.append("task.levels=[1, 2]")
    if "demos" in recipe.task.options:
        sets.append(f"task.demos={folder / 'demos.jsonl'}")
    for i, stage in enumerate(recipe.stage):
        if stage.kind == "distill":  # a random model writes no plans; the rules do
            sets += [f"stage.{i}.distill.summariser=rules", f"stage.{i}.distill.problems=12"]
        if stage.kind == "reinforce":
            sets += [f"stage.{i}.batch=2"]
    if not recipe.model.path:
        return []
    from torch_kit import bpe_of, model_of, on_disk

    tokenizer = bpe_of([row["problem"] for row in rows["train"]], 300)
    return [
        "--model",
        on_disk(
            folder / "model",
            model_of("qwen2", vocab_size=len(tokenizer), max_position_embeddings=2048),
            tokenizer,
        ),
    ]


# The published setting --------------------------------------------------------------------------------------


def test_pta_grpo_on_math_is_the_published_setting():
    """arXiv 2510.01833, A.10: what the paper gives, number by number."""
    recipe = load("pta-grpo-math")
    check(recipe)
    distil, imitate, reinforce = recipe.stage
    assert (distil.kind, imitate.kind, reinforce.kind) == ("distill", "imitate", "reinforce")
    assert recipe.model.path == "Qwen/Qwen2.5-7B-Instruct" and recipe.layout == "shared"
    assert (
        recipe.task.options["train"] == "hub:zwhe99/DeepMath-103K:train[:60000]"
        and recipe.task.options["demos"]["most"] == 10_000
    )
    assert sum(recipe.task.options["budgets"].values()) == 3584
    assert abs(imitate.until.steps * imitate.batch - 3 * 10_000) < imitate.batch
    tree, optim = reinforce.tree, reinforce.optim
    assert (tree.counts["plan"], tree.counts["act"], tree.temperature, tree.top_p) == (
        4,
        3,
        1.0,
        1.0,
    ) and reinforce.batch == 128
    assert (optim.name, optim.lr, optim.weight_decay, optim.warmup) == (
        "adamw",
        1e-6,
        0.01,
        0,
    ) and reinforce.until.steps == 350
    assert reinforce.reward == {
        "plan": {"analytic": 0.5},
        "act": {"outcome": 1, "structure": 0.2, "length": 0.1},
    }
    assert reinforce.credit.name == "grpo" and set(imitate.roles) == set(reinforce.roles) == {"plan", "act"}


def test_the_commands_for_the_papers_other_models_are_recipes():
    """As they stand in the recipe's comments."""
    text = (ROOT / "recipes/pta-grpo-math.toml").read_text(encoding="utf-8")
    found = {}
    for line in re.findall(r"#   forethought (train pta-grpo-math .*?)(?:   |$)", text, re.M):
        args = cli._parser().parse_args(shlex.split(line))
        recipe = load(args.recipe, args.overrides)
        check(recipe)
        found[args.model] = (recipe.stage[2].until.steps, sum(recipe.task.options["budgets"].values()))
    assert found == {
        "meta-llama/Llama-3.2-3B-Instruct": (350, 3584),
        "Qwen/Qwen3-8B": (150, 4608),
        "Qwen/Qwen3-14B": (50, 3584),
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_recipe_keeps_its_promise(seed, tmp_path):
    assert cli.main(["train", "--plain", "--seed", str(seed), "--out", str(tmp_path / "run")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    before = next(line for line in lines if line["stage"] == 1)
    assert lines[-1]["eval/e2e@5"] >= 0.85 and abs(lines[-1]["eval/act@5"] - before["eval/act@5"]) <= 0.01
