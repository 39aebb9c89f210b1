"""Which weights a role speaks through, and which a stage trains where the recipe leaves it open."""

from __future__ import annotations

from typing import Literal

from forethought.learn.losses import row
from forethought.recipe.roles import trains_all
from forethought.recipe.schema import ModelSpec, Recipe, TrainingSpec
from forethought.recipe.speaking import roles_of

Weights = Literal["base", "adapter", "model"]
OWN: dict[str, tuple[Weights, ...]] = {
    "shared": (),
    "adapter": ("adapter",),
    "adapters": ("adapter",),
    "mixed": ("adapter",),
    "models": ("model",),
}
"""Layout -> what lies on or beside the base in it: in "adapter" one for all roles, else one for each."""
BASE = "base"  # of a role: it speaks through the base itself
ALL = "all"  # of a role: it speaks through the one adapter of layout "adapter"


def policy_of(recipe: Recipe, role: str) -> str:
    """The name of the policy that a role has, alone or with the roles that name the same one, once a stage
    has trained it; before that, and where it is "base", the base speaks."""
    row, roles = recipe.roles.get(role), roles_of(recipe)
    if row is not None and row.policy:
        return row.policy
    if recipe.layout == "adapter":
        return ALL
    return BASE if recipe.layout == "shared" or (recipe.layout == "mixed" and role == roles[-1]) else role


def weights_of(recipe: Recipe, stage: TrainingSpec) -> Weights:
    """What `weights = "auto"` means: a role's own weights where the layout has them, else the base.

    Two exceptions. Imitation of all roles into a model from scratch trains the base, from which every role
    then starts: an adapter on random weights has nothing to adapt, and two models would learn the same screen
    twice. And a role whose policy is the base (in layout "mixed" the last one, which acts) trains the base.
    """
    if stage.weights != "auto":
        return stage.weights
    scratch = not recipe.model.path and not has_planner(recipe)
    learns = stage.learns_from == "demonstrations"
    on_base = any(policy_of(recipe, role) == BASE for role in stage.roles)
    if recipe.layout == "shared" or on_base or (scratch and learns and trains_all(recipe, stage)):
        return "base"
    return "model" if recipe.layout == "models" else "adapter"


def starts_shared(recipe: Recipe, stage: TrainingSpec) -> bool:
    """Whether the stage trains the weights that the layout gives to all roles: what isolation can take
    apart."""
    own = weights_of(recipe, stage)
    return (recipe.layout, own) in (("shared", "base"), ("adapter", "adapter"))


def shares(recipe: Recipe, stage: TrainingSpec) -> bool:
    """Whether what the stage trains is spoken through by several roles."""
    if weights_of(recipe, stage) == "base":
        return True
    named = [policy_of(recipe, role) for role in roles_of(recipe)]
    return any(named.count(policy_of(recipe, role)) > 1 for role in stage.roles)


def has_planner(recipe: Recipe) -> bool:
    """Whether the roles before the last have another base model than the one that acts."""
    return given(recipe.planner)


def planners(recipe: Recipe) -> dict[str, str]:
    """Role -> the policy of its own base model, for the roles before the last where the recipe gives them
    one; it is named by the first of them."""
    roles = roles_of(recipe)
    return dict.fromkeys(roles[:-1], roles[0]) if has_planner(recipe) else {}


def trains_whole(recipe: Recipe) -> bool:
    """Whether some stage updates the weights of a whole model, not an adapter's alone."""
    return any(
        isinstance(stage, TrainingSpec) and (has_planner(recipe) or weights_of(recipe, stage) != "adapter")
        for stage in recipe.stage
    )


def compares(recipe: Recipe, stage: TrainingSpec) -> bool:
    """Whether the stage holds its start as a frozen copy: for a loss, for what isolates roles, or for
    probes."""
    isolation, probes = stage.isolation, recipe.probes
    pulls = stage.ref_kl or isolation.keep_kl or "ref" in row(stage.loss_name).needs
    if pulls or isolation.core != "none" or stage.adaptive.to != "off":
        return True
    return bool(stage.learns_from == "trees" and probes.every and probes.kl_start)


def given(model: ModelSpec) -> bool:
    """Whether the recipe names weights of its own here."""
    return bool(model.init or model.path)
