"""Recipes beside each other: what a recipe changes from the defaults, and where recipes differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from forethought.recipe.kinds import DEFAULT, KINDS
from forethought.recipe.roles import roles_in
from forethought.recipe.schema import GateSpec, Recipe

MISSING = "—"


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> plain value. Lists of tables are numbered (`stage.1.tree.plan`), lists of plain values
    are one value."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {prefix: list(value) if isinstance(value, tuple) else value}
    if not items:
        return {prefix: {}} if prefix else {}
    return {k: v for key, item in items for k, v in flat(item, f"{prefix}.{key}" if prefix else key).items()}


def changed(recipe: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose value is not the default of the schema, or which the schema does not know
    (options of the taskset's own)."""
    usual, roles = flat(dataclasses.asdict(Recipe())), roles_in(recipe)
    for index, stage in enumerate(recipe.get("stage", [])):
        own = KINDS.get(stage.get("kind", DEFAULT)) if isinstance(stage, Mapping) else None
        for kind in [*KINDS.values(), *filter(None, [own])]:  # an earlier version wrote out the keys of all
            usual |= flat(dataclasses.asdict(kind()), f"stage.{index}")
        usual |= {f"stage.{index}.kind": DEFAULT, f"stage.{index}.roles": list(roles)}
        for number in range(len(stage.get("gates", ())) if isinstance(stage, Mapping) else 0):
            usual |= flat(dataclasses.asdict(GateSpec()), f"stage.{index}.gates.{number}")
    return [key for key, value in flat(recipe).items() if key not in usual or usual[key] != value]


def differences(recipes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """[{"key": dotted, "values": one per recipe}] of the keys that differ; a recipe without the key has
    MISSING."""
    tables = [flat(recipe) for recipe in recipes]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [{"key": key, "values": [table.get(key, MISSING) for table in tables]} for key in keys]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]
