"""The task table of a shipped taskset as its record: names, types, choices and defaults are those of the
record. What else an option may be, its taskset says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from forethought.core.errors import RecipeError, unknown
from forethought.recipe.convert import fields_of, to_record
from forethought.recipe.options import defaults
from forethought.recipe.ranges import at_least

Table = TypeVar("Table")


def read(kind: type[Table], table: Mapping[str, Any], where: str = "task") -> Table:
    """RecipeError at the first option that does not exist, is missing, or is of another type."""
    hints, name = fields_of(kind), kind.__name__.lower()  # type: ignore[arg-type]  # a class is hashable
    for key in table:
        if key not in hints:
            raise RecipeError(f"{where}.{key}", unknown(f"option of {name}", key, hints))
    for key, default in defaults(kind).items():
        if default is dataclasses.MISSING and table.get(key) is None:
            told = f"task.{key}" if where == "task" else where
            raise RecipeError(f"{where}.{key}", f"missing; {name} needs it (forethought explain {told})")
    return kind(**{key: to_record(hints[key], value, f"{where}.{key}") for key, value in table.items()})


def merged(kind: type, key: str, said: Mapping[str, int], least: int = 1) -> dict[str, int]:
    """A table of numbers whose keys are those of its default: what is not said keeps its default. RecipeError
    for another key, and for a number below `least`."""
    usual: dict[str, int] = defaults(kind)[key]
    for name, value in said.items():
        if name not in usual:
            raise RecipeError(f"task.{key}.{name}", unknown("role", name, usual))
        at_least(f"task.{key}.{name}", value, least)
    return usual | dict(said)
