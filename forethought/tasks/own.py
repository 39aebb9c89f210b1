"""Tasksets of somebody's own, which a recipe names: `task = { name = "mytask.py:Sums", most = 20 }`.

What is named is a class that derives from `base.Taskset`, or a function that returns one. It is called with
`levels`, where it has such a parameter, and with the other keys of the task table by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forethought.core.errors import RecipeError, unknown
from forethought.core.named import find
from forethought.core.places import described
from forethought.tasks.base import Taskset

KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def found(name: str, shipped: Mapping[str, Any]) -> Callable[..., Taskset]:
    """The class or function that `name` means, loaded anew. RecipeError for one that is neither."""
    make = find("tasks", name, shipped, "task.name", "taskset", again=True)
    is_taskset = issubclass(make, Taskset) if inspect.isclass(make) else callable(make)
    if not is_taskset:
        what = "a class that does not derive from Taskset" if inspect.isclass(make) else f"{described(make)}"
        raise RecipeError(
            "task.name",
            f"{name} is no taskset, but {what}; name a class below forethought.tasks.base.Taskset, or a "
            f"function that returns one",
        )
    return make


def arguments(
    name: str, make: Callable[..., Taskset], levels: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What to call it with. RecipeError, at the key, for an option that it does not take or that it needs and
    nobody gave, and for levels that it cannot be given."""
    takes = inspect.signature(make).parameters
    by_name = {key: one for key, one in takes.items() if one.kind in KINDS}
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values()):
        known = [key for key in by_name if key != "levels"]
        for key in options:
            if key not in known:
                raise RecipeError(f"task.{key}", unknown(f"option of {name}", key, known))
    given = dict(options)
    if "levels" in by_name:
        given["levels"] = tuple(levels)
    elif levels:
        raise RecipeError(
            "task.levels", f"{name} takes no levels; give it a parameter `levels`, or take the key out"
        )
    for key, one in takes.items():
        if (
            one.default is inspect.Parameter.empty
            and key not in given
            and one.kind in (*KINDS, one.POSITIONAL_ONLY)
        ):
            raise RecipeError("task", f'{name} needs {key}: task = {{ name = "{name}", {key} = ... }}')
    return given


def checked(name: str, made: Any) -> Taskset:
    """What it gave. RecipeError where that is no taskset, or lacks what every one has."""
    if not isinstance(made, Taskset):
        raise RecipeError("task.name", f"{name} gave {made!r:.60}, no Taskset")
    for key, way in (("name", '"sums"'), ("levels", "(1, 2)"), ("budgets", '{"plan": 8, "act": 8}')):
        if not hasattr(made, key):
            raise RecipeError("task.name", f"{name} has no {key}; write {key} = {way} in it")
    return made
