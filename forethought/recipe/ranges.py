"""What the checks of a recipe share: each raises RecipeError with the address `where` when the value does not
fit."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.errors import RecipeError


def at_least(where: str, value: float, low: float) -> None:
    """value >= low."""
    if value < low:
        raise RecipeError(where, f"must be at least {low}, found {value}")


def above(where: str, value: float, low: float) -> None:
    """value > low."""
    if value <= low:
        raise RecipeError(where, f"must be greater than {low}, found {value}")


def within(where: str, value: float, low: float, high: float) -> None:
    """low <= value <= high."""
    if not low <= value <= high:
        raise RecipeError(where, f"must be between {low} and {high}, found {value}")


def ordered(where: str, low: str, least: float, high: str, most: float) -> None:
    """least <= most, of the keys `low` and `high` under `where`."""
    if most < least:
        raise RecipeError(f"{where}.{high}", f"must be at least {low}, which is {least:g}; found {most:g}")


def known_levels(where: str, levels: Sequence[int], among: Sequence[int], source: str) -> None:
    """Every level once, and each one of those `among` (empty: any); `source` says whose they are."""
    for i, level in enumerate(levels):
        if level in levels[:i]:
            raise RecipeError(
                f"{where}.{i}", f"level {level} is listed twice; to draw it more often use level_weights"
            )
        if among and level not in among:
            raise RecipeError(
                f"{where}.{i}", f"level {level} is not one of {source}: {', '.join(map(str, among))}"
            )


def one_per_level(where: str, values: Sequence[float], levels: Sequence[int]) -> None:
    """As many values as levels."""
    if not levels:
        raise RecipeError(
            where, "has one number per level, so the levels must be written too, in the stage or in task"
        )
    if len(values) != len(levels):
        raise RecipeError(
            where, f"has {len(values)} numbers for {len(levels)} levels ({', '.join(map(str, levels))})"
        )


def listed(words: Sequence[object], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(words) == 1:
        return str(words[0])
    return f" {last} ".join([", ".join(map(str, words[:-1])), str(words[-1])])
