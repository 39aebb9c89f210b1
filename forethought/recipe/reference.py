"""The reference of recipes, made from the schema: a page (docs/recipe-reference.md) and a JSON schema for
editors (docs/recipe.schema.json). `forethought explain --write docs` writes both; a test holds them to it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from forethought.recipe.about import MISSING, Key, keys, options, shown, texts_of
from forethought.recipe.convert import FLAT, NAMED, fields_of
from forethought.recipe.kinds import KINDS
from forethought.recipe.options import TASKSETS
from forethought.recipe.options.environments import ADAPTERS
from forethought.recipe.options.named import NAMED as NAMED_ROWS
from forethought.recipe.options.named import TRACKERS
from forethought.recipe.schema import Recipe, StageSpec, TaskSpec

PAGE, SCHEMA = "recipe-reference.md", "recipe.schema.json"
_HEAD = """# Every key of a recipe

This page is made from `forethought/recipe/` by `forethought explain --write docs`; do not edit it.

A recipe is a TOML file. Tables may be written as `[optim]` headers or inline, stages as `[[stage]]`.
Addresses are those of `--set`: `N` is a number from 0, `ROLE` a role of the workflow, `OPTION` a key that
the taskset, workflow or loss defines. `forethought explain KEY` prints one key, `forethought check FILE`
tries a recipe. Editors with a TOML plug-in (taplo, Even Better TOML) complete and check recipes by the JSON
schema: write it with `forethought explain --json-schema > recipe.schema.json`, and begin the recipe with the
line `#:schema ./recipe.schema.json`.
"""


def write(folder: Path) -> list[Path]:
    """Write both files into a folder; their paths."""
    files = {folder / PAGE: page(), folder / SCHEMA: schema_text()}
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def page() -> str:
    """The whole reference as Markdown."""
    sections: dict[str, list[Key]] = {}
    for key in keys():
        sections.setdefault(_section(key), []).append(key)
        if key.where in ("task.OPTION", "workflow.OPTION", "stage.N.loss.OPTION"):
            above = key.where.rpartition(".")[0]
            for one in options():
                if one.where.startswith(above):
                    sections.setdefault(f"`{above}`: {one.reader}", []).append(one)
    told = [_table(name, inside) for name, inside in sections.items()]
    return _HEAD + "".join(told) + "".join(_words(where, words) for where, words in NAMED_ROWS.items())


def _words(where: str, words: Mapping[str, str]) -> str:
    """What the words are that a key can name."""
    rows = [f"| `{word}` | {_cell(text)} |" for word, text in words.items()]
    return "\n".join(["", f"## Values of `{where}`", "", "| value | |", "|---|---|", *rows, ""])


def _section(key: Key) -> str:
    """The table whose key it is: keys of one table stand together."""
    if not key.where.startswith("stage."):
        above = key.where.rpartition(".")[0]
        return f"`{above.removesuffix('.ROLE')}`" if above else "The recipe"
    above = key.where.rpartition(".")[0]
    if above != "stage.N":
        return f"`{above}` ({', '.join(key.kinds)})"
    return f"`stage.N`, {' and '.join(key.kinds)}" if key.kinds else "`stage.N`, every kind"


def _table(name: str, inside: list[Key]) -> str:
    rows = [f"| `{key.where}` | {_cell(key.type)} | {_default(key)} | {_cell(key.about)} |" for key in inside]
    return "\n".join(["", f"## {name}", "", "| key | value | default | |", "|---|---|---|---|", *rows, ""])


def _default(key: Key) -> str:
    return "must be given" if key.needed else _code(shown(key.default))


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# ---- JSON schema -------------------------------------------------------------------------------------------


def schema_text() -> str:
    """The JSON schema as the file holds it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """Draft 7: keys, types and choices. What cannot work together only `check` knows."""
    recipe = _object(Recipe)
    stages = [_stage(name, kind) for name, kind in KINDS.items()]
    own = {"properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}
    recipe["properties"]["stage"]["items"] = {
        "anyOf": [*stages, {"type": "object", "title": "a kind of your own", **own}]
    }
    recipe["properties"]["task"] = {"description": texts_of(Recipe)["task"], "anyOf": [*_tasks()]}
    recipe["properties"]["trackers"]["items"] = {
        "anyOf": [{"enum": list(TRACKERS)}, {"type": "string"}],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A recipe of forethought",
        **recipe,
    }


def _stage(name: str, kind: type[StageSpec]) -> dict[str, Any]:
    found = _object(kind)
    found["properties"]["kind"] = {"const": name, "description": texts_of(StageSpec)["kind"]}
    required = {} if name == "imitate" else {"required": ["kind"]}  # the default may be left out
    return {"title": name, **found, **required}


def _tasks() -> Iterator[dict[str, Any]]:
    """The task table of each shipped taskset, and of one of your own."""
    of_all = _object(TaskSpec)["properties"]
    for name, kind in TASKSETS.items():
        own = _object(kind)["properties"]
        for adapter in ADAPTERS.values() if name == "environment" else ():
            own = _object(adapter)["properties"] | own
        asked = [field.name for field in dataclasses.fields(kind) if _needed(field)]
        named = [] if name == TaskSpec().name else ["name"]  # the default may be left out
        yield {
            "title": name,
            "type": "object",
            "properties": {**of_all, "name": {**of_all["name"], "const": name}, **own},
            "required": [*named, *asked],
            "additionalProperties": False,
        }
    other = {"properties": of_all, "required": ["name"], "additionalProperties": True}
    other["properties"] = {**of_all, "name": {"type": "string", "not": {"enum": list(TASKSETS)}}}
    yield {"title": "a taskset of your own", "type": "object", **other}


def _needed(field: dataclasses.Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _object(kind: type) -> dict[str, Any]:
    said = texts_of(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    properties = {}
    for name, annotation in fields_of(kind).items():
        found = _value(annotation)
        made = fields[name].default
        plain = made is not MISSING and made is not None
        properties[name] = {
            **({"description": said[name]} if said.get(name) else {}),
            **found,
            **({"default": list(made) if isinstance(made, tuple) else made} if plain else {}),
        }
    more: Any = kind in FLAT
    if FLAT.get(kind) == "counts":
        more = {"type": "integer", "description": said["counts"]}
    return {"type": "object", "properties": properties, "additionalProperties": more}


def _value(annotation: Any) -> dict[str, Any]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, UnionType):
        kinds = [_value(one) for one in args if one is not NoneType]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if origin is tuple:
        if args[0] is StageSpec:
            return {"type": "array"}
        size = {} if args[-1] is Ellipsis else {"minItems": len(args), "maxItems": len(args)}
        return {"type": "array", "items": _value(args[0]), **size}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(args[1])}
    if dataclasses.is_dataclass(annotation):
        table = _object(annotation)  # type: ignore[arg-type]  # a class
        return {"anyOf": [{"type": "string"}, table]} if annotation in NAMED else table
    types: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": types[annotation]} if annotation in types else {}
