"""Kinds of answers with a notation of their own: dates, choices, numbers in a base, remainders, ratios,
infinity."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from forethought.tasks.grading import algebra, calendar
from forethought.tasks.grading.numbers import in_words, number
from forethought.tasks.grading.tables import ONES
from forethought.tasks.grading.value import Inner, Value, spelled


def infinity(text: str, inner: Inner) -> Value | None:
    """ "∞", with or without a sign."""
    match = re.fullmatch(r"([+-]?) ?∞", text)
    return Value("infinity", "-" if match[1] == "-" else "") if match else None


def dated(text: str, inner: Inner) -> Value | None:
    """A date or a time of day."""
    bare = " ".join(text.replace("⟦", " ").replace("⟧", " ").split())
    if (day := calendar.date(bare)) is not None:
        return Value("date", day)
    clock = calendar.clock(bare)
    return Value("clock", clock) if clock is not None else None


_CHOICE = re.compile(r"⟦? ?\( ?⟦? ?([A-Z]) ?⟧? ?\) ?⟧?|⟦ ?([A-Z]) ?⟧|([A-Z])|⟦? ?([A-J]) ?\) ?⟧?")
_CHOICE_OF = re.compile(
    r"(?:⟦? ?\( ?⟦? ?([A-J]) ?⟧? ?\)[ :.⟧]*|⟦? ?([A-J]) ?(?:[:.)]|⟧ ?[:.)])[ ⟧]*)"
    r"(?=[^\s+*/^=<>≤≥∪∩∈_!|)\]},.-])(.+)",
    re.DOTALL,
)


_SAYS_NO_TEXT = re.compile(  # behind the letter stands no text of the choice: (A) or (B), (A) is wrong
    r"[ ⟦]*(?:(?:and|or|nor|but|not|is|isn't|are|to|through|vs|xor|if|when|only|with|plus|except|because)\b"
    r"|[&/?;:∧∨→])"
    r"|[ ⟦]*[A-J][ ⟧.)]*$|.*(?:^|[ ⟦])\( ?⟦? ?[A-J] ?⟧? ?\)",
    re.IGNORECASE | re.DOTALL,
)


# `A: false` says of A that it is false, where `(A) false` is the choice with that text
_VERDICT = re.compile(
    r"[A-J] ?: ?⟦? ?(?:true|false|correct|incorrect|wrong|right|yes|no|valid|invalid|t|f) ?⟧?", re.IGNORECASE
)


def choice(text: str, inner: Inner) -> Value | None:
    """ "(B)", "B: text", or yes/no and true/false."""
    if _VERDICT.fullmatch(text):
        return Value("words", spelled(text).casefold())
    if match := _CHOICE.fullmatch(text):
        said = match[match.lastindex or 0]
        return Value("choice", None, said, choice=said)
    match = _CHOICE_OF.fullmatch(text)
    if match is None or match[3].count("(") != match[3].count(")") or _SAYS_NO_TEXT.match(match[3]):
        return None
    rest = match[3]
    if rest.count("⟧") > rest.count("⟦"):
        rest = "⟦" + rest
    return replace(inner(_unmarked(rest)), choice=match[1] or match[2], text=spelled(text))


def _unmarked(text: str) -> str:
    text = text.strip()
    if text.startswith("⟦") and text.find("⟧") == len(text) - 1 and number(text[1:-1].strip()) is not None:
        return text[1:-1].strip()
    return text


_BASED = re.compile(
    r"\(?⟦? ?([0-9A-Fa-f]+) ?⟧?\)?(?: ?_ ?\{? ?\(?⟦? ?(\w+) ?⟧?\)? ?\}?|[ ⟦(]+(?:in )?base[ "
    r"⟧-]+(\w+)[⟧)]*)"
)


_PROGRAMMED = re.compile(r"0(?:([bB])([01]+)|([oO])([0-7]+)|([xX])([0-9A-Fa-f]+))")


def programmed(text: str, inner: Inner) -> Value | None:
    """0b101 is 101 in base 2: like that, and unlike 5, which has not been written in the base."""
    if (match := _PROGRAMMED.fullmatch(text)) is None:
        return None
    digits = match[2] or match[4] or match[6]
    return Value("based", (digits.upper().lstrip("0") or "0", 2 if match[2] else 8 if match[4] else 16))


def based(text: str, inner: Inner) -> Value | None:
    """A numeral with its base: 1011_2. Words where a digit is not one of that base."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    said, digits = match[2] or match[3], match[1]
    base = ONES.get(said.lower()) or (int(said) if said.isdecimal() and len(said) < 3 else 0)
    if not 2 <= base <= 36 or not (digits[0].isdigit() or base > 10 and len(digits) > 1):
        return None
    if any(int(digit, 36) >= base for digit in digits):
        return Value("words", spelled(text))
    if base == 10:
        return Value("scalar", algebra.number(int(digits)))
    return Value("based", (digits.upper().lstrip("0") or "0", base))


_REMAINDER = re.compile(
    r"([\d,]+)[ ,⟦]*(?:and a |with |with a )?(?:R|r|rem\.?|[Rr]emainder)(?: of)?[ "
    r"⟧:=]*(\d+|[a-z]+)⟧?"
)


def remainder(text: str, inner: Inner) -> Value | None:
    """A quotient with remainder: "7 R 2"."""
    match = _REMAINDER.fullmatch(text)
    if match is None:
        return None
    whole, rest = number(match[1]), Fraction(match[2]) if match[2].isdecimal() else ONES.get(match[2])
    return None if whole is None or rest is None else Value("left", (whole, Fraction(rest)))


_RATIO = re.compile(r"(?<=\S) ?(?::|⟦ ?to ?⟧| to ) ?(?=\S)")


def proportion(text: str, inner: Inner) -> Value | None:
    """ "3 : 4 : 5", equal up to a common factor."""
    parts = _RATIO.split(text)
    if not 2 <= len(parts) <= 6:
        return None
    read = [number(part.strip()) for part in parts]
    numbers = [n for n in read if n]  # 0 has no ratio
    if len(numbers) != len(parts):
        return None
    return Value("ratio", tuple(n / numbers[0] for n in numbers))


_RANGE = re.compile(r"(\d+)[-\u2013](\d+)")


def span(text: str, inner: Inner) -> Value | None:
    """`3-4` with the smaller first and no spaces is no difference that anybody writes: pages, a score, a
    range. It is itself, and neither -1 nor 3 to 4 (which may be a ratio). `10-3` and `3 - 4` are
    differences."""
    match = _RANGE.fullmatch(text)
    return Value("span", (match[1], match[2])) if match and int(match[1]) < int(match[2]) else None


_GLOSSED = re.compile(r"([^()]+?) ?\( ?([^()]+?) ?\)")


def glossed(text: str, inner: Inner) -> Value | None:
    """`5 (five)`, `five (5)`: a number said twice. Said otherwise, it is words that nothing equals."""
    if (match := _GLOSSED.fullmatch(re.sub(" ?[⟦⟧] ?", " ", text).strip())) is None:
        return None
    figures, words = (match[1], match[2]) if match[1][-1].isdigit() else (match[2], match[1])
    said = words.lower().replace("-", " ").split()
    if not said or not all(word.isalpha() for word in said) or (n := number(figures.strip())) is None:
        return None
    if (found := in_words(said)) is None or found[1] != len(said):
        return None
    return Value("scalar", algebra.number(n)) if found[0] == n else Value("words", spelled(text))


def worded(text: str, inner: Inner) -> Value | None:
    """Words in marks that are something by themselves: \\text{18}, \\text{twelve}."""
    if text.startswith("⟦") and text.find("⟧") == len(text) - 1:
        said = text[1:-1].strip()
        if re.search(r"\d", said) or said.startswith("("):
            return inner(said)
    return None
