r"""Units and counted things: what stands behind a number and says what it counts.

    unit("cm^2"), unit("miles per hour"), unit("red apples"); None for "million", "not sure", "x y"

A unit has one or more meanings (a pound is money or a mass), each with its dimensions, a factor to the
dimension's own unit, and the adjectives of a counted thing. Two units agree where a meaning of the one has
the dimensions of a meaning of the other.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from forethought.tasks.grading.tables import AFTER_A_UNIT, BARE_LETTERS, NO_ADJECTIVE, NO_NOUN, NOUNS, UNITS

MOST_WORDS = 6


class Meaning(NamedTuple):
    dimensions: tuple[tuple[str, int], ...]
    factor: Fraction
    adjectives: frozenset[str] = frozenset()


Unit = tuple[Meaning, ...]
DEGREE: Unit = (Meaning(*UNITS["deg"][0]),)
RADIAN: Unit = (Meaning(*UNITS["rad"][0]),)

_TOKEN = re.compile(r"[⟦⟧\s]+|(\^ ?\{? ?-? ?[1-4] ?\}?)|([/*])|([^\s⟦⟧/*^]+)")
_DEGREES = re.compile(r"(?:°|\bdegrees?)[\s⟦⟧]*(C|F|[Cc]elsius|[Ff]ahrenheit|centigrade)\b")
_WORD = re.compile(r"[A-Za-z]?[a-z]+(?:-[a-z]+)?")
_IRREGULAR = {
    "people": "person",
    "persons": "person",
    "children": "child",
    "men": "man",
    "women": "woman",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goose",
    "dice": "die",
    "oxen": "ox",
    "leaves": "leaf",
    "loaves": "loaf",
    "halves": "half",
    "vertices": "vertex",
    "cookies": "cookie",
    "pies": "pie",
    "movies": "movie",
    "matrices": "matrix",
    "axes": "axis",
}
_BEFORE = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "cu": 3, "cu.": 3}
_BEHIND = {"squared": 2, "cubed": 3}


@lru_cache(maxsize=1 << 14)
def unit(text: str, money: str = "", one: bool = False) -> Unit | None:
    """What `text`, the words behind a number, counts; None where they are no unit. `money`: a currency's sign
    before the number. `one`: the number is 1, so that a counted thing stands in the singular."""
    marked = "⟦" in text
    text = _DEGREES.sub(lambda m: "°" + m[1][0].upper(), text).replace("per cent", "percent")
    tokens = [
        match[0].replace(" ", "") for match in _TOKEN.finditer(text) if match[1] or match[2] or match[3]
    ]
    if len(tokens) > 3 * MOST_WORDS:
        return None
    factors: list[tuple[Unit, int]] = [(tuple(Meaning(*m) for m in UNITS[money]), 1)] if money else []
    at = 0
    if (
        money
        and tokens
        and tokens[0] in UNITS
        and agree(factors[0][0], tuple(Meaning(*m) for m in UNITS[tokens[0]]))
    ):
        at = 1  # $18 dollars
    return _Factors(tokens, factors, at, marked, one).read()


class _Factors:
    """Units that are multiplied and divided, read from left to right: `factors` so far, where the reader
    stands, and `turn`, -1 where the next one divides. Each way to read on says True where it did, False where
    the words are no unit, None where it is not the way."""

    def __init__(self, tokens: list[str], factors: list[tuple[Unit, int]], at: int, marked: bool, one: bool):
        self.tokens, self.factors, self.at, self.marked, self.one = tokens, factors, at, marked, one
        self.turn = 1

    def read(self) -> Unit | None:
        ways = (self._divides, self._power, self._passes, self._of_power, self._named, self._counted)
        while self.at < len(self.tokens):
            token, last = self.tokens[self.at], self.at + 1 == len(self.tokens)
            if not next(said for way in ways if (said := way(token, last)) is not None):
                return None
        return _multiplied(self.factors) if self.factors and self.turn == 1 else None

    def _take(self, made: Unit, power: int, at: int) -> bool:
        self.factors.append((made, self.turn * power))
        self.at, self.turn = at, 1
        return True

    def _divides(self, token: str, last: bool) -> bool | None:
        if token not in ("/", "per", "a", "an", "each", "every") or not self.factors or self.turn != 1:
            return None
        self.at += 1
        if last:
            return token == "each"
        self.turn = -1
        return True

    def _power(self, token: str, last: bool) -> bool | None:
        """`^2`, `squared`, of the unit before it."""
        if not self.factors or not (token in _BEHIND or token[0] == "^"):
            return None
        made, sign = self.factors[-1]
        if abs(sign) != 1 or self.at == 0 or made[0].adjectives:
            return False
        by = _BEHIND.get(token) or int(re.sub(r"[^\d-]", "", token))
        self.factors[-1] = (made, sign * by)
        self.at += 1
        return True

    def _passes(self, token: str, last: bool) -> bool | None:
        """A sign of multiplication, and words that may end a unit."""
        if not self.factors or not (token in AFTER_A_UNIT if last else token == "*"):
            return None
        self.at += 1
        return True

    def _of_power(self, token: str, last: bool) -> bool | None:
        """`square metres`."""
        raised = _BEFORE.get(token.lower(), 0)
        base = _known(self.tokens[self.at + 1], True) if raised and not last else None
        return self._take(base, raised, self.at + 2) if base else None

    def _named(self, token: str, last: bool) -> bool | None:
        """A unit of the table, alone or at the beginning of a phrase: `cup cakes`, `hour hands`."""
        tokens, at = self.tokens, self.at
        composed = len(tokens) > 1 and any(t[0] in "/^" for t in tokens)
        found = _known(token, self.marked or composed and "/" in tokens)
        if not found:
            return None
        if last or not _WORD.fullmatch(tokens[at + 1]) or _goes_on(tokens, at + 1):
            return self._take(found, 1, at + 1)
        phrase = _counted(tokens[at:], self.one)
        return phrase is not None and self._take(phrase, 1, len(tokens))

    def _counted(self, token: str, last: bool) -> bool:
        """Things that are counted."""
        ends = (
            i
            for i in range(self.at, len(self.tokens))
            if self.tokens[i] in ("/", "per", "each") or self.tokens[i][0] == "^"
        )
        end = next(ends, len(self.tokens))
        words = self.tokens[self.at : end]
        if self.turn == -1:
            phrase = _thing(words[0]) if len(words) == 1 else None
        else:
            phrase = _counted(words, self.one)
        return phrase is not None and self._take(phrase, 1, end)


def agree(a: Unit, b: Unit) -> Fraction | None:
    """How many of b's unit are one of a's, None where they measure different things."""
    for left, right in product(a, b):
        if left.dimensions == right.dimensions and (
            left.adjectives <= right.adjectives or right.adjectives <= left.adjectives
        ):
            return left.factor / right.factor
    return None


def agreements(a: Unit, b: Unit) -> set[Fraction]:
    """Every such number: a ton is two masses."""
    return {
        left.factor / right.factor
        for left, right in product(a, b)
        if left.dimensions == right.dimensions
        and (left.adjectives <= right.adjectives or right.adjectives <= left.adjectives)
    }


def _known(word: str, marked: bool) -> Unit | None:
    if word in BARE_LETTERS and not marked:
        return None
    found = UNITS.get(word) or (UNITS.get(word.lower()) if len(word) > 2 and word.isalpha() else None)
    return tuple(Meaning(*m) for m in found) if found else None


def _goes_on(tokens: list[str], at: int) -> bool:
    """Whether the token at `at` belongs to a measure and begins no word of a counted thing."""
    word = tokens[at]
    return (
        word in ("per", "a", "an", "each", "every")
        or word in _BEHIND
        or word in AFTER_A_UNIT
        and at + 1 == len(tokens)
        or _known(word, True) is not None
        or word.lower() in _BEFORE
    )


def _counted(words: list[str], one: bool) -> Unit | None:
    """`eggs`, `red apples`, `slices of pizza`: adjectives, a plural, perhaps of what."""
    if not 0 < len(words) <= MOST_WORDS or not all(_WORD.fullmatch(word) for word in words):
        return None
    words = [word.lower() for word in words]
    words = words[:-1] if len(words) > 1 and words[-1] in AFTER_A_UNIT else words
    rest: list[str] = []
    if "of" in words:
        at = words.index("of")
        words, rest = words[:at], words[at + 1 :]
        if not words or not rest:
            return None
    *before, head = words
    if (
        any(word in NO_ADJECTIVE or len(word) < 2 for word in (*before, *rest))
        or head in NO_NOUN
        or head in NO_ADJECTIVE
    ):
        return None
    plural = head.endswith("s") and len(head) >= 4 and not head.endswith(("ss", "us", "is", "ous"))
    if not plural and head not in NOUNS or one and plural is False and head not in NOUNS:
        return None
    return (Meaning((("counted " + _stem(head), 1),), Fraction(1), frozenset(map(_stem, (*before, *rest)))),)


def _thing(word: str) -> Unit | None:
    """What stands behind `per`: any word."""
    word = word.lower()
    if not _WORD.fullmatch(word) or len(word) < 3 or word in NO_ADJECTIVE or word in NO_NOUN:
        return None
    return (Meaning((("counted " + _stem(word), 1),), Fraction(1)),)


def _stem(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _multiplied(factors: list[tuple[Unit, int]]) -> Unit | None:
    if len(factors) > 4:
        return None
    made = []
    for meanings in product(*(meanings for meanings, _ in factors)):
        powers: dict[str, int] = {}
        factor = Fraction(1)
        adjectives: frozenset[str] = frozenset()
        for meaning, (_, sign) in zip(meanings, factors, strict=True):
            for name, by in meaning.dimensions:
                powers[name] = powers.get(name, 0) + by * sign
            factor *= meaning.factor**sign
            adjectives |= meaning.adjectives
        made.append(Meaning(tuple(sorted((n, p) for n, p in powers.items() if p)), factor, adjectives))
    return tuple(dict.fromkeys(made))[:16]
