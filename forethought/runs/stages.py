"""A stage of a run as it stands: built anew from the recipe and the progress, and never changed."""

from __future__ import annotations

from pathlib import Path

from forethought.core.seeds import seed_of
from forethought.engines.base import Engine
from forethought.grams.lists import planning_of
from forethought.learn.curriculum import LevelSampler
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.runs import handover
from forethought.runs.progress import Progress
from forethought.stages.step import Stage
from forethought.workflows.rollout import Rollouts


def stage_of(recipe: Recipe, p: Progress, engine: Engine, rollouts: Rollouts, out: Path) -> Stage:
    """The stage in which the run in `out` is, with what a gate or the controller has changed in it since. One
    that has begun goes on with its curriculum."""
    spec = handover.changed(recipe.stage[p.stage], p.changed)
    assert isinstance(spec, TrainingSpec)
    curriculum = LevelSampler(
        spec.levels or rollouts.taskset.levels,
        spec.level_weights,
        spec.easy_levels,
        round(spec.easy_first * spec.steps),
    )
    if p.begun:
        curriculum.load_state_dict(p.curriculum)
    return Stage(
        engine=engine,
        rollouts=rollouts,
        spec=spec,
        policies=p.policies,
        curriculum=curriculum,
        seed=seed_of(recipe.seed, p.stage),
        references=p.references,
        planning=planning_of(out, p.stage, spec.grams, engine.decode),
        remembered=p.credit,
    )
