"""A recipe from a TOML file, from a shipped recipe's name, or from the recipe.json of a run, with overrides
on top."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_origin

from forethought.core import consent
from forethought.core.errors import RecipeError, UserError
from forethought.core.textfile import read_text
from forethought.recipe import code, earlier, kinds
from forethought.recipe.bounds import MOST_DEPTH, bounded
from forethought.recipe.convert import (
    FLAT,
    NAMED,
    describe,
    fields_of,
    from_dict,
    join,
    to_dict,
    to_text,
    unknown_key,
)
from forethought.recipe.paths import anchored
from forethought.recipe.roles import names_workflow, trains_all
from forethought.recipe.schema import Recipe, StageSpec
from forethought.recipe.speaking import is_workflow

CHANGES = "changes"  # in a run's recipe.json: what was changed when it was resumed (`runs/changes.py`)
NO_MORE: Mapping[str, Any] = MappingProxyType({})
_PACKAGE = Path(__file__).parents[1]
MOST_NEAR = 5  # recipes of a folder that an error lists
_MANY_DIGITS = re.compile(r"[0-9_]{1000}")


def load(
    source: str | Path, overrides: Iterable[str] = (), beside: Path | None = None, *, trains: bool = True
) -> Recipe:
    """The recipe at `source`, with `overrides` such as "stage.0.until.steps=50" applied in order. Its paths
    are whole: those in a file were relative to it, those in `overrides` are to `beside` (None: the working
    directory); see `paths`.

    `source` is a TOML file, the name of a shipped recipe ("desk"), a run's recipe.json, or the run's
    directory. Every fault is a RecipeError with the address of the value (or, for a syntax error, file and
    line). What cannot work together is the business of `check`. UserError for a run that names code to which
    nobody has consented (`core.consent`); `trains` False: it will only be looked at.
    """
    path = _find(source)
    own = path.name != "recipe.json" and path.parent != _shipped_folder()
    tables = read_tables(path)
    if path.name == "recipe.json":
        tables = {key: value for key, value in tables.items() if key != CHANGES}
        consent.need(code.code_in(tables, trains), path.parent)
    elif isinstance(tables, dict):
        tables = {"name": path.stem} | tables  # a recipe without a name has that of its file
    found = of_tables(tables, path.parent if own else Path.cwd())
    return override(found, overrides, beside, chosen=names_workflow(tables))


def written_in(source: str | Path, overrides: Iterable[str] = ()) -> frozenset[str]:
    """Addresses of the values that the user has written himself: those of `overrides`, and all of a recipe
    that is no shipped one."""
    path = _find(source)
    tables = {} if path.parent == _shipped_folder() else read_tables(path)
    return written_of(tables) | {text.partition("=")[0].strip() for text in overrides}


def written_of(tables: Any, where: str = "") -> frozenset[str]:
    """Addresses of the values in plain tables; an empty table is a value."""
    inside = (
        tables.items()
        if isinstance(tables, Mapping)
        else enumerate(tables)
        if isinstance(tables, list)
        else ()
    )
    found = frozenset().union(*(written_of(value, join(where, key)) for key, value in inside))
    return found or frozenset([where] if where else [])


def of_tables(tables: Mapping[str, Any], base: Path) -> Recipe:
    """The recipe that plain tables say, in whole paths: those in it are relative to the folder `base`.
    RecipeError as `load` raises it."""
    return anchored(from_dict(code.anchored(tables, base)), base)


def override(
    recipe: Recipe, overrides: Iterable[str], beside: Path | None = None, *, chosen: bool = True
) -> Recipe:
    """The recipe with changes such as "stage.0.until.steps=50" applied in order, their paths relative to
    `beside`. `chosen` False: nobody has named its workflow, so what is changed may ask for another one.
    RecipeError as `load` raises it."""
    overrides = list(overrides)
    if not overrides:
        return recipe
    overrides = _with_workflow(recipe, overrides)
    data = to_dict(recipe)  # the resolved one: an override reaches defaults as well
    for stage, said in zip(recipe.stage, data["stage"], strict=True):
        # of another workflow, too
        if is_workflow(recipe.workflow.name) and stage.roles and trains_all(recipe, stage):
            said["roles"] = []
    if not chosen:
        data["workflow"] = {k: v for k, v in data["workflow"].items() if k != "name"}
    for text in overrides:
        _override(data, text)
    return of_tables(data, beside or Path.cwd())


def _with_workflow(recipe: Recipe, overrides: list[str]) -> list[str]:
    """The overrides, after a choice of a workflow what the recipe's `under` says for it."""
    chosen = [text for text in overrides if text.partition("=")[0].strip() in ("workflow", "workflow.name")]
    if not chosen:
        return overrides
    value = _value(chosen[-1].partition("=")[2].strip(), Any, "workflow")
    name = str(value.get("name", "") if isinstance(value, dict) else value)
    own = [f"{where}={to_text(value)}" for where, value in recipe.under.get(name, {}).items()]
    return [*chosen, *own, *(text for text in overrides if text not in chosen)]


def shipped() -> list[tuple[str, Path, str]]:
    """(name, file, about) of every recipe that comes with the library, by name."""
    files = sorted(_shipped_folder().glob("*.toml"), key=lambda path: path.stem)
    return [(path.stem, path, str(read_tables(path).get("about", ""))) for path in files]


def shipped_arms() -> dict[str, Path]:
    """Name -> file of every set of arms that comes with the library."""
    return {path.stem: path for path in sorted((_shipped_folder() / "arms").glob("*.toml"))}


def write_resolved(recipe: Recipe, path: Path, more: Mapping[str, Any] = NO_MORE) -> None:
    """Write the whole recipe as JSON that `load` reads back to an equal one, and what a run says beside it
    (`more`). Written beside and renamed: never half there."""
    beside = path.with_name(path.name + ".new")
    with open(beside, "w", encoding="utf-8") as file:
        json.dump({**to_dict(recipe), **more}, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _shipped_folder() -> Path:
    # A wheel carries the recipes inside the package; in a checkout they lie beside it. Never look beside an
    # installed package: that folder is site-packages, where `recipes` may be anybody's.
    inside = _PACKAGE / "recipes"
    return inside if inside.is_dir() else _PACKAGE.parent / "recipes"


def _find(source: str | Path) -> Path:
    path = Path(os.path.expanduser(source))
    names = {p.stem: p for p in _shipped_folder().glob("*.toml")}
    # a bare name is the shipped one, whatever lies in this directory; ./desk is the path
    if str(source) in names:
        return names[str(source)]
    if os.path.isdir(path):
        if not (path / "recipe.json").is_file():
            inside = sorted(path.glob("*.toml")) or sorted(path.glob("*/*.toml"))
            listed = f"; recipes in it: {', '.join(map(str, inside[:MOST_NEAR]))}" if inside else ""
            raise RecipeError(
                str(path),
                "is a directory without a recipe.json, so it is not a run; give a run, a .toml file or a "
                f"name{listed}",
            )
        return path / "recipe.json"
    if os.path.isfile(path):  # False, where Path would raise: a name that is too long, a NUL in it
        return path
    near = difflib.get_close_matches(str(source), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(sorted(names)) or "none"
    raise RecipeError(str(source), f"is neither a file nor a shipped recipe{hint} (shipped: {shown})")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of JSON, in which the last of two keys of one name would win without a word."""
    keys = [key for key, _ in pairs]
    if again := next((key for i, key in enumerate(keys) if key in keys[:i]), None):
        raise RecipeError("", f"the key {again!r} stands twice in one table; take one of them out")
    return dict(pairs)


def read_tables(path: Path) -> dict[str, Any]:
    """Tables of a TOML or JSON file. RecipeError with line and column where it cannot be read."""
    try:
        text = read_text(path)
        is_json = path.suffix == ".json"
        data = json.loads(text, object_pairs_hook=_table) if is_json else tomllib.loads(text)
    except RecipeError as error:
        raise RecipeError(str(path), str(error)) from None
    except UserError as error:  # no file, or no text
        raise RecipeError("", str(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(str(path), f"not valid TOML: {_with_line(error, text)}") from None
    except json.JSONDecodeError as error:
        raise RecipeError(
            str(path), f"not valid JSON: {error.msg} (at line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError:  # Python's bound on the digits of a whole number
        number = next(
            (f":{n}" for n, line in enumerate(text.split("\n"), 1) if _MANY_DIGITS.search(line)), ""
        )
        raise RecipeError(
            f"{path}{number}", "a whole number of thousands of digits; give one of at most 64 bits"
        ) from None
    except RecursionError:
        raise RecipeError(
            str(path), f"tables and lists are nested more than {MOST_DEPTH} deep; a recipe needs a few levels"
        ) from None
    if not isinstance(data, dict):
        raise RecipeError(str(path), f"expected a table, found {describe(data)}")
    bounded(data)
    return data


def _with_line(error: tomllib.TOMLDecodeError, text: str) -> str:
    message = str(error)
    return message.replace("at end of document", f"at line {text.count(chr(10)) + 1}, the end of the file")


def _override(data: dict[str, Any], text: str) -> None:
    """Set one value in resolved tables, in place. The value's own type is checked when the tables become a
    recipe."""
    address, equals, raw = (part.strip() for part in text.partition("="))
    if not equals or not address:
        raise RecipeError(text, "an override is written address=value, such as stage.0.until.steps=50")
    address, raw = earlier.setting(address, raw)
    node, kind, where = data, Recipe, ""
    *above, last = address.split(".")
    first = address.split(".")[0]
    if first not in fields_of(Recipe) and kinds.readers(first):
        raise RecipeError(
            address,
            f"unknown key {first!r}, which is a stage's: --set stage.N.{address}={raw}, where N counts "
            "the stages from 0",
        )
    for key in above:
        key, child = _child(kind, node, key, where)
        # only where the recipe chooses the names: reward.plan, task.option
        if isinstance(node, dict) and key not in node:
            node[key] = [] if get_origin(child) is tuple else {}
        node, kind, where = node[key], child, join(where, key)
    last, child = _child(kind, node, last, where)
    value = _value(raw, child, join(where, last))
    node[last] = {"name": value} if child in NAMED and isinstance(value, str) else value


def _child(kind: Any, node: Any, key: str, where: str) -> tuple[Any, Any]:
    """The key or index that `key` means inside `node`, and the annotation of what is there."""
    origin = get_origin(kind)
    if is_dataclass(kind):
        old = (
            key in earlier.STAGE and kind is StageSpec
        )  # it becomes today's word with the rest of the tables
        kind = kinds.kind_of(node["kind"], join(where, "kind")) if kind is StageSpec else kind
        hints = fields_of(kind)  # type: ignore[arg-type]  # a class, not one of its instances
        if key not in hints and kind not in FLAT and not old:
            raise RecipeError(join(where, key), unknown_key(kind, key))
        return key, hints.get(key, Any)
    if isinstance(node, dict) and (origin is dict or kind is Any):
        return key, get_args(kind)[1] if origin is dict else Any
    if isinstance(node, list):
        if not key.isdecimal() or int(key) >= len(node):
            exists = (
                f"{where} has {len(node)} entries, 0 to {len(node) - 1}"
                if node
                else f"{where} is empty; set the whole list"
            )
            raise RecipeError(join(where, key), f"no such entry: {exists}")
        return int(key), get_args(kind)[0] if origin is tuple else Any
    raise RecipeError(join(where, key), f"nothing lies under {where}, which is {describe(node)}")


def _value(raw: str, kind: Any, where: str) -> Any:
    """A TOML value, or the bare text where that is no TOML (layout=shared) or where text is wanted anyway
    (name=7)."""
    if kind is str and not raw.startswith(('"', "'")):
        return raw
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    except (ValueError, RecursionError):
        raise RecipeError(
            where, "a whole number of thousands of digits, or a value nested without end; give a smaller one"
        ) from None
    if parsed.keys() != {"value"} or (kind is str and not isinstance(parsed["value"], str)):
        return raw
    return parsed["value"]
