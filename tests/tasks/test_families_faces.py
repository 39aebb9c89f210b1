"""A workflow that a shipped taskset cannot play is refused before anything else that a recipe says."""

from __future__ import annotations

import pytest

from forethought.core.errors import RecipeError
from forethought.recipe.load import load, override
from forethought.tasks import families


@pytest.mark.parametrize(
    ("name", "workflow", "lacks"),
    [
        ("desk", "rewoo", "uses (tasks.base.Tooled); desk"),
        ("desk", "modulo", "critique (tasks.base.Critic); desk"),
        ("tools", "blink_think_link", "look (tasks.base.Looking); tools"),
    ],
)
def test_the_missing_face_is_what_is_said(name, workflow, lacks):
    recipe = override(load(name), [f"workflow={workflow}"])
    with pytest.raises(RecipeError) as refused:
        families.check_recipe(recipe)
    assert refused.value.where == "workflow" and f"{workflow} asks for a taskset with {lacks}" in str(
        refused.value
    )


@pytest.mark.parametrize("workflow", ["act_only", "react"])
def test_web_plays_these_by_a_key_alone(workflow):
    recipe = override(load("web"), [f"workflow={workflow}", "task.pages=recorded"])
    families.check_recipe(recipe)
    assert recipe.workflow.name == workflow and not recipe.workflow.options
