"""`--set workflow=NAME` on a recipe written for another one: what its table `under` says comes along."""

from __future__ import annotations

import pytest
from conftest import lines_of, nothing

from forethought.core.errors import RecipeError
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.convert import from_dict, to_dict, to_toml
from forethought.recipe.load import load, override
from forethought.recipe.speaking import roles_of
from forethought.runs import run

SMALL = ["eval.tasks=1", "eval.every=0", "probes.tasks=1", "stage.0.until.steps=1", "stage.1.until.steps=1"]
SMALL += ["stage.0.batch=8", "stage.1.batch=2", "task.levels=[2]", "stage.1.levels=[2]", "stage.1.gates=[]"]
SMALL += ["stage.0.easy_levels=[]", "stage.0.easy_first=0", "stage.0.loss_share={}", "limits.max_failed=1.0"]


def engine(recipe, taskset):
    roles = roles_of(recipe)
    return FakeEngine(taskset.words(roles), {role: taskset.stop(role) for role in roles})


@pytest.mark.parametrize(
    ("recipe", "workflow"),
    [(r, w) for r in ("desk", "blocksworld") for w in ("react", "plan_steps", "act_only")]
    + [("desk", "blink_think_link"), ("blocksworld", "modulo")]
    + [("tools", w) for w in ("abstraction", "react", "plan_then_act")],
)
def test_the_shipped_recipes_run_under_every_workflow_by_a_key(recipe, workflow, tmp_path):
    load(recipe, [f"workflow={workflow}"])  # as it stands
    small = load(recipe, [*SMALL, f"workflow={workflow}"])
    run.train(small, tmp_path / "run", nothing, engine)
    steps = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if "tokens/sampled" in line]
    assert len(steps) == 1 and steps[0]["tokens/sampled"] > 0


def test_what_is_said_by_hand_wins_wherever_it_stands():
    recipe = load("desk", ["stage.1.tree.think=3", "workflow=react"])
    assert recipe.stage[1].tree.counts == {"think": 3, "act": 1} and recipe.stage[0].roles == ("think", "act")
    assert load("desk", ['workflow={ name = "react" }']).stage[1].roles == ("think",)
    assert load("desk", ["workflow.name=react", "stage.1.name=muse"]).stage[1].name == "muse"


def test_the_table_stays_in_the_recipe():
    recipe = load("desk")
    assert from_dict(to_dict(recipe)) == recipe and "under" in to_toml(recipe)
    assert override(recipe, ["workflow=react"]) == load("desk", ["workflow=react"])


def test_a_wrong_address_in_it_is_said():
    tables = {"under": {"react": {"stage.0.tre": 1}}, "stage": [{}]}
    with pytest.raises(RecipeError, match=r"^stage\.0\.tre: "):
        override(from_dict(tables), ["workflow=react"])
    with pytest.raises(RecipeError, match=r"^under\.react: expected a table"):
        from_dict({"under": {"react": 3}, "stage": [{}]})
