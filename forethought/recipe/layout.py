"""Which weights a stage trains, where the recipe leaves it open."""

from __future__ import annotations

from typing import Literal

from forethought.recipe.schema import ROLES, ModelSpec, Recipe, StageSpec

Weights = Literal["base", "adapter", "model"]
OWN: dict[str, tuple[Weights, ...]] = {
    "shared": (),
    "adapters": ("adapter",),
    "mixed": ("adapter",),
    "models": ("model",),
}
"""Layout -> what a role can have for itself in it, beside the base that all have."""


def weights_of(recipe: Recipe, stage: StageSpec) -> Weights:
    """What `weights = "auto"` means: a role's own weights where the layout has them, else the base.

    Two exceptions. Imitation of all roles into a model from scratch trains the base, from which every role
    then starts: an adapter on random weights has nothing to adapt, and two models would learn the same screen
    twice. And in layout "mixed" the base acts.
    """
    if stage.weights != "auto":
        return stage.weights
    both = set(stage.roles) == set(ROLES)
    scratch = not recipe.model.path and not has_planner(recipe) and stage.kind == "imitate" and both
    if recipe.layout == "shared" or scratch or (recipe.layout == "mixed" and "act" in stage.roles):
        return "base"
    return "model" if recipe.layout == "models" else "adapter"


def has_planner(recipe: Recipe) -> bool:
    """Whether planning has another base model than acting."""
    return given(recipe.planner)


def trains_whole(recipe: Recipe) -> bool:
    """Whether some stage updates the weights of a whole model, not an adapter's alone."""
    return any(
        stage.kind != "distill" and (has_planner(recipe) or weights_of(recipe, stage) != "adapter")
        for stage in recipe.stage
    )


def given(model: ModelSpec) -> bool:
    return bool(model.init or model.path)
