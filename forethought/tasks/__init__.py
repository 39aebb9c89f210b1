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


DOMAINS = {"desk": _desk, "blocksworld": _blocksworld, "math": _math}


def build(spec: TaskSpec) -> Domain:
    """The domain a recipe names. RecipeError for an unknown family, level or option."""
    if spec.name not in DOMAINS:
        raise RecipeError("task.name", unknown("task", spec.name, DOMAINS))
    return DOMAINS[spec.name](spec.levels, **spec.options)
