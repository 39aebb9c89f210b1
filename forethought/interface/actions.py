"""One action for every interface that people speak: `{"op", "words", "id", "value"}`.

`op` says what is done, `words` to which thing, as somebody who looks at it would say, `id` names that thing
for the machine, and `value` is what is put in. The planner writes words and no ids, since ids change from one
observation to the next; the actor fills them in. Each dialect writes the action its own way and reads it
back:

    own          {"op": "fill", "words": "the name field", "id": "e4", "value": "Ann"}
    playwright   {"name": "browser_type", "arguments": {"target": "e4", "element": "the name field", ...}}
    tool         {"name": "fill", "arguments": {"id": "e4", "words": "the name field", "value": "Ann"}}
    browsergym   fill('e4', 'Ann')                        (which has no place for words)

All are read strictly and nothing is evaluated: what does not fit is a `Refusal` at its character.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol

from forethought.core.errors import unknown
from forethought.interface import calls
from forethought.interface.calls import Call
from forethought.interface.jsons import Value, read_value
from forethought.interface.result import Parsed, Refusal, Refused, quoted_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One action. `words` and `id` are "" where it has none; `value` is None, a text, a number, True or
    False, a list of these, or (tools with several arguments) a table."""

    op: str
    words: str = ""
    id: str = ""
    value: Any = None


class Dialect(Protocol):
    """A way to write an action. `words`: whether it has a place for them."""

    @property
    def words(self) -> bool: ...

    def render(self, action: Action) -> str:
        """The text that `parse` reads back. ValueError for an action that this dialect cannot say."""

    def parse(self, text: str) -> Parsed | Refusal:
        """The action of a text that is one action and nothing else."""


@dataclass(frozen=True, slots=True)
class Own:
    """The action as a JSON object, with the keys that it has."""

    words: bool = True

    def render(self, action: Action) -> str:
        """Keys in the order op, words, id, value; those that say nothing are left out."""
        said = {"op": action.op, "words": action.words, "id": action.id}
        kept = {key: text for key, text in said.items() if text}
        return _json(kept if action.value is None else {**kept, "value": action.value})

    def parse(self, text: str) -> Parsed | Refusal:
        """An object with `op`, and no key but the four."""

        def read() -> Action:
            value = read_value(text)
            found = _object(value, ("op", "words", "id", "value"), ("op",))
            for key in {"op", "words", "id"} & found.keys():
                if not isinstance(found[key].inside, str):
                    _refuse(found[key].at, f"{key!r} is a text")
            if not found["op"].inside:
                _refuse(found["op"].at, "'op' is empty")
            return Action(**{key: one.plain for key, one in found.items()})

        return _read(read)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call as most libraries write it: `{"name": op, "arguments": {...}}`. `ids`, `said`: the names of
    the arguments that hold the id and the words; the rest is the value: alone where it is one argument named
    in `values`, else as a table. `names`: op -> the tool's name, where it differs."""

    ids: tuple[str, ...] = ("id",)
    said: tuple[str, ...] = ("words",)
    values: Mapping[str, str] = field(default_factory=lambda: {"": "value"})  # op ("": any) -> argument
    names: Mapping[str, str] = field(default_factory=dict)
    words: bool = True

    def render(self, action: Action) -> str:
        """The call. ValueError where the op has no place for the value."""
        arguments: dict[str, Any] = {}
        if action.id:
            arguments[self.ids[0]] = action.id
        if action.words:
            arguments[self.said[0]] = action.words
        if isinstance(action.value, Mapping):
            arguments |= action.value
        elif action.value is not None:
            key = self.values.get(action.op, self.values.get(""))
            if key is None:
                raise ValueError(f"{action.op} takes no value, found {action.value!r}")
            arguments[key] = action.value
        text = _json({"name": self.names.get(action.op, action.op), "arguments": arguments})
        return _same(text, self.parse(text), action)

    def parse(self, text: str) -> Parsed | Refusal:
        """The action of a call. Which arguments a tool takes, its own schema says."""

        def read() -> Action:
            found = _object(read_value(text), ("name", "arguments"), ("name", "arguments"))
            name, table = found["name"].inside, found["arguments"].inside
            if not isinstance(name, str) or not name:
                _refuse(found["name"].at, "'name' is the name of a tool")
            if not isinstance(table, dict):
                _refuse(found["arguments"].at, "'arguments' is an object")
            return self.action(name, found["arguments"].plain)

        return _read(read)

    def action(self, name: str, arguments: Mapping[str, Any]) -> Action:
        """What a call of the tool `name` does."""
        op = next((op for op, own in self.names.items() if own == name), name)
        rest, told = dict(arguments), {}
        for part, keys in (("id", self.ids), ("words", self.said)):
            key = next((key for key in keys if isinstance(rest.get(key), str) and rest[key]), None)
            told[part] = rest.pop(key) if key else ""
        own = self.values.get(op, self.values.get("", ""))
        value = rest[own] if rest.keys() == {own} and not isinstance(rest[own], dict) else rest or None
        return Action(op=op, value=value, **told)


PLAYWRIGHT = ToolCall(
    ids=("target", "ref"),
    said=("element",),
    values={
        "fill": "text",
        "select": "values",
        "press": "key",
        "goto": "url",
        "wait": "time",
    },
    names={
        "click": "browser_click",
        "hover": "browser_hover",
        "fill": "browser_type",
        "select": "browser_select_option",
        "press": "browser_press_key",
        "goto": "browser_navigate",
        "back": "browser_navigate_back",
        "wait": "browser_wait_for",
        "look": "browser_snapshot",
    },
)
"""The tools of Playwright-MCP 0.0.83 that take one thing."""


@dataclass(frozen=True, slots=True)
class BrowserGym:
    """An action string of BrowserGym 0.14 (one call): `SIGNATURES` of its sets bid, nav, chat and infeas."""

    words: bool = False

    def render(self, action: Action) -> str:
        """The call, without the words. ValueError where the op is none of BrowserGym's, or takes no such
        thing."""
        name = next((own for own, row in SIGNATURES.items() if row.op == action.op), None)
        if name is None:
            raise ValueError(unknown("op of BrowserGym", action.op, [row.op for row in SIGNATURES.values()]))
        args = (action.id,) if action.id else ()
        if isinstance(action.value, Mapping):
            call = Call(name, args, dict(action.value))
        else:
            call = Call(name, args if action.value is None else (*args, action.value))
        text = calls.render([call])
        return _same(text, self.parse(text), replace(action, words=""))

    def parse(self, text: str) -> Parsed | Refusal:
        """The action of one call whose arguments fit its signature."""
        read = calls.parse(text, most=1)
        if isinstance(read, Refusal):
            return read
        [call] = read.value
        row = SIGNATURES.get(call.name)
        if row is None:
            return _refusal(unknown("action of BrowserGym", call.name, SIGNATURES))
        names = (*(("bid",) if row.bid else ()), *row.takes)
        if len(call.args) > len(names):
            return _refusal(f"{call.name} takes at most {len(names)} arguments, found {len(call.args)}")
        told = dict(zip(names, call.args, strict=False))
        for key, value in call.named.items():
            if key in told or key not in names:
                reason = (
                    unknown(f"argument of {call.name}", key, names) if key not in told else f"{key} twice"
                )
                return _refusal(reason)
            told[key] = value
        for key in (*(("bid",) if row.bid else ()), *row.needs):
            if key not in told:
                return _refusal(f"{call.name} needs {key}")
        for key, value in told.items():
            kinds = (str,) if key == "bid" else KINDS.get(key, (str,))
            if not isinstance(value, kinds) or isinstance(value, bool):
                return _refusal(f"{key} of {call.name} is no {' or '.join(k.__name__ for k in kinds)}")
        id = told.pop("bid", "")
        if row.bid and not id:
            return _refusal(f"bid of {call.name} is empty")
        alone = len(told) == 1 and next(iter(told)) == row.takes[0]
        return Parsed(Action(op=row.op, id=id, value=next(iter(told.values())) if alone else told or None))


@dataclass(frozen=True, slots=True)
class Signature:
    """What an action of BrowserGym takes after the bid, where it takes one."""

    op: str
    bid: bool = False
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


SIGNATURES: dict[str, Signature] = {
    "click": Signature("click", True, ("button", "modifiers")),
    "dblclick": Signature("dblclick", True, ("button", "modifiers")),
    "hover": Signature("hover", True),
    "fill": Signature("fill", True, ("value",), ("value",)),
    "clear": Signature("clear", True),
    "focus": Signature("focus", True),
    "press": Signature("press", True, ("key_comb",), ("key_comb",)),
    "select_option": Signature("select", True, ("options",), ("options",)),
    "scroll": Signature("scroll", False, ("delta_x", "delta_y"), ("delta_x", "delta_y")),
    "goto": Signature("goto", False, ("url",), ("url",)),
    "go_back": Signature("back"),
    "go_forward": Signature("forward"),
    "noop": Signature("wait", False, ("wait_ms",)),
    "send_msg_to_user": Signature("say", False, ("text",), ("text",)),
    "report_infeasible": Signature("give_up", False, ("reason",), ("reason",)),
}
KINDS: dict[str, tuple[type, ...]] = {
    "modifiers": (list,),
    "options": (str, list),
    "delta_x": (int, float),
    "delta_y": (int, float),
    "wait_ms": (int, float),
}
"""Argument -> its types; every other is a text."""

DIALECTS: dict[str, Dialect] = {
    "own": Own(),
    "playwright": PLAYWRIGHT,
    "tool": ToolCall(),
    "browsergym": BrowserGym(),
}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _object(value: Value, known: tuple[str, ...], needs: tuple[str, ...]) -> dict[str, Value]:
    if not isinstance(value.inside, dict):
        _refuse(value.at, "an action is an object")
    for key in value.inside:
        if key not in known:
            assert value.keys is not None
            _refuse(value.keys[key], unknown("key", key, known))
    if missing := [key for key in needs if key not in value.inside]:
        _refuse(value.at, f"{missing[0]!r} is missing")
    return value.inside


def _read(read: Any) -> Parsed | Refusal:
    try:
        return Parsed(read())
    except Refused as refused:
        return refused.refusal


def _same(text: str, read: Parsed | Refusal, action: Action) -> str:
    if isinstance(read, Refusal) or read.value != action:
        raise ValueError(f"{quoted_text(text)} does not say {action}: {read}")
    return text


def _refusal(reason: str) -> Refusal:
    return Refusal(position=1, reason=reason, unit="character")


def _refuse(at: int, reason: str) -> NoReturn:
    raise Refused(Refusal(position=at, reason=reason, unit="character"))
