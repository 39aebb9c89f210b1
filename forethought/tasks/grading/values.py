r"""One answer -> a Value: what kind of thing it is, exactly, with its unit, its name and its choice kept.

    read(r"x = 18\text{ cm}^2")    scalar 18, unit cm^2, name x
    read("(C) 5")                  choice C, whose text is the scalar 5
    read("[0, 1)")                 tuple with its brackets, two scalars
    read("no solution")            words

A reader gets an undressed text and what reads its parts, and returns a Value, or None where the text is not
of its kind.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from forethought.tasks.grading import algebra, expressions, notations, quantities, relations, several
from forethought.tasks.grading.algebra import TooLargeError
from forethought.tasks.grading.compare import Ask, same_values
from forethought.tasks.grading.dress import undressed
from forethought.tasks.grading.expressions import UnreadableError
from forethought.tasks.grading.numbers import number, ungrouped
from forethought.tasks.grading.value import Inner, Value, spelled

LONGEST = 400  # characters of an answer that are read; what is longer is compared as text
MOST_DEPTH = 6
CACHED = 1 << 15
_PLAIN = re.compile(r"-?[0-9]{1,300}(?:\.[0-9]{1,90})?")


@lru_cache(maxsize=CACHED)
def read(text: str) -> Value:
    """Any text in, a Value out; never an exception."""
    if len(text) > LONGEST:
        return Value("words", re.sub(r"\s+", "", text), re.sub(r"\s+", "", text))
    if _PLAIN.fullmatch(text):
        return Value("scalar", algebra.number(Fraction(text)), text)
    plain = undressed(text)
    return replace(_read(plain, 0), text=spelled(plain))


def same(gold: str, answer: str, ask: Ask | None = None) -> bool:
    """Whether two answers say the same, by our own reading, and where that cannot tell two expressions apart
    by `ask`, a larger algebra.

    Any two texts in, never an exception of ours out (what `ask` raises passes)."""
    return gold == answer or same_values(read(gold), read(answer), ask)


# --- the readers, in order ---


def _read(text: str, depth: int) -> Value:
    if (found := number(text)) is not None:
        return Value("scalar", algebra.number(found))
    if depth > MOST_DEPTH or not text:
        return Value("words", spelled(text))
    for reader in _READERS:
        value = reader(text, lambda part: _read(part, depth + 1))
        if value is not None:
            return value if value.text else replace(value, text=spelled(text))
    return _last(text)


def _last(text: str) -> Value:
    if _LATEX.search(text) and not _WORDLIKE.search(text):
        return Value("algebra", None, spelled(text))
    said = spelled(text).rstrip(".!")
    if _SAME_WORDS.get(said, said) == "all real numbers":
        return Value(
            "tuple", ("(", (Value("infinity", "-", "-∞"), Value("infinity", "", "∞")), ")"), spelled(text)
        )
    return Value("words", _SAME_WORDS.get(said, said), spelled(text))


_LATEX = re.compile(r"[\\^_=+*/()\d]")
_WORDLIKE = re.compile(r"⟦|(?<![\\A-Za-z])[A-Za-z]{2,}")
_SAME_WORDS = {
    "does not exist": "dne",
    "d.n.e": "dne",
    "no solutions": "no solution",
    "no real solutions": "no real solution",
    "all reals": "all real numbers",
    "ℝ": "all real numbers",
    "all real": "all real numbers",
    "empty set": "∅",
    "the empty set": "∅",
    "none of the above": "none of the above",
    "infinite": "infinite",
    "infinity": "infinite",
}


def _expression(text: str, inner: Inner) -> Value | None:
    if re.fullmatch(r"[A-Za-z]{2,}|[A-Z]+'*", text.strip()):
        return None  # `no` is a word and `ABC` a name: no products
    found = None
    try:
        found = expressions.read(ungrouped(text))
    except UnreadableError:
        return None
    except TooLargeError:
        return Value("large")
    return Value("scalar", found)


def _number_in_list(text: str, inner: Inner) -> Value | None:
    """A number in groups whose spaces or commas the readers of lists would split."""
    plain = ungrouped(text)
    return inner(plain) if plain != text else None


_READERS = (
    notations.worded,
    notations.infinity,
    notations.dated,
    notations.choice,
    notations.programmed,
    notations.based,
    notations.span,
    notations.glossed,
    notations.remainder,
    several.matrix,
    _number_in_list,
    quantities.quantity,
    several.listed,
    relations.equation,
    relations.relation,
    several.union,
    several.plus_or_minus,
    several.bracketed,
    notations.proportion,
    _expression,
)
