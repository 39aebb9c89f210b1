"""Task families. A family is one class (see `base.Domain`) and one row here."""

from __future__ import annotations

from forethought.errors import RecipeError, unknown
from forethought.recipe.schema import TaskSpec
from forethought.tasks.base import Domain


def _desk(levels, **options) -> Domain:
    from forethought.tasks.desk import Desk

    return Desk(levels, **options)


def _blocksworld(levels, **options) -> Domain:
    from forethought.tasks.blocksworld import Blocksworld

    return Blocksworld(levels, **options)


def _math(levels, **options) -> Domain:
    from forethought.tasks.math import Math

    return Math(levels, **options)


def _math_to_measure(levels, **options) -> Domain:
    from forethought.tasks.math_measured import MeasuredMath

    return MeasuredMath(levels, **options)


DOMAINS = {"desk": _desk, "blocksworld": _blocksworld, "math": _math}
TO_MEASURE = DOMAINS | {"math": _math_to_measure}


def build(spec: TaskSpec, *, to_measure: bool = False) -> Domain:
    """The domain a recipe names. `to_measure`: nothing will train on it, so what only training needs may be left out. RecipeError for
    an unknown family, level or option."""
    if spec.name not in DOMAINS:
        raise RecipeError("task.name", unknown("task", spec.name, DOMAINS))
    return (TO_MEASURE if to_measure else DOMAINS)[spec.name](spec.levels, **spec.options)
