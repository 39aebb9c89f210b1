"""A workflow that a shipped taskset cannot play is refused before anything else that a recipe says."""

from __future__ import annotations

from contextlib import closing

import pytest

from forethought.core.errors import RecipeError
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.load import load, override
from forethought.runs import run
from forethought.tasks import families
from forethought.workflows.rollout import Rollouts
from forethought.workflows.table import workflow_of


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


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["workflow=act_only"],
        ["workflow=react"],
        ["task.disturb={ popup = 0.2, slip = 0.1 }", "task.attempts=8"],
        ["workflow=react", "task.disturb={ popup = 0.2, slip = 0.1 }"],
    ],
)
def test_a_model_of_web_holds_its_longest_episodes(options):
    recipe = override(load("web"), [*options, "task.pages=recorded"])
    with closing(families.build(recipe.task)) as taskset:
        roles = workflow_of(recipe.workflow.name).roles
        context = run._context(taskset, recipe)
        engine = FakeEngine(
            taskset.words(roles), {role: taskset.stop(role) for role in roles}, context=context
        )
        Rollouts(engine, taskset, recipe.workflow).check_room(demonstrated=True)
        assert context == 512 or options
