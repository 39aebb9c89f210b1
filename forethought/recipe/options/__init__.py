"""What the task table of a shipped taskset can say, one record each: names, types, defaults, and what they
mean. A taskset reads its names and defaults from here, `explain`, docs/recipe-reference.md and the JSON
schema the rest. A default of None is shown as none: the text says what it means that the option is absent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from forethought.recipe.options.environments import ADAPTERS, Environment
from forethought.recipe.options.screens import Screens
from forethought.recipe.options.texts import Math, Text
from forethought.recipe.options.tools import Tools
from forethought.recipe.options.web import Web
from forethought.recipe.options.words import Blocksworld, Desk

TASKSETS: Mapping[str, type] = MappingProxyType(
    {
        "desk": Desk,
        "blocksworld": Blocksworld,
        "math": Math,
        "text": Text,
        "environment": Environment,
        "web": Web,
        "screens": Screens,
        "tools": Tools,
    }
)
PATHS = {
    "desk": (),
    "web": (),
    "screens": ("shots",),
    "tools": (),
    "math": ("train", "eval", "demos"),
    "blocksworld": ("exclude",),
    "environment": ("rows",),
    "text": ("train", "eval", "shots"),
}
"""Taskset -> its options that are files of data: a path, a list, or a table with a source."""


def defaults(kind: type) -> dict[str, Any]:
    """Option -> default; of one that must be given, MISSING."""
    made = {}
    for one in dataclasses.fields(kind):
        factory = one.default_factory
        made[one.name] = one.default if factory is dataclasses.MISSING else factory()
    return made


def names(kind: type) -> tuple[str, ...]:
    """The options of a record, in order."""
    return tuple(one.name for one in dataclasses.fields(kind))


READERS: Mapping[str, type] = MappingProxyType(
    {f"the taskset {name}": kind for name, kind in TASKSETS.items()}
    | {f"the taskset environment, {name}": kind for name, kind in ADAPTERS.items()}
)
"""Who reads options, in words -> the record of them."""
