"""Which roles speak in a run. Data: the roles of each shipped workflow, and its options with their defaults.

Nothing else in the library knows the name of a role: whoever needs them asks `roles_of`.
"""

from __future__ import annotations

from forethought.core.errors import RecipeError, unknown
from forethought.recipe.schema import Recipe

SPEAKING: dict[str, tuple[str, ...]] = {
    "plan_then_act": ("plan", "act"),
    "act_only": ("act",),
    "react": ("think", "act"),
    "plan_steps": ("plan", "act"),
    "blink_think_link": ("blink", "think", "link"),
}
"""Workflow -> the roles that it speaks, in the order in which they first do. `workflows.table.register` adds
one of your own."""

CONTINUES: dict[str, dict[str, str]] = {"react": {"act": "think"}}
"""Workflow -> role -> the role on whose branch it speaks where one of it is sampled; a role that is not here
begins a branch of its own. What lies on one branch is compared together with its peers."""

OPTIONS: dict[str, dict[str, int]] = {
    # a plan is written anew after this many failed steps under it; 0: never
    "plan_then_act": {"replan_after": 0},
}
"""Workflow -> its options and their defaults."""


def roles_of(recipe: Recipe) -> tuple[str, ...]:
    """The roles that speak in a run of `recipe`. RecipeError for a workflow that nobody has registered."""
    name = recipe.workflow.name
    if name not in SPEAKING:
        raise RecipeError("workflow", unknown("workflow", name, SPEAKING))
    return SPEAKING[name]


def check_workflow(recipe: Recipe) -> None:
    """RecipeError for an unknown workflow, an option that it lacks, or a limit that allows nothing."""
    roles_of(recipe)
    spec = recipe.workflow
    known = OPTIONS.get(spec.name, {})
    for key, value in spec.options.items():
        if key not in known:
            raise RecipeError(f"workflow.{key}", unknown(f"option of {spec.name}", key, known))
        if type(value) is not int or value < 0:
            raise RecipeError(f"workflow.{key}", f"expected a whole number from 0, found {value!r}")
    for key, least in (("max_turns", 1), ("max_tokens", 0)):
        if (value := getattr(spec, key)) < least:
            raise RecipeError(f"workflow.{key}", f"must be at least {least}, found {value}")
