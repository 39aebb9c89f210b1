"""Which trees of a step stay in the run directory."""

from __future__ import annotations

from forethought.progress import Progress
from forethought.recipe.schema import SaveSpec
from forethought.rollout import Rollouts
from forethought.stage import Step
from forethought.store import Store


def keep_trees(store: Store, save: SaveSpec, at: Progress, step: Step, rollouts: Rollouts, last: bool) -> None:
    """Save the step's first `save.trees` trees (0: all) where it is one of every `save.trees_every`, or the stage's first or `last`.

    Only reads what the step has left, so that a run is the same whatever it keeps.
    """
    if step.trees and save.trees_every and (last or at.stage_step == 1 or at.stage_step % save.trees_every == 0):
        n = save.trees or len(step.trees)
        store.save_trees(at.step, at.stage, step.trees[:n], step.advantages[:n], rollouts.oracle_plan, free_text=not rollouts.spaced)
