"""Which roles a recipe has, which of them a stage trains, and how often each speaks.

Where something must be known of a role beside its name it goes by place: the last role of the workflow acts
in the environment, those before it prepare (plans, thoughts, choices)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from forethought.recipe.schema import Recipe, StageSpec, TrainingSpec, TreeSpec, WorkflowSpec
from forethought.recipe.speaking import PLAN, PLANLESS, SPEAKING, is_workflow, roles_of, speaks

BRANCHES = 4  # what the role that speaks first is sampled, where a tree does not say


def roles_in(tables: Mapping[str, Any]) -> tuple[str, ...]:
    """The roles of a recipe that was read as plain tables (old ones name no workflow), without its code: of a
    workflow of one's own those that a run has written down, or that its table names and its stages train."""
    said = tables.get("workflow") or WorkflowSpec().name
    name = said.get("name", WorkflowSpec().name) if isinstance(said, Mapping) else said
    stages = [stage for stage in tables.get("stage") or () if isinstance(stage, Mapping)]
    named = [*(tables.get("roles") or ()), *(role for stage in stages for role in stage.get("roles") or ())]
    if str(name) in SPEAKING:
        return SPEAKING[str(name)].roles
    written = said.get("roles") if isinstance(said, Mapping) else ()
    return tuple(dict.fromkeys(map(str, written or named)))


def frozen_in(recipe: Recipe, stage: StageSpec) -> list[str]:
    """The roles that a stage does not train."""
    return [role for role in roles_of(recipe) if role not in stage.roles]


def trains_all(recipe: Recipe, stage: StageSpec) -> bool:
    """Whether the stage freezes no role."""
    return not frozen_in(recipe, stage)


def names_workflow(tables: Mapping[str, Any]) -> bool:
    """Whether a recipe that was read as plain tables says which workflow it has."""
    said = tables.get("workflow", {}) if isinstance(tables, Mapping) else {}
    return not isinstance(said, Mapping) or "name" in said


def implied(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the workflow that a task without plans asks for, where the recipe names none."""
    task = tables.get("task") if isinstance(tables, Mapping) else None
    flat = isinstance(task, Mapping) and task.get("name") in PLANLESS and task.get(PLAN, "none") == "none"
    if not flat or names_workflow(tables):
        return tables
    return {**tables, "workflow": {**tables.get("workflow", {}), "name": "act_only"}}


def resolved(recipe: Recipe) -> Recipe:
    """With the roles written out that a stage trains where it names none, and those of a workflow that is not
    ours. Its code is loaded anew. RecipeError where it is no workflow."""
    if not is_workflow(recipe.workflow.name):
        return recipe  # `check` says so
    roles = speaks(recipe.workflow.name, again=True).roles
    written = () if recipe.workflow.name in SPEAKING else roles
    stages = tuple(
        replace(stage, roles=roles) if isinstance(stage, TrainingSpec) and not stage.roles else stage
        for stage in recipe.stage
    )
    return replace(recipe, stage=stages, workflow=replace(recipe.workflow, roles=written))


def counts_of(tree: TreeSpec, roles: Sequence[str]) -> dict[str, int]:
    """Role -> how many turns of it are sampled at one place."""
    return {role: tree.counts.get(role, 1 if i else BRANCHES) for i, role in enumerate(roles)}


def once(roles: Sequence[str], **fields: Any) -> TreeSpec:
    """One turn of each role: a single chain."""
    return TreeSpec(counts=dict.fromkeys(roles, 1), **fields)


def sampled_in(tree: TreeSpec, roles: Sequence[str]) -> dict[str, int]:
    """Role -> its turns in a whole tree of one-turn branches, for the roles that a policy speaks in it."""
    counts = counts_of(tree, roles)
    each = {role: 1 if role in tree.oracle else n for role, n in counts.items()}
    return {
        role: prod(each[above] for above in roles[: i + 1])
        for i, role in enumerate(roles)
        if role not in tree.oracle and all(each[above] for above in roles[: i + 1])
    }
