"""The tasksets that ship. One is a class that derives from `base.Taskset`, and a row here."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.errors import RecipeError, unknown
from forethought.envs.guard import Guard
from forethought.envs.guarded import guarded
from forethought.recipe.schema import LimitSpec, TaskSpec
from forethought.tasks.base import Taskset


def _desk(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.desk.taskset import Desk

    return Desk(levels, **options)


def _blocksworld(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.blocksworld.taskset import Blocksworld

    return Blocksworld(levels, **options)


def _math(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.math.taskset import Math

    return Math(levels, **options)


def _math_to_measure(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.math.measured import MeasuredMath

    return MeasuredMath(levels, **options)


TASKSETS = {"desk": _desk, "blocksworld": _blocksworld, "math": _math}
TO_MEASURE = TASKSETS | {"math": _math_to_measure}


def build(spec: TaskSpec, *, to_measure: bool = False, limits: LimitSpec | None = None) -> Taskset:
    """The taskset a recipe names, behind its boundary. `to_measure`: nothing will train on it, so what only
    training needs may be left out. RecipeError for an unknown family, level or option, Fault for a family
    that breaks when it is made."""
    if spec.name not in TASKSETS:
        raise RecipeError("task.name", unknown("task", spec.name, TASKSETS))
    make = (TO_MEASURE if to_measure else TASKSETS)[spec.name]
    return guarded(
        Guard(spec.name).call("task", "the constructor", make, (spec.levels,), spec.options, seconds=0.0),
        limits,
    )
