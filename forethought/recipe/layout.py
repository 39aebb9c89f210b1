"""Which weights a stage trains, where the recipe leaves it open."""

from __future__ import annotations

from typing import Literal

from forethought.recipe.schema import ROLES, Recipe, StageSpec


def weights_of(recipe: Recipe, stage: StageSpec) -> Literal["base", "adapter"]:
    """What `weights = "auto"` means: adapters where the layout has them, else the base.

    One exception: imitation of all roles into a model from scratch trains the base, since an adapter on random weights has
    nothing to adapt.
    """
    if stage.weights != "auto":
        return stage.weights
    scratch = not recipe.model.path and stage.kind == "imitate" and set(stage.roles) == set(ROLES)
    return "adapter" if recipe.layout == "adapters" and not scratch else "base"
