"""Plain tables to the records of `schema.py` and back, driven by the annotations there and strict about every
key.

    from_dict(to_dict(recipe)) == recipe
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from forethought.core.errors import RecipeError, unknown
from forethought.core.printable import cut
from forethought.recipe import earlier, kinds
from forethought.recipe.bounds import bounded
from forethought.recipe.ranges import listed
from forethought.recipe.roles import implied, resolved
from forethought.recipe.schema import LossSpec, Recipe, StageSpec, TaskSpec, TreeSpec, WorkflowSpec

# records whose own options are written beside their other keys
OPEN = {
    TaskSpec: 'task = { name = "desk", slip = 0.1 }',
    WorkflowSpec: 'workflow = { name = "plan_then_act", replan_after = 2 }',
    LossSpec: 'loss = { name = "dapo", clip_high = 0.3 }',
}
NAMED = (WorkflowSpec, LossSpec)  # whose name alone says the rest
FLAT = {**dict.fromkeys(OPEN, "options"), TreeSpec: "counts"}  # record -> its table that is written flat
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
    dict: "a table",
}
_SHAPES: dict[Any, Any] = {
    float: (int, float),
    tuple: (list, tuple),
    dict: Mapping,
}  # kind -> what may be one


def from_dict(data: Mapping[str, Any]) -> Recipe:
    """The recipe that these tables say, in old or new spelling; RecipeError names the address of the first
    key or value that does not fit."""
    bounded(data)
    return resolved(to_record(Recipe, implied(data), ""))


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Every setting, defaults included, as JSON can hold it: lists for tuples, a task's options flat beside
    its name, a tree's counts beside its temperature."""
    return _plain(recipe)


def join(where: str, key: object) -> str:
    """Address of a key below `where`, for errors ("stage.0" and "until" -> "stage.0.until")."""
    return f"{where}.{key}" if where else str(key)


def describe(value: Any) -> str:
    """What was found, for an error message: its kind and, shortened, itself."""
    shown = cut(repr(value))
    for kind, word in (
        (NoneType, "nothing"),
        (bool, "the truth value"),
        (int, "the whole number"),
        (float, "the number"),
    ):
        if isinstance(value, kind):
            return word if value is None else f"{word} {str(value).lower()}"
    if isinstance(value, str):
        return f"the text {shown}"
    if isinstance(value, Mapping):
        return f"a table with {', '.join(map(str, value)) or 'no keys'}"
    if isinstance(value, (list, tuple)):
        return f"the list {shown}"
    return f"a {type(value).__name__}, {shown}"


@cache  # a recipe of a thousand stages asks a thousand times
def fields_of(kind: type) -> Mapping[str, Any]:
    """Field name -> annotation of a record of the schema, as a recipe's text may write them."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.name != FLAT.get(kind)}


def to_record(kind: Any, value: Any, where: str) -> Any:
    """The value as the annotation `kind` asks. RecipeError with the address `where` for everything else."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return _option(value, where)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)  # type: ignore[arg-type]  # a class, not one of its instances
    if origin is Literal:
        return _choice(args, value, where)
    if origin in (Union, UnionType):
        return _either(args, value, where)
    if origin is tuple:
        return _tuple(args, value, where)
    if origin is dict:
        _need(isinstance(value, Mapping), "a table", value, where)
        return {str(k): to_record(args[1], v, join(where, k)) for k, v in value.items()}
    return _scalar(kind, value, where)


def _record(kind: type, value: Any, where: str) -> Any:
    if kind in NAMED and isinstance(value, str):
        return kind(name=value)
    _need(isinstance(value, Mapping), "a table", value, where)
    if kind is StageSpec:
        value = earlier.stage_of(value, where)
        kind = kinds.kind_of(value.get("kind", kinds.DEFAULT), join(where, "kind"))
        value = _own_keys(kind, value, where)
    hints = fields_of(kind)
    known = {k: to_record(hints[k], v, join(where, k)) for k, v in value.items() if k in hints}
    rest = {k: v for k, v in value.items() if k not in hints}
    if kind in OPEN:
        if "options" in rest:
            raise RecipeError(join(where, "options"), f"write options beside the name: {OPEN[kind]}")
        return kind(**known, options={k: _option(v, join(where, k)) for k, v in rest.items()})
    if kind is TreeSpec and all(type(v) is int for v in rest.values()):  # what is no role, `check` refuses
        return TreeSpec(**known, counts=rest)
    for key in rest:
        raise RecipeError(join(where, key), unknown_key(kind, key))
    return kind(**known)


def unknown_key(kind: type, key: str) -> str:
    """Of a stage: which other kinds read it."""
    others = kinds.readers(key) if issubclass(kind, StageSpec) else []
    if not others:
        return unknown("key", key, fields_of(kind))
    asked = listed([f'"{name}"' for name in others], "or")
    return f"unknown key of {kind.__name__.lower()} {key!r}; take it out, or make the stage kind = {asked}"


def _own_keys(kind: type, value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The tables of a stage without the keys that `kind` does not read and that say no more than the default
    of a kind which does: one record served all kinds once, and a resolved recipe named every default."""
    hints = fields_of(kind)
    return {k: v for k, v in value.items() if k in hints or not _is_default(k, value, join(where, k))}


def _is_default(key: str, stage: Mapping[str, Any], where: str) -> bool:
    if key == "roles" and "loss_share" in stage:  # a resolved recipe wrote out those of the workflow
        return True
    if not (names := kinds.readers(key)):
        return False
    other = kinds.KINDS[names[0]]
    return to_record(fields_of(other)[key], stage[key], where) == getattr(other(), key)  # type: ignore[arg-type]


def _tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        how = (
            "a list of tables is written [[...]] or [{ ... }]"
            if dataclasses.is_dataclass(args[0])
            else "a list is written [1, 2]"
        )
        raise RecipeError(where, f"expected a list, found {describe(value)}; {how}")
    if args[-1] is Ellipsis:
        kinds = [args[0]] * len(value)
    else:
        kinds = list(args)
        if len(value) != len(kinds):
            raise RecipeError(
                where, f"expected a list of exactly {len(kinds)}, found {len(value)}: {describe(value)}"
            )
    return tuple(to_record(k, v, join(where, i)) for i, (k, v) in enumerate(zip(kinds, value, strict=True)))


def _choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if isinstance(value, str) and value in choices:
        return value
    if isinstance(value, str) and "" not in choices:
        raise RecipeError(where, unknown("choice", value, choices))
    raise RecipeError(where, f"expected one of {', '.join(map(repr, choices))}, found {describe(value)}")


def _either(args: tuple[Any, ...], value: Any, where: str) -> Any:
    """`X | None`, a number or a word (`int | Literal["auto"]`), or several shapes (`str | tuple[str]`)."""
    if value is None and NoneType in args:
        return None
    word = next((kind for kind in args if get_origin(kind) is Literal), None)
    kinds = [kind for kind in args if kind is not NoneType and kind is not word]
    if word:
        if isinstance(value, str) and value in get_args(word):
            return value
        said = f"{_WORDS[kinds[0]]} or {' or '.join(map(repr, get_args(word)))}"
        _need(_is_scalar(kinds[0], value), said, value, where)
        return to_record(kinds[0], value, where)
    if len(kinds) == 1:
        return to_record(kinds[0], value, where)
    shapes = [get_origin(kind) or kind for kind in kinds]
    fits = [isinstance(value, _SHAPES.get(shape, shape)) for shape in shapes]
    _need(any(fits), " or ".join(_WORDS[shape] for shape in shapes), value, where)
    return to_record(kinds[fits.index(True)], value, where)


def _is_scalar(kind: type, value: Any) -> bool:
    if isinstance(value, bool) and kind is not bool:  # Python counts True as 1; a recipe does not
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _scalar(kind: type, value: Any, where: str) -> Any:
    _need(_is_scalar(kind, value), _WORDS[kind], value, where)
    try:
        return _finite(float(value) if kind is float else value, where)
    except OverflowError:
        raise RecipeError(
            where, "expected a finite number, found a whole number that is too large for one"
        ) from None


def _finite(value: Any, where: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(where, f"expected a finite number, found {value}")
    return value


def _option(value: Any, where: str) -> Any:
    """A taskset's own option: any finite plain value. Lists become tuples, so that a recipe cannot change
    under a run."""
    if isinstance(value, (list, tuple)):
        return tuple(_option(v, join(where, i)) for i, v in enumerate(value))
    if isinstance(value, Mapping):
        return {str(k): _option(v, join(where, k)) for k, v in value.items()}
    _need(
        value is None or isinstance(value, (str, bool, int, float)),
        "a number, text, a list or a table",
        value,
        where,
    )
    return _finite(value, where)


def _need(fits: bool, expected: str, found: Any, where: str) -> None:
    if not fits:
        raise RecipeError(where, f"expected {expected}, found {describe(found)}")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        flat = FLAT.get(type(value))
        found = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != flat}
        return found | (_plain(getattr(value, flat)) if flat else {})
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def to_toml(recipe: Recipe) -> str:
    """The whole recipe as a TOML file that loads back to an equal one. What TOML cannot say (nothing) is left
    out."""
    data = to_dict(recipe)
    tables = {k: v for k, v in data.items() if isinstance(v, dict)}
    lines = _assignments({k: v for k, v in data.items() if k not in tables and k != "stage"})
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_assignments(table)]
    for stage in data["stage"]:
        lines += ["", "[[stage]]", *_assignments(stage)]
    return "\n".join(lines) + "\n"


def to_text(value: Any) -> str:
    """A value of a recipe as TOML writes it."""
    return _toml(_plain(value))


def _assignments(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(k)} = {_toml(v)}" for k, v in table.items() if v is not None]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(_assignments(value))
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        said = json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML string but for DEL
        # C1, marks of direction: never raw on a terminal
        return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in said)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
