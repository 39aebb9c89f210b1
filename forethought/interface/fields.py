"""Reads the two flat forms in which a planner writes GUI steps, without a general parser: every step is keys
with texts.

    JSON     [{"op": "tap", "target": "the Save button at the bottom"}, ...]
    calls    do(action="Tap", element_description="the Save button at the bottom")       one after the other

Nothing here nests, so no input can exhaust the stack; nothing is looked up or run; whatever is not a key with
a text (numbers, null, NaN, lists, code) is refused at its character. What keys and texts mean is the business
of `gui`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from forethought.interface.result import END, Refusal, Refused, quoted_text

_SPACE = re.compile(r"[ \t\r\n]*")
# the two sides of the alternation share no character: linear
_TEXT = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Text:
    """A key or a text, and its first character (from 1, as refusals count)."""

    text: str
    at: int


Fields = dict[str, tuple[Text, Text]]
"""Key -> (the key, its text), in the order of the step; a second use of a key has been refused."""


def read_json(text: str, most: int, start: int = 1) -> list[tuple[int, Fields]]:
    """(First character, fields) of each object of a JSON list. Raises Refused."""
    scan = Scan(text, start)
    scan.need("[")
    found: list[tuple[int, Fields]] = []
    closed = scan.take("]")
    while not closed:
        at = scan.need("{")
        scan.need_room(at, len(found), most)
        found.append((at, scan.fields(key=scan.text_here, between=":", end="}")))
        closed = scan.need_one(",", "]") == "]"
    scan.need_end()
    return found


def read_calls(text: str, function: str, most: int, start: int = 1) -> list[tuple[int, Fields]]:
    """(First character, fields) of each call of `function`, with keyword arguments only. Raises Refused."""
    scan = Scan(text, start)
    found: list[tuple[int, Fields]] = []
    while not scan.at_end():
        at = scan.position
        name = scan.name_here()
        if name.text != function:
            scan.refuse(at, f"found {quoted_text(name.text)}, expected {function!r}")
        scan.need_room(at, len(found), most)
        scan.need("(")
        found.append((at, scan.fields(key=scan.name_here, between="=", end=")")))
    return found


class Scan:
    """A place in the text, for readers of one pass: no look back, nothing that nests by itself. Every method
    skips white space first; what does not fit raises Refused."""

    def __init__(self, text: str, start: int):
        self.text, self.at, self.start = text, 0, start

    @property
    def position(self) -> int:
        """Of the next character that is not white space, as refusals count."""
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # nothing is white space too
        return self.start + self.at

    def at_end(self) -> bool:
        return self.position == self.start + len(self.text)

    def refuse(self, position: int, reason: str) -> NoReturn:
        raise Refused(Refusal(position=position, reason=reason, unit="character"))

    def refuse_here(self, expected: str) -> NoReturn:
        found = END if self.at_end() else quoted_text(self.text[self.at])
        self.refuse(self.position, f"found {found}, expected {expected}")

    def take(self, mark: str) -> bool:
        here = not self.at_end() and self.text[self.at] == mark
        self.at += here
        return here

    def need(self, mark: str) -> int:
        """Past the mark; returns its position."""
        at = self.position
        if not self.take(mark):
            self.refuse_here(repr(mark))
        return at

    def need_room(self, at: int, count: int, most: int) -> None:
        if count == most:
            self.refuse(at, f"step {count + 1} begins here, and a plan has at most {most}")

    def need_one(self, *marks: str) -> str:
        for mark in marks:
            if self.take(mark):
                return mark
        self.refuse_here(" or ".join(map(repr, marks)))

    def need_end(self) -> None:
        if not self.at_end():
            self.refuse_here(END)

    def name_here(self) -> Text:
        """The name that stands here, with its place. Refused where there is none."""
        at = self.position
        match = _NAME.match(self.text, self.at)
        if match is None:
            self.refuse_here("a name")
        self.at = match.end()
        return Text(match[0], at)

    def text_here(self) -> Text:
        """The text in double quotes that stands here, read as JSON reads it. Refused where there is none."""
        at = self.position
        match = _TEXT.match(self.text, self.at)
        if match is None:
            if not self.at_end() and self.text[self.at] == '"':
                self.refuse(at, "the text that begins here is not closed on its line")
            self.refuse_here("a text in double quotes")
        try:
            said = json.loads(match[0])
            said.encode("utf-8")  # half a surrogate pair is no character, and no file can hold it
        except (json.JSONDecodeError, UnicodeEncodeError):
            self.refuse(at, f"{quoted_text(match[0])} holds an escape that means no character")
        self.at = match.end()
        return Text(said, at)

    def fields(self, key: Callable[[], Text], between: str, end: str) -> Fields:
        """Past `end`: the fields of a step, separated by commas."""
        found: Fields = {}
        if self.take(end):
            return found
        while True:
            name = key()
            if name.text in found:
                self.refuse(name.at, f"the key {quoted_text(name.text)} stands here a second time")
            self.need(between)
            found[name.text] = (name, self.text_here())
            if self.need_one(",", end) == end:
                return found
