"""Classes that TRL's `GRPOTrainer(environment_factory=...)` takes (TRL 1.16): `trl:file.py:Class`.

Such a class has `reset(**row) -> None | str | list`, a `get_reward() -> float` where it scores itself, and
every other public method is a tool: its type hints give the schema, its Google docstring the descriptions.
TRL itself is not needed.

As in TRL, what a tool raises is shown to the model as its answer, and the reward is asked for once, at the
end. TRL ends an episode with the first turn that calls no tool; here a turn is always a call, and the tool
`finish` ends it (the option `finish` names it).

Options: `make` (arguments of the class), `rows` (a JSONL file, whose rows are the keyword arguments of
`reset`: they are the tasks), `finish`, and those of the tools (`tools`, `hide`, `calls`, `seam`).
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from forethought.core.errors import RecipeError, UserError
from forethought.core.jsonl import parse_lines
from forethought.core.named import load_named
from forethought.core.places import described
from forethought.envs.adapters.base import Answer, Shown
from forethought.envs.adapters.bridge import once
from forethought.envs.adapters.options import Options
from forethought.envs.adapters.tools import OfTools, Tool
from forethought.envs.values import need
from forethought.interface.calls import Call

WHERE = "task.environment"
NO_TOOLS = ("reset", "get_reward", "close")
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class Trl(OfTools):
    """An adapter of one class."""

    def __init__(self, rest: str, options: Options):
        self.made: Callable[..., Any] = load_named(rest, Path.cwd(), WHERE)
        if not isinstance(self.made, type):
            raise RecipeError(WHERE, f"{rest} is no class, but {described(self.made)}")
        if not callable(getattr(self.made, "reset", None)):
            raise RecipeError(
                WHERE, f"{rest} has no reset(**row), which TRL calls at the start of an episode"
            )
        self.name, self.arguments = rest.rpartition(":")[2], options.mapping("make")
        self.judges = callable(getattr(self.made, "get_reward", None))
        self.rows = _rows(options)
        self.given = len(self.rows) if self.rows else None
        self.speak(_tools(self.made, rest), options, WHERE)

    def session(self) -> TrlSession:
        """A fresh object of the class. TRL itself keeps and reuses them."""
        return TrlSession(self)

    def row(self, seed: int, level: int) -> dict[str, Any]:
        """What `reset` gets: the row of a task; without rows the seed and the level, where it takes them."""
        if self.rows:
            return dict(self.rows[seed])
        takes = inspect.signature(self.made.reset).parameters.values()  # type: ignore[attr-defined]
        any_name = any(p.kind is p.VAR_KEYWORD for p in takes)
        names = {p.name for p in takes}
        return {k: v for k, v in (("seed", seed), ("level", level)) if any_name or k in names}


class TrlSession:
    """One episode with one object."""

    def __init__(self, adapter: Trl):
        self._adapter = adapter
        self._object: Any = None

    def reset(self, seed: int, level: int) -> Shown:
        """What the object's reset gives: a text, or the text of messages."""
        self._object = self._adapter.made(**self._adapter.arguments)
        found = _awaited(self._object.reset(**self._adapter.row(seed, level)))
        if isinstance(found, list):
            return Shown(text="\n".join(_content(message) for message in found))
        need(found is None or isinstance(found, str), found, "text, messages or None")
        return Shown(text=found or "")

    def step(self, call: Call) -> Answer:
        """The tool's answer as text; what it raises is told to the model, as TRL does."""
        if self._adapter.ends(call):
            return Answer(text=str(call.named.get("answer", "")), terminated=True, parts={"tool_error": 0.0})
        try:
            found = _awaited(getattr(self._object, call.name)(**call.named))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"[:500]
            return Answer(text=f"error: {said}", reason=said, parts={"tool_error": 1.0})
        return Answer(text=found if isinstance(found, str) else str(found), parts={"tool_error": 0.0})

    def score(self) -> Any:
        """What the object says the episode was worth; None where it does not say."""
        asks = getattr(self._object, "get_reward", None)
        return _awaited(asks()) if callable(asks) else None

    def close(self) -> None:
        """Close the object, where it can be."""
        if callable(close := getattr(self._object, "close", None)):
            _awaited(close())


def _awaited(value: Any) -> Any:
    return once(_value(value)) if inspect.isawaitable(value) else value


async def _value(value: Any) -> Any:
    return await value


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else None
    need(isinstance(content, str), message, "a message with text as its content")
    return str(content)


def _rows(options: Options) -> list[dict[str, Any]]:
    name = options.text("rows")
    if not name:
        return []
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            rows, _ = parse_lines(file, path, lambda row: "")
    except OSError as error:
        raise RecipeError(options.address("rows"), f"{path} cannot be read: {error.strerror}") from None
    except UserError as error:
        raise RecipeError(options.address("rows"), str(error)) from None
    if not rows:
        raise RecipeError(options.address("rows"), f"{path} has no rows")
    return rows


# ---- methods as tools --------------------------------------------------------------------------------------


def _tools(made: type, reference: str) -> list[Tool]:
    """The public methods of a class, in the order in which they are written. RecipeError for one without type
    hints or a docstring, which TRL refuses too."""
    names = [
        name
        for kind in reversed(made.__mro__)
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in NO_TOOLS
    ]
    return [_tool(getattr(made, name), f"{reference}.{name}") for name in dict.fromkeys(names)]


def _tool(method: Any, where: str) -> Tool:
    text = inspect.getdoc(method)
    if not text:
        raise RecipeError(WHERE, f"{where} has no docstring: it is a tool, and the model reads what it does")
    what, arguments = _described(text)
    hints = typing.get_type_hints(method)
    properties: dict[str, Any] = {}
    required = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise RecipeError(WHERE, f"{where} takes *{parameter.name}, which no schema describes")
        if parameter.name not in hints:
            raise RecipeError(WHERE, f"{where} has no type hint for {parameter.name!r}")
        properties[parameter.name] = _schema(hints[parameter.name], f"{where}.{parameter.name}")
        if parameter.name in arguments:
            properties[parameter.name]["description"] = arguments[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(name=method.__name__, description=what, schema=schema)


def _schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON Schema of a type hint, as `transformers.utils.get_json_schema` makes it."""
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if hint is Any:
        return {}
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        kinds = {type(one) for one in inside}
        return ({"type": PLAIN[kinds.pop()]} if len(kinds) == 1 else {}) | {"enum": list(inside)}
    if origin in (list, tuple) or hint in (list, tuple):
        return {"type": "array"} | ({"items": _schema(inside[0], where)} if inside else {})
    if origin is dict or hint is dict:
        return {"type": "object"}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(one, where) for one in inside]}
    raise RecipeError(WHERE, f"{where} has the type {hint}, which no schema describes here")


_ARGS = re.compile(r"^(Args|Arguments|Parameters):\s*$", re.MULTILINE)
_NEXT = re.compile(r"^(Returns|Raises|Yields|Example|Examples|Note|Notes):", re.MULTILINE)
_ARGUMENT = re.compile(r"^\s*(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def _described(text: str) -> tuple[str, dict[str, str]]:
    """(what it does, argument -> what it is) of a docstring in Google's style."""
    head = _ARGS.search(text)
    what = text[: head.start()] if head else text
    what = what[: end.start()] if (end := _NEXT.search(what)) else what
    found: dict[str, str] = {}
    body = text[head.end() :] if head else ""
    body = body[: end.start()] if (end := _NEXT.search(body)) else body
    last = ""
    for line in body.splitlines():
        if match := _ARGUMENT.match(line):
            last, found[match[1]] = match[1], match[2].strip()
        elif last and line.strip():
            found[last] += f" {line.strip()}"
    return " ".join(what.split()), found
