"""The table of roles and the workflow that speaks them: what does not fit together, and why."""

from __future__ import annotations

import re
from dataclasses import fields

from forethought.core.errors import RecipeError
from forethought.recipe import earlier
from forethought.recipe.layout import BASE, has_planner, planners
from forethought.recipe.ranges import at_least, listed
from forethought.recipe.schema import Recipe, TreeSpec
from forethought.recipe.speaking import check_workflow, roles_of

OVERALL = "e2e"  # what an evaluation calls all roles together
TAKEN = {
    BASE,
    OVERALL,
    "executable",
    "goal",
    *(field.name for field in fields(TreeSpec)),
    *earlier.OLD["tree"],
}
"""Words that stand beside the names of roles: in metrics, among policies, in the tree table of today and
earlier."""


def check_roles(recipe: Recipe) -> None:
    """Raise RecipeError for the first thing in `workflow`, `roles` or `planner` that cannot work."""
    check_workflow(recipe)
    speaks = roles_of(recipe)
    for role in speaks:
        _check_name("workflow", role, "role")
    for name, spec in recipe.roles.items():
        where = f"roles.{name}"
        if name not in speaks:
            raise RecipeError(
                where,
                f'workflow "{recipe.workflow.name}" speaks {listed(speaks)}, and never {name!r}; take it out',
            )
        if spec.policy:
            _check_policy(f"{where}.policy", spec.policy, recipe)
        at_least(f"{where}.budget", spec.budget, 0)
        if len(spec.stop.split()) > 1:
            raise RecipeError(f"{where}.stop", f"is one word that ends a turn, found {spec.stop!r}")
    if has_planner(recipe) and not planners(recipe):
        raise RecipeError(
            "planner",
            f'nobody would speak through it: workflow "{recipe.workflow.name}" has one role, which acts; '
            f"take it out",
        )


def _check_name(where: str, name: str, what: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise RecipeError(
            where, f"{name!r} names a {what}, metrics and folders: use letters, digits, '_' and '-'"
        )
    if name in TAKEN and not (what == "policy" and name == BASE):
        raise RecipeError(where, f"{name!r} has a meaning of its own; give the {what} another name")
    if name.startswith("core-"):
        raise RecipeError(where, f"{name!r}: names that begin with core- are those of regions; take another")


def _check_policy(where: str, policy: str, recipe: Recipe) -> None:
    _check_name(where, policy, "policy")
    if recipe.layout in ("shared", "adapter"):
        has = "one base" if recipe.layout == "shared" else "one adapter for all roles"
        raise RecipeError(
            where,
            f'layout "{recipe.layout}" has {has}, so nobody would use policy {policy!r}; take it out, or use '
            'layout = "adapters" or "models"',
        )
    if has_planner(recipe):
        raise RecipeError(where, "planner says whose weights speak in which role; take one of the two out")
    own = recipe.roles.get(policy)
    if own is not None and own.policy not in ("", policy):
        raise RecipeError(
            where,
            f"{policy!r} is a role that speaks through {own.policy!r} itself; name that policy, or another "
            f"one",
        )
