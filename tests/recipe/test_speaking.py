"""The recipe key `workflow`: who speaks when, in a word or a table."""

from __future__ import annotations

import pytest

from forethought.cli import main
from forethought.core.errors import RecipeError
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.load import load
from forethought.recipe.schema import Recipe, WorkflowSpec
from forethought.recipe.speaking import Speaks, roles_of

STAGES = {"stage": [{"kind": "imitate"}]}


def test_a_workflow_is_a_word_or_a_table():
    word, table = (from_dict(STAGES | {"workflow": w}) for w in ("react", {"name": "react"}))
    assert word == table and word.workflow == WorkflowSpec(name="react")
    assert from_dict(to_dict(word)) == word and to_dict(word)["workflow"]["name"] == "react"


def test_options_stand_beside_the_name():
    recipe = from_dict(STAGES | {"workflow": {"name": "plan_then_act", "replan_after": 2, "max_turns": 9}})
    assert recipe.workflow == WorkflowSpec(name="plan_then_act", max_turns=9, options={"replan_after": 2})
    assert from_dict(to_dict(recipe)) == recipe
    check(recipe)


def test_the_roles_are_those_of_the_workflow():
    assert roles_of(Recipe()) == ("plan", "act")
    assert roles_of(Recipe(workflow=WorkflowSpec(name="react"))) == ("think", "act")


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ("plan_than_act", "workflow: unknown workflow 'plan_than_act'"),
        ({"name": "react", "replan_after": 1}, "workflow.replan_after: unknown option of react"),
        ({"replan_after": -1}, "workflow.replan_after: expected a whole number from 0, found -1"),
        ({"replan_after": True}, "workflow.replan_after: expected a whole number from 0, found True"),
        ({"max_turns": 0}, "workflow.max_turns: must be at least 1, found 0"),
        ({"max_tokens": -1}, "workflow.max_tokens: must be at least 0, found -1"),
        ({"options": {}}, "workflow.options: write options beside the name: workflow = {"),
        (3, "workflow: expected a table, found the whole number 3"),
    ],
)
def test_a_workflow_that_cannot_be_is_refused(workflow, message):
    with pytest.raises(RecipeError) as refused:
        check(from_dict(STAGES | {"workflow": workflow}))
    assert str(refused.value).startswith(message)


def test_a_recipe_under_a_workflow_with_other_roles_says_which_ones_it_is_for():
    assert main(["train", "blocksworld", "--set", "workflow=blink_think_link", "--dry-run"]) == 2
    with pytest.raises(RecipeError) as refused:
        check(load("blocksworld", ["workflow=blink_think_link"]))
    said = str(refused.value)
    assert said.startswith(
        "stage.1.roles.0: workflow \"blink_think_link\" speaks blink, think, link, and never 'plan'; this "
        "recipe runs under act_only, modulo, plan_steps, plan_then_act, react, remembering."
    )
    assert "did you mean" not in said
    for name in ("act_only", "modulo", "plan_steps", "plan_then_act", "react"):
        check(load("blocksworld", [f"workflow={name}"]))  # as it says


def test_a_role_of_no_workflow_is_still_guessed():
    with pytest.raises(RecipeError, match="unknown role 'plann'; did you mean 'plan'"):
        check(from_dict({"stage": [{"kind": "imitate", "roles": ["plann"]}]}))


def test_how_often_a_role_speaks_at_most_on_one_path():
    both = Speaks(roles=("plan", "act"), options={"rounds": 3}, at_most={"plan": "rounds"})
    assert both.often({}, 5) == {"plan": 3, "act": 5} and both.often({"rounds": 0}, 5)["plan"] == 1
    assert Speaks(roles=("think", "act"), each_turn=("think", "act")).often({}, 4) == {"think": 4, "act": 4}
    with pytest.raises(ValueError, match="at_most: .*'round'"):
        Speaks(roles=("plan",), options={"rounds": 3}, at_most={"plan": "round"})
    with pytest.raises(ValueError, match="at_most: .*'act'"):
        Speaks(roles=("plan",), options={"rounds": 3}, at_most={"act": "rounds"})


def test_a_workflow_that_reads_a_file_is_refused_without_one():
    for told in ("workflow=remembering", 'workflow={name="remembering",memory=""}'):
        with pytest.raises(RecipeError, match="^workflow.memory: missing; remembering reads a file"):
            check(load("desk", [told]))
