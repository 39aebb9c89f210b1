"""JSON Schema as a grammar of arguments: what tools of other libraries declare, read strictly.

Covered: `type` (one or several), `properties`, `required`, `items`, `enum`, `const`, `anyOf`, `allOf` of one,
`$ref` to the schema's own `$defs`, and the bounds of numbers, texts and lists. Keys that an object does not
declare are refused, whatever `additionalProperties` says: nobody told the model of them. `pattern` and
`format` are the server's business.

Not covered, and refused by name when a tool is read (`cover`): `oneOf`, `not`, `if`, `patternProperties`,
`prefixItems`, `dependentSchemas`, references to elsewhere, and references that come back to themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from forethought.core.errors import UserError, unknown
from forethought.interface.jsons import Value
from forethought.interface.result import Refusal, Refused, alternatives, quoted_text

Schema = Mapping[str, Any]
UNCOVERED = ("oneOf", "not", "if", "patternProperties", "prefixItems", "dependentSchemas", "contains")
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_DEEPEST = 12


def cover(schema: Any, where: str) -> None:
    """UserError with the place in the schema for the first thing in it that this module does not cover."""
    _cover(schema, where, schema if isinstance(schema, Mapping) else {}, ())


def check(schema: Schema, value: Value, where: str = "") -> Any:
    """The value as plain Python where it fits a schema that `cover` accepts; else raises Refused. `where`:
    how a refusal calls the value."""
    return _checked(schema, value, where, schema)


def written(schema: Schema) -> str:
    """What a value may be, in a few words, for a prompt: `"red" | "blue"`, `integer`, `list of string`."""
    return _written(schema, schema, _DEEPEST)


# ---- what is covered ---------------------------------------------------------------------------------------


def _cover(schema: Any, where: str, root: Schema, seen: tuple[str, ...]) -> None:
    if schema is True or schema == {}:
        return
    if not isinstance(schema, Mapping):
        raise UserError(f"{where}: {quoted_text(repr(schema))} is not a schema")
    if found := next((key for key in UNCOVERED if key in schema), None):
        raise UserError(f"{where}: {found!r} is not covered; {_HIDE}")
    if "$ref" in schema:
        name = schema["$ref"]
        if name in seen:
            raise UserError(f"{where}: the reference {name!r} comes back to itself; {_HIDE}")
        _cover(_target(root, name, where), where, root, (*seen, name))
        return
    kinds = _kinds(schema)
    if wrong := [kind for kind in kinds if kind not in _KINDS]:
        raise UserError(f"{where}.type: {unknown('type', wrong[0], _KINDS)}")
    if len(schema.get("allOf", ())) > 1:
        raise UserError(f"{where}: 'allOf' of several is not covered; {_HIDE}")
    for key in ("allOf", "anyOf"):
        for i, option in enumerate(schema.get(key, ())):
            _cover(option, f"{where}.{key}.{i}", root, seen)
    for name, inner in schema.get("properties", {}).items():
        _cover(inner, f"{where}.{name}", root, seen)
    if "items" in schema:
        _cover(schema["items"], f"{where}.items", root, seen)


_HIDE = "hide the tool (task.hide), or give it a plainer schema"


def _target(root: Schema, name: Any, where: str) -> Any:
    found: Any = root
    parts = name.removeprefix("#/").split("/") if isinstance(name, str) and name.startswith("#/") else [""]
    for part in parts:
        if not isinstance(found, Mapping) or part not in found:
            raise UserError(f"{where}: the reference {name!r} names nothing in its schema; {_HIDE}")
        found = found[part]
    return found


def _kinds(schema: Schema) -> tuple[str, ...]:
    said = schema.get("type")
    if said is None:
        return ("object",) if "properties" in schema else ()
    return tuple(said) if isinstance(said, list | tuple) else (said,)


# ---- a value -----------------------------------------------------------------------------------------------


def _checked(schema: Any, value: Value, where: str, root: Schema) -> Any:
    if schema is True or not schema:
        return value.plain
    if "$ref" in schema:
        return _checked(_target(root, schema["$ref"], where), value, where, root)
    for inner in schema.get("allOf", ()):
        _checked(inner, value, where, root)
    if options := schema.get("anyOf"):
        return _any(options, value, where, root)
    plain = value.plain
    for listed in (schema.get("enum"), [schema["const"]] if "const" in schema else None):
        if listed is not None and not any(_same(plain, one) for one in listed):
            _refuse(value.at, where, f"found {_shown(plain)}, expected {_listed(listed)}")
    kinds = _kinds(schema)
    if kinds and not any(_is(plain, kind) for kind in kinds):
        _refuse(value.at, where, f"found {_shown(plain)}, expected {alternatives(list(kinds))}")
    _check_bounds(schema, plain, value.at, where)
    if isinstance(plain, dict) and "properties" in schema:
        return _object(schema, value, where, root)
    if isinstance(plain, list) and "items" in schema:
        return [_checked(schema["items"], v, f"{where}[{i}]", root) for i, v in enumerate(value.inside)]
    return plain


def _any(options: Any, value: Value, where: str, root: Schema) -> Any:
    """The first option that fits; else the refusal that got furthest."""
    refusals = []
    for option in options:
        try:
            return _checked(option, value, where, root)
        except Refused as refused:
            refusals.append(refused)
    furthest = max(refusals, key=lambda refused: refused.refusal.position)
    if furthest.refusal.position > value.at:
        raise furthest
    expected = " or ".join(_written(option, root, _DEEPEST) for option in options)
    _refuse(value.at, where, f"found {_shown(value.plain)}, expected {expected}")


def _object(schema: Schema, value: Value, where: str, root: Schema) -> dict[str, Any]:
    known = schema["properties"]
    for key in value.inside:
        if key not in known:
            assert value.keys is not None
            _refuse(value.keys[key], where, unknown("key", key, known))
    if missing := [key for key in schema.get("required", ()) if key not in value.inside]:
        _refuse(value.at, where, f"{missing[0]!r} is missing")
    # in the order of the schema, so that one value has one spelling
    return {
        key: _checked(inner, value.inside[key], f"{where}.{key}" if where else key, root)
        for key, inner in known.items()
        if key in value.inside
    }


def _check_bounds(schema: Schema, plain: Any, at: int, where: str) -> None:
    if isinstance(plain, str | list):
        least, most, what = (
            ("minLength", "maxLength", "characters")
            if isinstance(plain, str)
            else ("minItems", "maxItems", "items")
        )
        if not schema.get(least, 0) <= len(plain) <= schema.get(most, len(plain)):
            bounds = f"{schema.get(least, 0)} to {schema.get(most, 'any number of')}"
            _refuse(at, where, f"{len(plain)} {what}, expected {bounds}")
    if isinstance(plain, int | float) and not isinstance(plain, bool):
        for key, fits, words in (
            ("minimum", lambda bound: plain >= bound, "at least"),
            ("maximum", lambda bound: plain <= bound, "at most"),
            ("exclusiveMinimum", lambda bound: plain > bound, "more than"),
            ("exclusiveMaximum", lambda bound: plain < bound, "less than"),
        ):
            if key in schema and not fits(schema[key]):
                _refuse(at, where, f"{plain} must be {words} {schema[key]}")


def _is(plain: Any, kind: str) -> bool:
    """True and False are no numbers; 2.0 is an integer, as the standard says."""
    if isinstance(plain, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(plain, float):
        return plain.is_integer()
    return isinstance(plain, _KINDS[kind])


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _shown(plain: Any) -> str:
    return quoted_text(plain) if isinstance(plain, str) else quoted_text(repr(plain)).strip("'\"")


def _listed(listed: Any) -> str:
    shown = [_shown(one) for one in list(listed)[:20]]
    return alternatives(shown) + (" ..." if len(listed) > 20 else "")


def _refuse(at: int, where: str, reason: str) -> NoReturn:
    raise Refused(Refusal(position=at, reason=f"{where}: {reason}" if where else reason, unit="character"))


# ---- for a prompt ------------------------------------------------------------------------------------------


def _written(schema: Any, root: Schema, deep: int) -> str:
    if schema is True or not schema or not deep:
        return "any"
    if "$ref" in schema:
        return _written(_target(root, schema["$ref"], ""), root, deep - 1)
    if "enum" in schema or "const" in schema:
        listed = schema["enum"] if "enum" in schema else [schema["const"]]
        return " | ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in listed)
    if options := schema.get("anyOf") or schema.get("allOf"):
        return " | ".join(dict.fromkeys(_written(option, root, deep - 1) for option in options))
    names = []
    for kind in _kinds(schema):
        if kind == "array":
            names.append(f"list of {_written(schema.get('items'), root, deep - 1)}")
        elif kind == "object" and "properties" in schema:
            names.append(f"{{{fields(schema, root, deep - 1)}}}")
        else:
            names.append(kind)
    return " | ".join(names) or "any"


def fields(schema: Schema, root: Schema | None = None, deep: int = _DEEPEST) -> str:
    """The keys of an object with what they may be: `button: "red" | "blue", times?: integer`."""
    required = schema.get("required", ())
    return ", ".join(
        f"{name}{'' if name in required else '?'}: {_written(inner, root or schema, deep)}"
        for name, inner in schema.get("properties", {}).items()
    )
