"""A checkpoint of a run, whole and of this run, with who speaks for each role in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forethought.core.errors import CheckpointError, UserError
from forethought.engines.saved import has_projector
from forethought.recipe.load import load as load_recipe
from forethought.recipe.schema import Recipe
from forethought.runs.progress import Progress
from forethought.store import RECIPE, Store, run_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    run: Path
    step: int
    recipe: Recipe
    folder: Path
    policies: Mapping[str, str]  # role -> who speaks for it


def find(source: Path, step: int | None = None) -> Checkpoint:
    """The newest checkpoint of the run at `source`, or that of `step`; a checkpoint's folder is its run at
    its step. UserError where there is no run or no such step, CheckpointError for a damaged one."""
    at = run_at(source, step)
    if at is None:
        raise UserError(f"{source} is not a run: it has no {RECIPE}; give a run or a checkpoint in one")
    run, step = at
    store = Store.open(run)
    recipe = load_recipe(run / RECIPE, trains=False)
    if store.begun_with() and not store.has_its_recipe():
        raise UserError(
            f"{run / RECIPE} is not the recipe that the run was trained with: put it back as it was"
        )
    checkpoint, state = store.chosen(step)
    if has_projector(checkpoint / "engine"):
        raise UserError(
            f"{source} was trained on pictures, and its projector is no part of a Hugging Face model: it is "
            "not exported, and speaks through its run (forethought sample, eval)"
        )
    try:
        policies = Progress.read(state["progress"]).policies
    except ValueError as error:
        raise CheckpointError(f"checkpoint {checkpoint} is damaged (state.json {error})") from error
    return Checkpoint(run=run, step=state["step"], recipe=recipe, folder=checkpoint, policies=policies)
