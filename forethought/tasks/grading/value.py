"""What an answer is once it is read, and the small tools that every reader shares."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from forethought.tasks.grading import expressions
from forethought.tasks.grading.algebra import Ratio, TooLargeError
from forethought.tasks.grading.expressions import UnreadableError
from forethought.tasks.grading.numbers import ungrouped
from forethought.tasks.grading.units import Unit

MOST_ITEMS = 60  # of a list, a set, a matrix


@dataclass(frozen=True, slots=True)
class Value:
    """`kind` says what `body` is:

    scalar   Ratio                    infinity  its sign           words     the text, cased as it counts
    list     items in any order       set       items, each once   union     intervals in any order
    tuple    (open, items, close)     matrix    (kind, rows)       based     (digits, base)
    ratio    numbers, the first 1     date      (year, month, day) clock     (minutes, whether marked a.m. or
             p.m.)
    span     (first, last), as written
    left     (quotient, remainder)    equation  Ratio that is 0, or None where unread (text compares)
    algebra  None: LaTeX that only a larger algebra reads           large    None: beyond the bounds
    """

    kind: str
    body: Any = None
    text: str = ""
    unit: Unit = ()
    bound: bool = False  # the unit is part of the value (3 hours 20 minutes) and cannot be left out
    name: str = ""
    choice: str = ""


Inner = Callable[[str], Value]
"""Reads a part of a text: one level deeper than the reader that calls it."""


def spelled(text: str) -> str:
    """The text in one spelling, without the spaces and cases that do not count: equal spellings are equal
    answers."""
    bare = " ".join(text.replace("⟦", " ").replace("⟧", " ").split())
    if re.fullmatch(r"[^\W\d_][^\W\d_ .'-]+(?:[ .'-]+[^\W\d_]+)*[.!']?", bare) and (
        re.search(r"[^\W\d_]{3}", bare) or bare.lower() in expressions.ENGLISH
    ):
        return bare.casefold()
    bare = re.sub(r" ?, (?=\d{3}(?!\d))", ",\x1f", bare)  # 100, 200 is not 100,200
    return re.sub(r"(?<![^\W_]) | (?![^\W_])", "", bare)


def split(text: str, marks: str, *, keep: bool = False) -> list[str] | None:
    """The text at the marks that stand outside of brackets and words; None where brackets do not close.
    Half-open intervals close with either bracket. `keep`: with the marks between the parts."""
    parts, start, stack, words = [], 0, 0, False
    at = 0
    while at < len(text):
        sign = text[at]
        if sign == "\\" and at + 1 < len(text) and text[at + 1] in "{}":
            sign, at = text[at + 1], at + 1
        if sign == "⟦":
            words = True
        elif sign == "⟧":
            words = False
        elif sign in "([{〈":
            stack += 1
        elif sign in ")]}〉":
            stack -= 1
            if stack < 0:
                return None
        elif sign in marks and stack == 0 and not words:
            parts.append(text[start:at])
            if keep:
                parts.append(sign)
            start = at + 1
        at += 1
    parts.append(text[start:])
    return parts if stack == 0 else None


def parsed(text: str) -> Ratio | None:
    """The text as algebra, None where it is a word, unreadable or too large."""
    if re.fullmatch(r"[A-Za-z]{2,}", text):
        return None
    try:
        return expressions.read(ungrouped(text))
    except (UnreadableError, TooLargeError):
        return None
