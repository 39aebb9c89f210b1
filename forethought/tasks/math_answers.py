r"""The final answer of a text, and whether two answers say the same; nothing here evaluates what a model wrote.

    boxed(r"... so \boxed{\frac{1}{2}}.").value == r"\frac{1}{2}"
    canonical(r"$1{,}234.50$ dollars") == canonical(r"\frac{2469}{2}") == "2469/2"

An answer that cannot be found is refused with the reason: taking the last number of a text instead would pay for luck.
"""

from __future__ import annotations

import re
from fractions import Fraction

from forethought.interface.result import END, Parsed, Refusal

LONGEST = 400  # characters of an answer that are read as a number or a tuple; what is longer is compared as text

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?P<token>[0-9A-Za-z])(?![0-9A-Za-z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is a character of the answer


def boxed(text: str) -> Parsed | Refusal:
    r"""The content (str, not empty) of the last `\boxed{...}`, braces inside it balanced; `\boxed 2` boxes one character, as in TeX.

    Of boxes in each other the innermost counts, of several the last. A last box that is never closed is a refusal, even where one
    before it is complete: the text was cut off before it said its answer.
    """
    last = None
    for last in _BOX.finditer(text):
        pass
    if last is None:
        return _refusal(len(text), rf"found {END}, expected a final answer in \boxed{{...}}")
    if last["token"]:
        return Parsed(last["token"])
    depth = 0
    for brace in _BRACE.finditer(text, last.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0 and brace[0] == "}":
            answer = text[last.end() + 1 : brace.start()].strip()
            return Parsed(answer) if answer else _refusal(last.start(), r"\boxed{} is empty")
    return _refusal(last.start(), r"the last \boxed{ is never closed")


def hashed(text: str) -> Parsed | Refusal:
    """(answer, solution) of a GSM8K gold (arXiv 2110.14168): what follows `####` on the last line, and what stands before it."""
    solution, mark, answer = text.rpartition("####")
    if not mark or not answer.strip() or "\n" in answer.strip():
        return _refusal(len(text), "found no last line '#### ANSWER'")
    return Parsed((answer.strip(), solution.strip()))


def _refusal(at: int, reason: str) -> Refusal:
    return Refusal(position=at + 1, reason=reason, unit="character")


# --- one spelling for each value ---

_NOTHING = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\!|\\?[$%]")
_SPACE = re.compile(r"\\[,;:> ]|~|\\q?quad(?![A-Za-z])")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:\{\s*([^{}]+?)\s*\}|(\d))\s*(?:\{\s*([^{}]+?)\s*\}|(\d))")
_NAME = re.compile(r"\A[A-Za-z](?:_\{?\w+\}?)?\s*=\s*(?=[^=]+$)")  # the `x =` before a value
_LETTER = re.compile(r"\(\s*([A-Z])\s*\)")  # a choice, written (C) or C
_UNIT = re.compile(
    r"(?P<value>.*[\d.}])(?:\s*\x00|\s+)(?P<unit>[A-Za-z][A-Za-z .]*[A-Za-z.])\s*(?:\x00\s*)?(?:\^\s*\{?[23]\}?)?", re.DOTALL)
_COUNTS = re.compile(  # words that are no unit: they change the value before them
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|half|halves|third|fourth|quarter|fifth|sixth|seventh|eighth|ninth|tenth"
    r"|or|and|to|over|times|plus|minus|mod|squared|cubed|factorial|pi|sqrt|less|more|[ap]\.?m)s?(?:th|ths)?\b", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:([, ])\d{3})(?:\1\d{3})*(?:\.\d*)?")
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_RATIO = re.compile(rf"(?P<sign>[+-]?)(?:(?P<whole>\d+)(?:\s+|\s*(?=\\frac)))?(?:\\frac)?\{{?(?P<over>[+-]?{_NUMBER})\}}?"
                    rf"(?:\s*/\s*|(?<=\}})(?=\{{))\{{?(?P<under>[+-]?{_NUMBER})\}}?")
_PLAIN = re.compile(rf"[+-]?\s*{_NUMBER}")


def canonical(answer: str) -> str:
    r"""The answer in one spelling: equal strings are equal answers.

    A number, with its sign, `$`, `%`, degrees, thousands commas and units off, becomes its exact value: "2", "-1/3" (decimals and
    `\frac` alike; 0.333 is not 1/3). Lists and tuples go element by element, in their order. Anything else is its text without spaces
    and LaTeX dress; words lose their case, single letters keep it. What needs algebra (2\sqrt{2} against \sqrt{8}, sets in another
    order) stays different here: that is what the grader "math-verify" is for.
    """
    if len(answer) > LONGEST:
        return re.sub(r"\s+", "", answer)
    text = _undressed(answer)
    value = _number(text)
    if value is None:
        text = _without_unit(text)
        value = _number(text)
    if value is not None:
        return str(value)
    text = text.replace("\x00", "").strip()
    if (items := _elements(text)) is not None:
        opened, parts, closed = items
        return opened + ",".join(canonical(part) for part in parts) + closed
    if letter := _LETTER.fullmatch(text):
        return letter[1]
    text = text.lower() if re.fullmatch(r"[A-Za-z][A-Za-z .'-]+", text) else text
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)  # "1 2" is not 12


def same(gold: str, answer: str) -> bool:
    """Whether two answers have one spelling (see `canonical`)."""
    return canonical(gold) == canonical(answer)


def _undressed(text: str) -> str:
    r"""Without what changes the look alone. The content of \text{...} stays between two \x00, so that a unit is known as one."""
    text = text.replace("\x00", "").strip()
    for left, right in (("\\(", "\\)"), ("\\[", "\\]")):
        text = text.removeprefix(left).removesuffix(right)
    text = text.replace("\u2212", "-").replace("{,}", ",")
    text = re.sub(r"\\[dt]frac", r"\\frac", _SPACE.sub(" ", _NOTHING.sub("", text)))
    text = _SHORT_FRACTION.sub(lambda m: rf"\frac{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}", text)
    text = _DEGREES.sub("", _TEXT.sub("\x00\\1\x00", text)).strip()
    return _NAME.sub("", text, count=1).strip().rstrip(".").strip()


def _without_unit(text: str) -> str:
    """`5\x00 cm\x00^2` and `18 eggs` without their unit; words that change the value (3 million) stay."""
    match = _UNIT.fullmatch(text.replace("\x00 ", "\x00"))
    return match["value"].strip() if match and not _COUNTS.search(match["unit"]) else text


def _number(text: str) -> Fraction | None:
    if _THOUSANDS.fullmatch(text):
        text = re.sub("[, ]", "", text)
    if _PLAIN.fullmatch(text):
        return Fraction(text.replace(" ", ""))
    ratio = _RATIO.fullmatch(text)
    if ratio is None or Fraction(ratio["under"]) == 0:
        return None
    value = Fraction(ratio["over"]) / Fraction(ratio["under"])
    if ratio["whole"]:
        if value < 0:
            return None  # 3\frac{-1}{2} is a product; 3\frac{1}{2} is a mixed number
        value += int(ratio["whole"])
    return -value if ratio["sign"] == "-" else value


def _elements(text: str) -> tuple[str, list[str], str] | None:
    """(opening bracket, elements, closing bracket) of `(a, b)`, `[a, b)`, `\\{a, b\\}` or the bare list `a, b`; None for anything else."""
    opened, inner, closed = re.fullmatch(r"([(\[]|\\\{)?(.*?)([)\]]|\\\})?", text, re.DOTALL).groups("")
    if bool(opened) != bool(closed):
        return None
    parts, depth = [""], 0
    for sign in inner:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(sign, 0)
        if depth < 0:
            return None
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return (opened, parts, closed) if len(parts) > 1 and all(part.strip() for part in parts) else None
