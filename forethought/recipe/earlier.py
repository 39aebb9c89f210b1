"""What recipes of earlier versions said, in today's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forethought.core.errors import RecipeError

STAGE = ("clip_low", "clip_high")  # keys of a stage that are options of its loss now
CLIP = 0.2  # what both were where nobody said otherwise


def stage_of(stage: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The tables of a stage with `clip_low` and `clip_high` where they stand today, in `loss`. RecipeError where
    one is given in both places."""
    old = {key: stage[key] for key in STAGE if key in stage}
    loss = stage.get("loss", {})
    loss = {"name": loss} if isinstance(loss, str) else loss
    if not old or not isinstance(loss, Mapping):
        return stage
    for key, value in old.items():
        if key in loss:
            raise RecipeError(f"{where}.{key}", f"is written loss.{key} today, which is given too; keep that")
        # a resolved recipe names its defaults, also in stages that have no ratio to clip
        if value != CLIP or loss.get("name", "") not in ("", "grpo"):
            loss = {**loss, key: value}
    rest = {key: value for key, value in stage.items() if key not in STAGE}
    return {**rest, "loss": loss} if loss else rest
