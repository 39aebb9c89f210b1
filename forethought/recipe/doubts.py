"""What a recipe may say, and what is a slip of the pen more often than a wish: told, never refused."""

from __future__ import annotations

from forethought.recipe.layout import weights_of
from forethought.recipe.schema import Recipe, TrainingSpec

HIGH = 1.0  # rates that train AdamW or Muon lie a factor of ten and more below
ABSURD = 0.1  # as HIGH, for a model that was trained before
SCRATCH = {"adapter": 5e-3, "base": 2e-4, "model": 2e-4}  # above it a rate is one for a model from scratch


def doubts(recipe: Recipe) -> list[str]:
    """A sentence with the address for each."""
    told = []
    for i, stage in enumerate(recipe.stage):
        if not isinstance(stage, TrainingSpec):
            continue
        rates = {"lr": stage.optim.lr} | (
            {"muon_lr": stage.optim.muon_lr} if stage.optim.name == "muon" else {}
        )
        told += [
            f"stage.{i}.optim.{key} = {rate:g} is far above what trains (usual: 1e-6 to 0.1); weights will "
            f"very likely diverge"
            for key, rate in rates.items()
            if rate >= HIGH or (recipe.model.path and rate > ABSURD)
        ]
        told += _from_scratch(recipe, stage, i)
    return told


def _from_scratch(recipe: Recipe, stage: TrainingSpec, i: int) -> list[str]:
    """Where the rates of a model from scratch meet one that was trained before."""
    weights, rate = weights_of(recipe, stage), stage.optim.lr
    if not recipe.model.path or rate > ABSURD:
        return []
    whose = "LoRA adapters" if weights == "adapter" else "whole weights"
    usual = "1e-4 to 1e-3" if weights == "adapter" else "1e-6 to 2e-5"
    if stage.optim.name == "muon":
        return [
            f"stage.{i}.optim.name = muon is for a model from scratch: what a trained one can do is lost at "
            f"its rates; take adamw, with lr {usual} for {whose}"
        ]
    if rate > SCRATCH[weights]:
        return [
            f"stage.{i}.optim.lr = {rate:g} is a rate for a model from scratch; {whose} of a trained one "
            f"usually take {usual}"
        ]
    return []
