"""Reads actions that are written as Python-like calls, such as BrowserGym's, without evaluating anything.

    fill('a12', 'it\\'s done', button="left")        Call("fill", ("a12", "it's done"), {"button": "left"})

An argument is a literal: a text in quotes, a number, True, False, None, or a list of these. A name, an
operator, an attribute, an f-string, bytes, a nested call, a star: each is refused at its character. The only
thing that is given to Python is one text token that a pattern has read whole, for its escapes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forethought.interface.fields import Scan
from forethought.interface.jsons import number_of
from forethought.interface.result import Parsed, Refusal, Refused, quoted_text

MOST_CALLS, MOST_CHARACTERS, MOST_ITEMS = 16, 8192, 64
_ESCAPE = r"\\(?:[\\'\"abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
_TEXT = re.compile(rf"'(?:[^'\\\n\r\x00]|{_ESCAPE})*'|\"(?:[^\"\\\n\r\x00]|{_ESCAPE})*\"")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])")
_WORD = re.compile(r"(True|False|None)(?!\w)")
_NAMED = re.compile(r"[A-Za-z_]\w*+(?=\s*+=(?!=))", re.ASCII)
_WORDS = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its name, what stands in order, and what stands by name."""

    name: str
    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


def parse(text: str, most: int = MOST_CALLS) -> Parsed | Refusal:
    """The calls of a text as a tuple, at least one and at most `most`, separated by white space."""
    try:
        if len(text) > MOST_CHARACTERS:
            reason = f"longer than {MOST_CHARACTERS} characters"
            return Refusal(position=MOST_CHARACTERS + 1, reason=reason, unit="character")
        scan = Scan(text, 1)
        found: list[Call] = []
        while not scan.at_end() or not found:
            if len(found) == most:
                scan.refuse(
                    scan.position,
                    f"call {most + 1} begins here, and a turn has at most {most}",
                )
            found.append(_call(scan))
        return Parsed(tuple(found))
    except Refused as refused:
        return refused.refusal


def render(calls: Sequence[Call]) -> str:
    """The calls, one a line, that `parse` reads back to these. ValueError for what no literal says."""
    text = "\n".join(
        f"{call.name}({', '.join([*map(repr, call.args), *(f'{k}={v!r}' for k, v in call.named.items())])})"
        for call in calls
    )
    read = parse(text, max(len(calls), 1))
    if isinstance(read, Refusal) or read.value != tuple(calls):
        raise ValueError(f"these calls cannot be written: {read}")
    return text


def _call(scan: Scan) -> Call:
    name = scan.name_here()
    scan.need("(")
    args: list[Any] = []
    named: dict[str, Any] = {}
    closed = scan.take(")")
    while not closed:
        at = scan.position
        if match := _NAMED.match(scan.text, scan.at):
            if match[0] in named:
                scan.refuse(at, f"the argument {quoted_text(match[0])} stands here a second time")
            scan.at = match.end()
            scan.need("=")
            named[match[0]] = _literal(scan)
        elif named:
            scan.refuse(at, "an argument without a name after one with a name")
        else:
            args.append(_literal(scan))
        if len(args) + len(named) > MOST_ITEMS:
            scan.refuse(at, f"more than {MOST_ITEMS} arguments")
        closed = scan.need_one(",", ")") == ")"
    return Call(name.text, tuple(args), named)


def _literal(scan: Scan, in_list: bool = False) -> Any:
    at = scan.position
    if match := _TEXT.match(scan.text, scan.at):
        scan.at = match.end()
        return _text(scan, match[0], at)
    if match := _NUMBER.match(scan.text, scan.at):
        scan.at = match.end()
        return number_of(scan, match[0], at)
    if match := _WORD.match(scan.text, scan.at):
        scan.at = match.end()
        return _WORDS[match[0]]
    if not in_list and scan.take("["):
        items: list[Any] = []
        closed = scan.take("]")
        while not closed:
            if len(items) == MOST_ITEMS:
                scan.refuse(scan.position, f"more than {MOST_ITEMS} items")
            items.append(_literal(scan, in_list=True))
            closed = scan.need_one(",", "]") == "]"
        return items
    if not scan.at_end() and scan.text[scan.at] in "'\"":
        scan.refuse(at, "the text that begins here is not closed on its line, or holds an unknown escape")
    scan.refuse_here("a text in quotes, a number, True, False, None" + ("" if in_list else " or a list"))


def _text(scan: Scan, token: str, at: int) -> str:
    try:
        said = ast.literal_eval(token)
        said.encode("utf-8")
    except UnicodeEncodeError:
        scan.refuse(at, f"{quoted_text(token)} holds half a character")
    return said
