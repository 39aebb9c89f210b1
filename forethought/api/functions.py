"""Functions and classes in the tables of a recipe: each gets the name by which a recipe names code.

One at the top of a file or of an installed module is named as `file.py:name` or `package.module:name`, and
everything works as if the recipe had said so. Any other (a lambda, one inside a function, of a notebook or of
the script that runs) is named `in_this_process:name`: it is known as long as this process lives.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from forethought.core.named import HERE, hold_here
from forethought.core.places import is_users


def with_names(tables: Mapping[Any, Any]) -> dict[str, Any]:
    """The tables with a text in place of each function or class, be it a value or a key."""
    named: dict[int, str] = {}
    found = _named(tables, named)
    assert isinstance(found, dict)
    return found


def hold(functions: Iterable[Callable[..., Any]]) -> None:
    """Functions that a run was given, known again in this process by the names that they had."""
    named: dict[int, str] = {}
    for one in functions:
        _held(one, named)


def _named(value: Any, named: dict[int, str]) -> Any:
    if isinstance(value, Mapping):
        return {_named(key, named): _named(inside, named) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_named(inside, named) for inside in value]
    if not callable(value):
        return value
    return _in_a_file(value) or _held(value, named)


def _in_a_file(value: Any) -> str:
    """How another process finds it, or ""."""
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    home = sys.modules.get(module)
    if home is None or module == "__main__" or not name.isidentifier() or vars(home).get(name) is not value:
        return ""
    file = getattr(home, "__file__", None) or ""
    if "." not in module and file.endswith(".py") and is_users(file) and "-packages" not in file:
        return f"{Path(file).absolute()}:{name}"  # beside a script: nobody else could import it
    return f"{module}:{name}"


def _held(value: Any, named: dict[int, str]) -> str:
    """The name of what this process alone knows; two of one name get numbers."""
    if id(value) not in named:
        own = getattr(value, "__name__", "") if inspect.isroutine(value) or inspect.isclass(value) else ""
        name = own if own.isidentifier() else type(value).__name__.lower()
        taken = set(named.values())
        while f"{HERE}:{name}" in taken:
            stem, _, number = name.rpartition("_")
            name = f"{stem}_{int(number) + 1}" if number.isdecimal() and stem else f"{name}_2"
        hold_here(name, value)
        named[id(value)] = f"{HERE}:{name}"
    return named[id(value)]
