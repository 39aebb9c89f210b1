"""Numbers in text, by value: 1,000 and 1000.0 and "one thousand" are one number. Nothing is evaluated."""

from __future__ import annotations

import re
from fractions import Fraction

# possessive (++): a long row of digits is read once
NUMBER = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d++)(?:\.\d++)?|\.\d++)"
_NUMBER = re.compile(rf"(?<!\w){NUMBER}")  # the 3 of v3 is part of a name
_FRACTION = re.compile(
    r"(?<![\w.,])(\d{1,40})/(\d{1,40})(?![\d.,]*\d)|\\[dt]?frac\{(\d{1,40})\}\{(\d{1,40})\}"
)
_MOST_CHARS = 100  # of a number with what stands around it
_MOST_DIGITS = 40  # a longer row of digits is not a number that a plan could leak

_UNITS = {
    w: i
    for i, w in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen".split()
    )
}
_TENS = {
    w: 10 * i for i, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_ANY = "|".join([*_UNITS, *_TENS, *_SCALES])
WORDS = re.compile(rf"\b(?:{_ANY})(?:(?:[\s-]+|\s+and\s+)(?:{_ANY}))*\b", re.IGNORECASE)
"""A number in words, of one word or several."""


def digits_in(text: str) -> list[Fraction]:
    """Values of the numbers written with digits, in order; a fraction a/b counts as one number."""
    found = [(m.start(), m.end(), _fraction(m)) for m in _FRACTION.finditer(text)]
    taken = [(start, end) for start, end, value in found if value is not None]
    values = [(start, value) for start, _, value in found if value is not None]
    for m in _NUMBER.finditer(text):
        if len(m[0]) <= _MOST_DIGITS and not any(start <= m.start() < end for start, end in taken):
            values.append((m.start(), Fraction(m[0].replace(",", ""))))
    return [value for _, value in sorted(values)]


def values_in(text: str) -> set[Fraction]:
    """Values of all numbers: digits, the parts of fractions, and words. A lone "one" is a pronoun more often
    than a number and does not count."""
    parts = {Fraction(m[0].replace(",", "")) for m in _NUMBER.finditer(text) if len(m[0]) <= _MOST_DIGITS}
    words = {words_value(m[0]) for m in WORDS.finditer(text) if m[0].lower() != "one"}
    return parts | set(digits_in(text)) | words


def words_value(text: str) -> Fraction:
    """The value of a match of `WORDS`: "twenty-one" is 21, "two hundred and five" 205."""
    total = part = 0
    for word in re.split(r"[\s-]+", text.lower()):
        if word in _SCALES:
            part = max(part, 1) * _SCALES[word]
            if word != "hundred":
                total, part = total + part, 0
        elif word != "and":
            part += _UNITS.get(word, _TENS.get(word, 0))
    return Fraction(total + part)


def number_of(text: str) -> Fraction | None:
    """The value of a text that is one number, with sign, currency or percent around it; else None."""
    text = text.strip()
    if len(text) > _MOST_CHARS:
        # white space may stand in four places of the pattern: on a long run of it the search would not end
        return None
    bare = re.fullmatch(
        rf"\s*[-+−]?\s*\\?[$€£]?\s*[-+−]?\s*({NUMBER}|\d+/\d+|\\[dt]?frac\{{\d+\}}\{{\d+\}})\s*\\?%?\.?\s*",
        text,
    )
    if bare is None or len(found := digits_in(bare[1])) != 1:
        return None
    return -found[0] if re.search(r"[-−]", text[: bare.start(1)]) else found[0]


def _fraction(match: re.Match[str]) -> Fraction | None:
    above, below = (match[1], match[2]) if match[1] else (match[3], match[4])
    return Fraction(int(above), int(below)) if int(below) else None
