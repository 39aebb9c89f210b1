"""What a recipe may say, and what is a slip of the pen more often than a wish: told, never refused."""

from __future__ import annotations

from forethought.recipe.schema import Recipe, TrainingSpec

HIGH = 1.0  # rates that train AdamW or Muon lie a factor of ten and more below


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
            if rate >= HIGH
        ]
    return told
