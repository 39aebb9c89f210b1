r"""Numbers as people write them -> their exact value: 1,234.50, 1 234, 3\frac{1}{2}, 0.\overline{3}, 1.5e3,
twenty-one, 3 million.

A number that Python would not write (more than 4,300 digits) is none, and so is an exponent above 1000.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from forethought.tasks.grading.tables import ONES, PARTS, PLURAL_SCALES, SCALES, TENS

MOST_EXPONENT = 1_000
_N = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(rf"([+-]?) ?({_N})")
_GROUPED = re.compile(r"([+-]?) ?([1-9]\d{0,2}(?:(?P<mark>[, '_])\d{3})(?:(?P=mark)\d{3})*)(\.\d*)?")
# 1.234.567: two dots are no decimal points, and neither is one before a comma: 1.234,5
_DOTTED = re.compile(r"([+-]?) ?([1-9]\d{0,2}(?:(?:\.\d{3}){2,}|(?:\.\d{3})+(?=,)))(,\d+)?")
_RATIO = re.compile(
    rf"([+-]?) ?(?:(\d+)(?:\s+|\s*(?=\\frac)|-(?=\d+/)(?!.*-.*-)))?(?:\\frac *)?\{{? ?([+-]? "
    rf"?{_N}) ?\}}?"
    rf"(?: ?/ ?|(?<=\}}) ?(?=\{{))\{{? ?([+-]? ?{_N}) ?\}}?"
)
_SCIENTIFIC = re.compile(
    rf"([+-]? ?{_N})(?:[eE] ?\{{?([+-]?\d{{1,5}})\}}?| ?[*xX] ?10 ?\^ ?(?:\{{ ?([+-]? "
    rf"?\d{{1,5}}) ?\}}|(\d{{1,5}})))"
)
_BARRED = re.compile(
    r"([+-]?) ?(\d*)\.(\d*)(?:\\(?:overline|bar|dot) ?\{(\d+)\}|\((\d+)\)|\\(?:bar|dot) "
    r"?(\d)())"
)
_DOTS = re.compile(r"([+-]?) ?(\d*)\.(\d*)\\dot ?\{?(\d)\}?(\d*)\\dot ?\{?(\d)\}?")
_GOES_ON = re.compile(r"([+-]?) ?(\d+)\.(\d+) ?\.\.\.")
_LINED = re.compile(r"(?:\d[\u0305\u0304])+$")


def number(text: str) -> Fraction | None:
    """The value of an undressed text that is one number, None for anything else."""
    if match := _PLAIN.fullmatch(text):
        return _signed(match[1], Fraction(match[2]))
    if len(text) > 400 or not text or not (text[-1].isdigit() or text[-1] in ".)}\u0305\u0304"):
        return None
    if match := _GROUPED.fullmatch(text):
        return _signed(match[1], Fraction(re.sub(r"\D", "", match[2]) + (match[4] or "")))
    if match := _DOTTED.fullmatch(text):
        return _signed(match[1], Fraction(match[2].replace(".", "") + (match[3] or "").replace(",", ".")))
    if match := _RATIO.fullmatch(text):
        return _ratio(match)
    if match := _SCIENTIFIC.fullmatch(text):
        exponent = int((match[2] or match[3] or match[4]).replace(" ", ""))
        return (
            Fraction(match[1].replace(" ", "")) * Fraction(10) ** exponent
            if abs(exponent) <= MOST_EXPONENT
            else None
        )
    return _recurring(text)


def ungrouped(text: str) -> str:
    """1,234 as 1234, wherever it stands outside of brackets."""
    if "," not in text:
        return text
    out, depth = [], 0
    for part in re.split(r"([(\[{}\])]|(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,]))", text):
        if len(part) == 1 and part in "([{":
            depth += 1
        elif len(part) == 1 and part in ")]}":
            depth -= 1
        out.append(
            part.replace(",", "")
            if depth == 0 and part[:1].isdigit() and re.fullmatch(r"\d{1,3}(?:,\d{3})+", part)
            else part
        )
    return "".join(out)


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _ratio(match: re.Match[str]) -> Fraction | None:
    sign, whole, over, under = match.groups()
    below = Fraction(under.replace(" ", ""))
    if not below:
        return None
    value = Fraction(over.replace(" ", "")) / below
    if whole:
        if value < 0 or over[:1] in "+-" or under[:1] in "+-":
            return None  # 3\frac{-1}{2} is a product; 3\frac{1}{2} is a mixed number
        if "-" in match[0].lstrip("+- ") and not value < 1:
            return None
        value += int(whole)
    return _signed(sign, value)


def _recurring(text: str) -> Fraction | None:
    sign = whole = start = block = ""
    if match := _DOTS.fullmatch(text):
        sign, whole, start, first, middle, last = match.groups()
        block = first + middle + last
    elif match := _BARRED.fullmatch(text):
        sign, whole, start = match.group(1, 2, 3)
        block = match[4] or match[5] or match[6]
    elif match := _GOES_ON.fullmatch(text):
        sign, whole, digits = match.groups()
        split = _repeats(digits)
        if split is None:
            return None
        start, block = digits[:split], digits[split : split + _period(digits[split:])]
    elif match := _LINED.search(text):
        block = re.sub(r"\D", "", match[0])
        head = re.fullmatch(r"([+-]?) ?(\d*)\.(\d*)", text[: match.start()])
        if head is None:
            return None
        sign, whole, start = head.groups()
    if not block:
        return None
    value = Fraction(int(start or 0), 10 ** len(start)) + Fraction(
        int(block), (10 ** len(block) - 1) * 10 ** len(start)
    )
    return _signed(sign, int(whole or 0) + value)


def _repeats(digits: str) -> int | None:
    """Where the block begins that 0.1666... or 0.121212... repeats to its end; a single digit repeats. None
    where nothing does."""
    if len(digits) == 1:
        return 0
    for size in range(1, len(digits) // 2 + 1):
        if digits[-size:] == digits[-2 * size : -size]:
            start = len(digits) - 2 * size
            while start > 0 and digits[start - 1] == digits[start - 1 + size]:
                start -= 1
            return start
    return None


def _period(tail: str) -> int:
    return next(
        size
        for size in range(1, len(tail) + 1)
        if all(tail[i] == tail[i - size] for i in range(size, len(tail)))
    )


# --- words ---


def in_words(words: Sequence[str]) -> tuple[Fraction, int] | None:
    """(value, how many words it took) of the longest number that the words begin with: `two thirds`, `one
    hundred and five`, `a dozen`.

    Words are in small letters, hyphens already taken apart."""
    for end in range(min(len(words), 12), 0, -1):
        value = _value_of(list(words[:end]))
        if value is not None:
            return value, end
    return None


def _value_of(words: list[str]) -> Fraction | None:
    if words[-1] in PARTS and (len(words) == 1 and words[-1] == "half" or len(words) > 1):
        if len(words) >= 4 and words[-3] == "and" and words[-2] in ("a", "one"):  # three and a half
            whole = _whole(words[:-3])
            return None if whole is None else whole + Fraction(1, PARTS[words[-1]])
        over = 1 if words[:-1] in ([], ["a"], ["one"]) else _whole(words[:-1])
        return (
            None
            if over is None or over > 1 and not words[-1].endswith("s")
            else Fraction(over, PARTS[words[-1]])
        )
    whole = _whole(words)
    return None if whole is None else Fraction(whole)


def _whole(words: list[str]) -> int | None:
    """Strict: every word must fit behind the one before it."""
    if words[0] in ("a", "an"):
        if len(words) < 2 or words[1] not in SCALES:
            return None
        words = ["one", *words[1:]]
    total, group, room = 0, 0, 10**18  # room: the next word must be smaller
    for i, word in enumerate(words):
        if word == "and":
            if not 0 < i < len(words) - 1 or words[i - 1] not in (
                "hundred",
                "thousand",
                "million",
                "billion",
            ):
                return None
        elif word in ONES:
            n = ONES[word]
            if n >= room or n == 0 and len(words) > 1 or i and words[i - 1] in TENS and n > 9:
                return None
            group, room = group + n, 0
        elif word in TENS:
            if room <= 10 or TENS[word] >= room:
                return None
            group, room = group + TENS[word], 10
        elif word in SCALES and word != "bn":
            if not group:
                return None
            scale = SCALES[word]
            if scale == 100:
                if group >= 100:
                    return None
                group, room = group * 100, 100
            else:
                total, group, room = total + group * scale, 0, scale
        elif word in PLURAL_SCALES:
            return None
        else:
            return None
    return total + group
