"""Environments of other libraries, spoken to in text. `environment = "gym:CartPole-v1"`: the word before the
colon names the adapter, what follows is the adapter's.

Each adapter is one module, and the only one that imports its library, when a recipe names it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from forethought.core.errors import RecipeError, unknown
from forethought.core.named import find, installed, is_known
from forethought.envs.adapters.base import Adapter
from forethought.envs.adapters.options import Options

WHERE = "task.environment"
ADAPTERS = {
    "gym": ("gym", "Gym", "gym:ID, or gym:file.py:Class"),
    "verifiers": ("verifiers", "Verifiers", "verifiers:ID, or verifiers:file.py:Taskset"),
    "openenv": ("openenv", "OpenEnv", "openenv:URL"),
    "mcp": ("mcp", "Mcp", "mcp:COMMAND, or mcp:URL"),
    "trl": ("trl", "Trl", "trl:file.py:Class"),
}
"""Prefix -> (module, class, how it is written)."""


def adapter_of(reference: str, options: Options) -> Adapter:
    """The adapter that a recipe names. RecipeError with the address for one that there is not, an extra that
    is not installed, an environment that cannot be had or spoken with, and options that it lacks."""
    prefix, _, rest = reference.partition(":")
    if prefix in ADAPTERS:
        module, name, how = ADAPTERS[prefix]
        if not rest.strip():
            raise RecipeError(WHERE, f"{reference!r} names nothing; write {how}")
        kind = getattr(import_module(f"{__name__}.{module}"), name)
        found = kind(rest.strip(), options)
    elif is_known("environments", reference):
        found = _own(reference, options)
    else:
        raise RecipeError(
            WHERE,
            f"{unknown('environment', reference, [*ADAPTERS, *installed('environments')])}; "
            f"write gym:{reference}, or file.py:Class",
        )
    options.need_known()
    return found


def _own(reference: str, options: Options) -> Adapter:
    """A class of the user's own, in this library's shape or in Gymnasium's."""
    from forethought.envs.adapters.own import Own

    made = find("environments", reference, {}, WHERE, "environment", again=True)
    if _is_gymnasium(made):
        from forethought.envs.adapters.gym import Gym

        return Gym(reference, options, made)
    return Own(reference, made, options)


def _is_gymnasium(made: Any) -> bool:
    return isinstance(made, type) and any(
        f"{kind.__module__}.{kind.__name__}" == "gymnasium.core.Env" for kind in made.__mro__
    )
