"""What sampling leaves for the update on it (`engine.reuse_forward`): how much, and how often it is read."""

from __future__ import annotations

from forethought.core.free import allowed
from forethought.estimate.hardware import Hardware
from forethought.estimate.shapes import Shape
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.layout import policy_of
from forethought.recipe.machine import CHECKED, LEFT, SPARE
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.recipe.work import Lengths, Work


def left(
    recipe: Recipe, stage: TrainingSpec, shape: Shape, lengths: Lengths, work: Work, hardware: Hardware
) -> float:
    """Bytes at most, of all policies that a stage trains; 0 where nothing is left."""
    room = _room(recipe, stage, shape, hardware)
    said = [wave.rows * wave.budget for wave in work.waves.values()]
    if max(said, default=0) * shape.left > SPARE * room / _policies(recipe, stage):
        return 0.0
    return min(room, _policies(recipe, stage) * (stage.batch * lengths.prompt + sum(said)) * shape.left)


def share_read(
    recipe: Recipe, stage: TrainingSpec, shape: Shape, most: float, tokens: float, hardware: Hardware
) -> float:
    """Share of the steps whose first update reads what was left. `most`: tokens that the rows of one call may
    say; `tokens`: that a policy is expected to read."""
    each = _room(recipe, stage, shape, hardware) / _policies(recipe, stage)
    return 1 - 1 / CHECKED if most * shape.left <= SPARE * each and tokens * shape.left <= each else 0.0


def _room(recipe: Recipe, stage: TrainingSpec, shape: Shape, hardware: Hardware) -> float:
    engine = recipe.engine
    by_kernels = hardware.kind == "cpu" and "torch" not in (engine.layers, engine.sampling)
    stored = engine.weights in ("auto", "fp32") and not shape.qk_norm
    if not (isinstance(stage, Reinforce) and by_kernels and stored and engine.reuses(shape.parameters)):
        return 0.0
    return min(hardware.memory, allowed()) / LEFT


def _policies(recipe: Recipe, stage: TrainingSpec) -> int:
    return len({policy_of(recipe, role) for role in stage.roles})
