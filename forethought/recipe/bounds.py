"""How large a recipe's tables may be, looked at before anything walks through them by recursion or prints a
value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forethought.core.errors import RecipeError

MOST_STAGES = 1000
MOST_DEPTH = 50  # tables and lists inside each other
WHOLE = 1 << 63  # TOML promises whole numbers of 64 bits, and no engine counts further


def bounded(data: Mapping[str, Any]) -> None:
    """RecipeError, with the address, for more stages, deeper nesting and larger whole numbers than these, and
    for a text that no file can hold (half of a character)."""
    stages = data.get("stage") if isinstance(data, Mapping) else None
    if isinstance(stages, (list, tuple)) and len(stages) > MOST_STAGES:
        raise RecipeError("stage", f"{len(stages)} stages; a recipe has at most {MOST_STAGES}")
    todo: list[tuple[tuple[Any, ...], Any]] = [((), data)]
    while todo:
        path, value = todo.pop()
        if len(path) > MOST_DEPTH:
            raise RecipeError(
                _address(path[:3]),
                f"tables and lists are nested more than {MOST_DEPTH} deep; a recipe needs a few levels",
            )
        if isinstance(value, Mapping):
            todo += [
                item
                for key, inside in value.items()
                for item in (((*path, key), str(key)), ((*path, key), inside))
            ]
        elif isinstance(value, (list, tuple)):
            todo += [((*path, i), inside) for i, inside in enumerate(value)]
        elif isinstance(value, int) and not -WHOLE <= value < WHOLE:
            raise RecipeError(
                _address(path),
                f"a whole number of {value.bit_length()} bits is too large; give one below 2**63",
            )
        elif isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise RecipeError(
                _address(path),
                f"{value[:60]!r} holds half of a character, which no file can hold; write it in UTF-8",
            )


def _address(path: tuple[Any, ...]) -> str:
    return ".".join(str(key) if str(key).isprintable() else repr(key) for key in path)
