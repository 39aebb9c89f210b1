"""What a recipe for a model from scratch says for one that was trained before, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.core.errors import UserError
from forethought.estimate.for_model import SHARE, _share, for_model
from forethought.estimate.hardware import HARDWARE
from forethought.recipe.check import check
from forethought.recipe.doubts import doubts
from forethought.recipe.load import load, override, shipped, written_in, written_of
from forethought.recipe.pretrained import fitted, told

MODEL = "Qwen/Qwen2.5-0.5B"  # in the table of shapes: nothing is downloaded
SCRATCH = [name for name, _, _ in shipped() if not load(name).model.path]


def given(name: str, *overrides: str):
    return for_model(load(name, overrides), MODEL, written_in(name, overrides))


@pytest.mark.parametrize("name", SCRATCH)
def test_a_shipped_recipe_becomes_one_for_a_trained_model(name):
    recipe, said = given(name)
    check(recipe)
    assert said.startswith("the recipe was written for a model from scratch") and "\n" not in said
    assert "--as-written" in said
    assert doubts(recipe) == []
    for stage in recipe.stage:
        if stage.steps:
            assert stage.optim.name == "adamw"
            assert stage.optim.lr <= 2e-4
            assert stage.optim.schedule in ("cosine", "linear")
            assert stage.optim.warmup > 0
            assert stage.batch <= 8
    assert any(getattr(stage, "batch_tokens", 0) for stage in recipe.stage)
    assert recipe.layout in ("adapter", "adapters")
    assert f"{recipe.stage[-1].optim.lr:g}" in said


def test_the_changes_by_hand():
    recipe, _ = given("desk")
    imitate, reinforce = recipe.stage
    assert (recipe.layout, recipe.task.options["told"], recipe.probes.every) == ("adapters", True, 25)
    assert (imitate.optim.lr, imitate.optim.warmup, imitate.until.steps) == (2e-4, 5, 100)
    assert (imitate.batch, imitate.share, imitate.batch_tokens) == (8, 8, 1024)
    assert (reinforce.optim.lr, reinforce.optim.warmup, reinforce.until.steps) == (1e-4, 2, 50)
    assert (imitate.weights, reinforce.weights) == ("auto", "auto")
    assert imitate.loss_share == load("desk").stage[0].loss_share  # what the recipe is about stays
    assert given("desk-shared")[0].layout == "adapter"
    assert given("blocksworld")[0].task.options["wording"] == "language"
    assert "system" not in given("gsm8k")[0].task.options


def test_what_was_set_stays():
    recipe, said = given("desk", "stage.0.optim.lr=1e-3", "stage.1.batch=16", "eval.tasks=77", "eval.every=9")
    assert (recipe.stage[0].optim.lr, recipe.stage[1].batch) == (1e-3, 16)
    assert (recipe.eval.tasks, recipe.eval.every) == (77, 9)
    assert "stage.0.optim.lr" not in said and "eval." not in said
    assert recipe.stage[1].optim.lr == 1e-4


def test_a_table_that_was_set_whole_stays_whole():
    recipe, _ = given("desk", 'stage.1.optim={ name = "adamw", lr = 7e-4 }')
    assert (recipe.stage[1].optim.lr, recipe.stage[1].optim.schedule) == (7e-4, "wsd")


def test_keys_of_the_users_own_recipe_win_and_the_rest_is_fitted(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('task = { name = "desk" }\n[[stage]]\nbatch = 64\noptim = { lr = 5e-4 }\n')
    recipe, said = for_model(load(own), MODEL, written_in(own))
    assert (recipe.stage[0].batch, recipe.stage[0].optim.lr) == (64, 5e-4)
    assert recipe.stage[0].optim.schedule == "cosine"
    assert "stage.0.batch " not in said
    assert written_of({"task": {"name": "desk"}, "stage": [{"batch": 64, "gates": []}]}) == {
        "task.name",
        "stage.0.batch",
        "stage.0.gates",
    }


def test_a_recipe_that_names_its_model_is_not_touched():
    before = load("pta-grpo-math")
    recipe, said = for_model(before, MODEL, written_in("pta-grpo-math"))
    assert said == ""
    assert recipe.model.path == MODEL and recipe.stage == before.stage and recipe.eval == before.eval


def test_as_it_is_written_nothing_but_the_model_changes():
    recipe, said = for_model(load("desk"), MODEL, ["model.path"])
    assert (said, recipe.stage, recipe.model.path) == ("", load("desk").stage, MODEL)


@pytest.mark.parametrize("name", [name for name in SCRATCH if name != "gsm8k"])
def test_evaluations_take_a_tenth_of_the_time_or_as_few_tasks_as_say_something(name):
    recipe, _ = given(name)
    hardware = HARDWARE["h100"]
    recipe, _ = for_model(load(name), MODEL, written_in(name))
    assert _share(recipe, hardware) <= SHARE or recipe.eval.tasks == 8 or recipe.eval.every == 0


def test_rates_of_a_model_from_scratch_that_meet_a_trained_one_are_told():
    recipe, _ = for_model(load("desk"), MODEL, ["model.path"])
    said = doubts(recipe)
    assert len(said) == 1 and "stage.0.optim.name = muon" in said[0]  # 1.5e-3 is high for LoRA, not absurd
    high = override(recipe, ["stage.0.optim.name=adamw", "stage.0.optim.lr=2e-3", "stage.1.optim.lr=0.2"])
    one, two = doubts(high)
    assert "stage.0.optim.lr = 0.002" in one and "whole weights" in one
    assert "stage.1.optim.lr = 0.2" in two and "diverge" in two


def test_nothing_is_told_where_nothing_changes():
    recipe, done = fitted(load("desk"), written_of({"task": {}, "probes": {}, "stage": {}}))
    assert told(()) == ""
    assert all(not change.key.startswith(("task", "probes")) for change in done)
    assert recipe.probes == load("desk").probes


def test_the_command_line_tells_what_has_changed(capsys, tmp_path):
    from forethought.cli import main

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text((Path(__file__).parent / "tiny_llama.json").read_text())
    assert main(["train", "desk", "--model", str(model), "--dry-run", "--hardware", "h200"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "--as-written" in line]
    assert len(told) == 1
    assert (
        main(["train", "desk", "--model", str(model), "--dry-run", "--hardware", "h200", "--as-written"]) == 0
    )
    assert "--as-written" not in capsys.readouterr().out
    assert main(["train", "desk", "--as-written", "--dry-run"]) == UserError.exit_code
    assert "add --model" in capsys.readouterr().err
