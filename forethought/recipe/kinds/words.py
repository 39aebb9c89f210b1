"""A stage that trains, in words."""

from __future__ import annotations

from forethought.recipe.layout import has_planner, weights_of
from forethought.recipe.roles import frozen_in
from forethought.recipe.schema import Recipe, TrainingSpec


def trains(stage: TrainingSpec, recipe: Recipe, *more: str) -> str:
    """Which roles train in which weights, for how long and on what; then `more`, and when it changes or
    ends."""
    frozen = frozen_in(recipe, stage)
    weights = "model" if has_planner(recipe) else weights_of(recipe, stage)
    levels = " ".join(map(str, stage.levels or recipe.task.levels))
    parts = [
        f"{' '.join(stage.name.split()) or stage.kind}: trains {' and '.join(stage.roles)} ({weights})",
        *([f"frozen {' and '.join(frozen)}"] if frozen and weights != "base" else []),
        f"{stage.until.steps} steps of {stage.batch} tasks",
        f"levels {levels}" if levels else "all levels",
        *more,
    ]
    if stage.adaptive.to != "off":
        parts.append(f"isolates by {stage.adaptive.to} where a role is harmed")
    if stage.until.metric:
        parts.append(f"ends earlier on {stage.until.metric}")
    return ", ".join(parts)
