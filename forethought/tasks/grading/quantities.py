r"""One value with its unit: `18\text{ cm}^2`, `$3 million`, `two dozen eggs`, `3 hours 20 minutes`, `5th`."""

from __future__ import annotations

import re
from fractions import Fraction

from forethought.tasks.grading import algebra
from forethought.tasks.grading.algebra import Ratio
from forethought.tasks.grading.numbers import in_words, number
from forethought.tasks.grading.tables import PARTS, PLURAL_SCALES, SCALES
from forethought.tasks.grading.units import DEGREE, Meaning, unit
from forethought.tasks.grading.value import Inner, Value, parsed

_BEHIND = re.compile(r"(.*(?:[0-9)\]}π∞√]|\.\.\.|[\u0305\u0304]))([^0-9)\]π∞]*)", re.DOTALL)
_RAISED = re.compile(r"(?<=[A-Za-z⟧.]) ?\^ ?(?:\{ ?(-?[1-4]) ?\}|(-?[1-4]))(?![0-9])")
_MONEY = re.compile(
    r"([+-]?) ?⟦? ?(?:USD?|A|C|CA|AU|HK|NZ)? ?([$＄£€¥₹₩₽]|USD|EUR|GBP|Rs\.?) ?⟧? "
    r"?(?=[+-]?[\d.\\⟦a-z({])(.+)",
    re.DOTALL,
)
_PIECE = re.compile(
    r"(\d[\d,]*(?:\.\d+)?(?: ?\d*\\frac\{\d+\}\{\d+\})?|\\frac\{\d+\}\{\d+\}) "
    r"?((?:[^\d\\]|\\(?!frac))+)"
)
_ANGLE_OF = re.compile(r"(?<![A-Za-z])(?:sin|cos|tan|cot|sec|csc)(?: ?\^ ?\{? ?-?\d+ ?\}?)? ?\(? ?[\d.]+$")
_RANGE = re.compile(r"\d[\d.,]* ?- ?\d[\d.,]*")
_ORDINAL = re.compile(r"(\d+) ?\^? ?\{? ?⟦? ?(st|nd|rd|th) ?⟧? ?\}?")


# 45°30', 45° 30' 15"
_SIXTIETHS = re.compile(
    r"([+-]?) ?(\d+) ?° ?(\d{1,2}(?:\.\d+)?) ?\^?\{? ?' ?\}?(?: ?(\d{1,2}(?:\.\d+)?) ?\^?\{? ?(?:\"|' ?') "
    r"?\}?)?"
)


def _sixtieths(text: str) -> Value | None:
    if (match := _SIXTIETHS.fullmatch(text)) is None:
        return None
    minutes, seconds = Fraction(match[3]), Fraction(match[4] or 0)
    if minutes >= 60 or seconds >= 60:
        return None
    turned = int(match[2]) + minutes / 60 + seconds / 3600
    return Value("scalar", algebra.number(-turned if match[1] == "-" else turned), unit=DEGREE, bound=True)


def quantity(text: str, inner: Inner) -> Value | None:
    """A number with a unit, money, an angle, an ordinal, or a sum of units; None for anything else."""
    if "°" in text and (angle := _sixtieths(text)) is not None:
        return angle
    if match := _ORDINAL.fullmatch(text):
        return _ordinal(match[1], match[2])
    if (total := _total(text)) is not None:
        return total
    money = ""
    if match := _MONEY.fullmatch(text):
        money = {"USD": "usd", "US": "usd", "EUR": "€", "GBP": "£", "Rs": "₹", "Rs.": "₹"}.get(
            match[2], match[2]
        )
        money = {"usd": "$"}.get(money, money)
        text = match[1] + match[3].strip()
        if (found := number(text)) is not None:
            return Value("scalar", algebra.number(found), unit=unit("", money) or ())
    raised = _RAISED.sub(lambda m: {"2": "²", "3": "³"}.get(m[1] or m[2], m[0]), text)
    for head, tail in _cuts(raised):
        tail = tail.replace("²", "^2").replace("³", "^3")
        value = _measured(head, tail, money)
        if value is not None:
            return value
    if money and (amount := parsed(text)) is not None:
        return Value("scalar", amount, unit=unit("", money) or ())
    return None


def _cuts(text: str) -> list[tuple[str, str]]:
    """Where the number may end and its unit begin: behind the last digit or bracket, before the first words,
    before the last `%` or `°`."""
    cuts = []
    if match := _BEHIND.fullmatch(text):
        head, tail = match[1], match[2]
        if tail.startswith("}"):
            head, tail = head + "}", tail[1:]
        cuts.append((head, tail))
    if "⟦" in text:
        head, mark, tail = text.partition("⟦")
        cuts.append((head, mark + tail))
    elif text[-1:] in ("%", "°"):
        cuts.append((text[:-1], text[-1]))
    words = text.split(" ")
    if text[:1].isalpha() or text[:1] == "⟦":
        cuts += [("", text)] if len(words) <= 14 else []
    return [(head.strip(), tail.strip()) for head, tail in cuts if tail.strip()]


Measure = tuple[Ratio, int, list[str], str]
"""A value, how many words after it belong to it (a scale, a part), the words behind those, and all behind the
number as it was written."""


def _measured(head: str, tail: str, money: str) -> Value | None:
    if tail[:1] == "°" and _ANGLE_OF.search(head):
        return None  # the degrees of \\sin 30° are its angle's
    words = re.sub(r"[⟦⟧]| (?=[-])|(?<=[a-z])-(?=[a-z])", " ", tail).split()
    if not words:
        return None
    found = _after_digits(head, words, tail) if head else _spelled_out(words, tail)
    if found is None:
        return None
    value, times, rest, tail = found
    if not rest:
        return Value("scalar", value, unit=(unit("", money) or ()) if money else ())
    marked = "⟦" in tail
    said = tail if head and not times else ("⟦" + " ".join(rest) + "⟧" if marked else " ".join(rest))
    counted = unit(said, money, algebra.value(value) in (1, -1))
    return Value("scalar", value, unit=counted) if counted else None


def _after_digits(head: str, words: list[str], tail: str) -> Measure | None:
    """`3 and a half`, `3 million`, `3 fifths`, and what stands behind."""
    value = _magnitude(head)
    if value is None:
        return None
    lower = _lowered(words)
    if lower[0] == "and" and len(lower) >= 3 and lower[1] in ("a", "one") and lower[2] in PARTS:
        value = algebra.plus(value, algebra.number(Fraction(1, PARTS[lower[2]])))
        words, lower = words[3:], lower[3:]
        tail = " ".join(words)
        if not words:
            return value, 0, [], tail
    times = 0
    while times < len(words) and (scale := SCALES.get(lower[times]) or PLURAL_SCALES.get(lower[times])):
        value = algebra.times(value, algebra.number(scale))
        times += 1
        if times > 2:
            return None
    part = lower == ["halves"] or (lower[0] in PARTS and lower[0] not in ("half", "halves"))
    if not times and part:
        n = algebra.value(value)
        if n is None or n.denominator != 1 or (abs(n) != 1) != lower[0].endswith("s"):
            return None
        value, times = algebra.times(value, algebra.inverse(algebra.number(PARTS[lower[0]]))), 1
    rest = words[times:]
    return None if times and rest[:1] == ["of"] else (value, times, rest, tail)


def _spelled_out(words: list[str], tail: str) -> Measure | None:
    """`two dozen`, `minus three`, and what stands behind."""
    lower = _lowered(words)
    minus = lower[0] in ("minus", "negative")
    found = in_words(lower[1:] if minus else [*lower])
    if found is None:
        return None
    value, rest = algebra.number(-found[0] if minus else found[0]), words[found[1] + minus :]
    return None if rest and rest[0].lower() == "point" else (value, 1, rest, tail)


def _lowered(words: list[str]) -> list[str]:
    return [word.lower().rstrip(",") for word in words]


def _magnitude(head: str) -> Ratio | None:
    if _RANGE.fullmatch(head):
        return None  # 3-5 days are not -2 days
    found = number(head)
    return algebra.number(found) if found is not None else parsed(head)


def _ordinal(digits: str, ending: str) -> Value | None:
    right = "th" if digits[-2:-1] == "1" else {"1": "st", "2": "nd", "3": "rd"}.get(digits[-1], "th")
    if ending != right:
        return None
    return Value("scalar", algebra.number(int(digits)), unit=(Meaning((("ordinal", 1),), Fraction(1)),))


def _total(text: str) -> Value | None:
    """3 hours 20 minutes: parts of one dimension, each of a smaller unit than the one before."""
    pieces = list(_PIECE.finditer(text))
    if (
        len(pieces) < 2
        or len(pieces) > 4
        or pieces[0].start()
        or "".join(piece[0] for piece in pieces) != text
    ):
        return None
    sums: dict[tuple, tuple[Fraction, Fraction]] = {}
    for i, piece in enumerate(pieces):
        said = re.sub(r"(?:[\s,⟦⟧]|\band\b)*$", "", piece[2]) if i + 1 < len(pieces) else piece[2]
        n, marked = number(piece[1].strip()), "⟦" in piece[2]
        if n is None or re.fullmatch(r"[\s,⟦⟧]*,[\s,⟦⟧]*", piece[2]):
            return None
        meanings = unit(
            "⟦" + said.replace("⟦", " ").replace("⟧", " ") + "⟧"
            if marked or said.strip() in ("h", "m", "s")
            else said.strip()
        )
        if not meanings:
            return None
        new = {}
        for meaning in meanings:
            name = meaning.dimensions
            if any(word.startswith("counted") for word, _ in name) or name in new:
                continue
            if i == 0:
                new[name] = (n * meaning.factor, meaning.factor)
            elif name in sums and meaning.factor < sums[name][1]:
                new[name] = (sums[name][0] + n * meaning.factor, meaning.factor)
        sums = new
    if not sums:
        return None
    name, (total, _) = next(iter(sums.items()))
    return Value("scalar", algebra.number(total), unit=(Meaning(name, Fraction(1)),), bound=True)
