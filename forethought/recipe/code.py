"""Where a recipe names code of its own: which keys do, on plain tables, before any of it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forethought.core.consent import OF_MODEL
from forethought.core.named import file_of, is_named, names_code

_KEYS = re.compile(
    r"workflow(\.name)?|task\.(name|environment|grader)(\..+)?|trackers(\..+)?"
    r"|stage\.\d+\.(kind|loss(\.name)?|credit(\.name)?|optim\.schedule|parts\.[^.]+)"
)
"""Addresses of values that name code where there is a colon in them. A value that names a file,
`X.py:name`, is code wherever it stands, and so is a key of `stage.N.reward.ROLE`."""
_SHORT = re.compile(r"workflow\.name|stage\.\d+\.loss\.name")  # written without it, as in data.json
_OPTION = re.compile(r"task\..+")  # of a taskset, that can name a function in a module
_TEXTS = re.compile(r"about|name|task\.(prompt|system)|probes\.formats\..*|stage\.\d+\.name")
_PAID = re.compile(r"stage\.\d+\.reward\.[^.]+")


def code_in(tables: Mapping[str, Any], trains: bool = True) -> dict[str, str]:
    """Address -> code that the tables of a recipe name: `file.py:name`, `package.module:name`, what an
    adapter starts (`mcp:COMMAND`), or a model that brings its own. Nothing is loaded. `trains` False: without
    what only training runs (rewards, credit, losses, trackers)."""
    found = {
        where.removesuffix(".name") if _SHORT.fullmatch(where) else where: text
        for where, text in _named(tables, "")
    }
    if trains:
        return found
    return {
        where: text
        for where, text in found.items()
        if not where.startswith(("stage.", "trackers")) or ".kind" in where
    }


def files_in(named: Mapping[str, str]) -> dict[str, Path]:
    """Address -> file of the code in files."""
    found = {where: file_of(text, Path.cwd()) for where, text in named.items() if is_named(text)}
    return {where: path for where, path in found.items() if path is not None}


def _named(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if value.get("trust_remote_code") is True and value.get("path"):
            yield f"{where}.trust_remote_code", f"{OF_MODEL}{value['path']}"
        for key, inner in value.items():
            if where == "under" and isinstance(inner, Mapping):  # addresses and values of another workflow
                for address, one in inner.items():
                    yield from _named(one, str(address))
                continue
            here = f"{where}.{key}" if where else str(key)
            if _PAID.fullmatch(where) and is_named(str(key)):
                yield here, str(key)
            yield from _named(inner, here)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _named(inner, f"{where}.{i}")
    elif isinstance(value, str) and _is_code(value, where):
        yield where, value


def _is_code(text: str, where: str) -> bool:
    if _TEXTS.fullmatch(where) or not is_named(text):
        return False
    if _KEYS.fullmatch(where) or is_file(text):
        return True
    return bool(_OPTION.fullmatch(where)) and not text.startswith("hub:") and names_code(text)


def is_file(text: Any) -> bool:
    """Whether it is `file.py:name`."""
    return isinstance(text, str) and ".py:" in text and names_code(text)


def anchored(tables: Mapping[str, Any], base: Path) -> Mapping[str, Any]:
    """The tables of a recipe with whole paths where they name files, relative to `base`, whose code is loaded
    while they become a recipe: the workflow and the kinds of stages."""
    found = dict(tables)
    said = tables.get("workflow")
    if isinstance(said, str):
        found["workflow"] = whole(said, base)
    elif isinstance(said, Mapping) and "name" in said:
        found["workflow"] = {**said, "name": whole(said["name"], base)}
    stages = tables.get("stage")
    if isinstance(stages, list | tuple):
        found["stage"] = [
            {**stage, "kind": whole(stage["kind"], base)}
            if isinstance(stage, Mapping) and "kind" in stage
            else stage
            for stage in stages
        ]
    return found


def whole(text: Any, base: Path) -> Any:
    """Code in a file with the file's whole path; anything else as it is."""
    path = file_of(text, base) if isinstance(text, str) and is_named(text) else None
    return text if path is None else f"{path.absolute()}:{text.rpartition(':')[2]}"
