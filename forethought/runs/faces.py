"""What a recipe needs of its engine, key by key, and what is refused where the engine lacks it."""

from __future__ import annotations

from collections.abc import Iterator

from forethought.core.errors import RecipeError
from forethought.engines.base import Engine, Sampler, Surgery, Trainer, Words, lacks
from forethought.recipe.layout import shares
from forethought.recipe.schema import Recipe, TrainingSpec


def check_faces(recipe: Recipe, engine: Engine) -> None:
    """RecipeError at the first key that needs a face (`engines.base`) which `engine` has not."""
    for key, face in _needed(recipe):
        if missing := lacks(engine, face):
            raise RecipeError(
                key,
                f"needs an engine with {face.__name__}, and {type(engine).__name__} has no "
                f"{', '.join(missing)}; take another engine, or leave this out",
            )


def _needed(recipe: Recipe) -> Iterator[tuple[str, type]]:
    yield from (("engine", Words), ("engine", Sampler))
    for i, stage in enumerate(recipe.stage):
        if not isinstance(stage, TrainingSpec):
            continue
        yield f"stage.{i}.kind", Trainer
        if stage.isolation.surgery != "none":
            yield f"stage.{i}.isolation.surgery", Surgery
        if stage.isolation.core != "none":
            yield f"stage.{i}.isolation.core", Surgery
        if recipe.probes.conflict_every and shares(recipe, stage):
            yield "probes.conflict_every", Surgery  # of roles that share weights
