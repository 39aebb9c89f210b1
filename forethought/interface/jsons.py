"""Reads one JSON value strictly, and keeps the place of everything in it, so that what a schema refuses has a
character.

Stricter than the standard library: no key twice, no NaN or Infinity, no number that is longer than any
machine's, no half characters, nothing after the value, and no nesting deeper than `DEEPEST`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from forethought.interface.fields import Scan
from forethought.interface.result import quoted_text

DEEPEST = 12
_LONGEST = 40  # characters of a number
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Value:
    """A value and its first character (from 1). `inside`: what an object (str -> Value) or a list holds, else
    the plain value. `keys`: where each key of an object stands."""

    inside: Any
    at: int
    keys: dict[str, int] | None = None

    @property
    def plain(self) -> Any:
        """As `json.loads` gives it."""
        if isinstance(self.inside, dict):
            return {key: value.plain for key, value in self.inside.items()}
        return [value.plain for value in self.inside] if isinstance(self.inside, list) else self.inside


def read_value(text: str, start: int = 1) -> Value:
    """The only value of `text`. `start`: position of its first character, where it is part of a longer one.
    Raises Refused."""
    scan = Scan(text, start)
    value = _value(scan, DEEPEST)
    scan.need_end()
    return value


def _value(scan: Scan, deep: int) -> Value:
    at, here = scan.position, "" if scan.at_end() else scan.text[scan.at]
    if here == '"':
        return Value(scan.text_here().text, at)
    if here in ("{", "["):
        if not deep:
            scan.refuse(at, f"nested deeper than {DEEPEST}")
        return _object(scan, at, deep - 1) if here == "{" else _list(scan, at, deep - 1)
    if match := _NUMBER.match(scan.text, scan.at):
        scan.at = match.end()
        return Value(number_of(scan, match[0], at), at)
    if match := re.compile(r"[a-z]+").match(scan.text, scan.at):
        if match[0] in _WORDS:
            scan.at = match.end()
            return Value(_WORDS[match[0]], at)
    scan.refuse_here("a JSON value")


def number_of(scan: Scan, said: str, at: int) -> int | float:
    """The number that stands at `at`; refused where it is too long to read or larger than any number."""
    if len(said) > _LONGEST:
        scan.refuse(at, f"a number of {len(said)} characters, at most {_LONGEST} are read")
    number = float(said) if set(said) & set(".eE") else int(said)
    if not math.isfinite(number):
        scan.refuse(at, f"{quoted_text(said)} is larger than any number")
    return number


def _object(scan: Scan, at: int, deep: int) -> Value:
    scan.need("{")
    inside: dict[str, Value] = {}
    keys: dict[str, int] = {}
    closed = scan.take("}")
    while not closed:
        key = scan.text_here()
        if key.text in inside:
            scan.refuse(key.at, f"the key {quoted_text(key.text)} stands here a second time")
        scan.need(":")
        inside[key.text], keys[key.text] = _value(scan, deep), key.at
        closed = scan.need_one(",", "}") == "}"
    return Value(inside, at, keys)


def _list(scan: Scan, at: int, deep: int) -> Value:
    scan.need("[")
    inside: list[Value] = []
    closed = scan.take("]")
    while not closed:
        inside.append(_value(scan, deep))
        closed = scan.need_one(",", "]") == "]"
    return Value(inside, at)
