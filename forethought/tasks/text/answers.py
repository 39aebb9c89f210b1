r"""The final answer of a text, and whether two answers say the same; nothing here evaluates what a model
wrote.

    boxed(r"... so \boxed{\frac{1}{2}}.").value == r"\frac{1}{2}"
    canonical(r"$1{,}234.50$ dollars") == canonical(r"\frac{2469}{2}") == "2469/2"

An answer that cannot be found is refused with the reason: taking the last number of a text instead would pay
for luck.
"""

from __future__ import annotations

import re

from forethought.interface.result import END, Parsed, Refusal
from forethought.tasks.grading import algebra, values
from forethought.tasks.grading.value import Value

LONGEST = values.LONGEST

_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed(?:\s+(?=[A-Za-z])|\s*(?=[0-9]))(?P<token>[0-9A-Za-z])(?![0-9A-Za-z])"
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is a character of the answer


def boxed(text: str) -> Parsed | Refusal:
    r"""The content (str, not empty) of the last `\boxed{...}`, braces inside it balanced; `\boxed 2` and
    `\boxed2` box one character, as in TeX.

    Of boxes in each other the innermost counts, of several the last. A last box that is never closed is a
    refusal, even where one before it is complete: the text was cut off before it said its answer.
    """
    last = None
    for box in _BOX.finditer(text):
        last = box
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
    """(answer, solution) of a GSM8K gold (arXiv 2110.14168): what follows `####` on the last line, and what
    stands before it."""
    solution, mark, answer = text.rpartition("####")
    if not mark or not answer.strip() or "\n" in answer.strip():
        return _refusal(len(text), "found no last line '#### ANSWER'")
    return Parsed((answer.strip(), solution.strip()))


def _refusal(at: int, reason: str) -> Refusal:
    return Refusal(position=at + 1, reason=reason, unit="character")


# --- one spelling for each value ---


def canonical(answer: str) -> str:
    r"""The answer in one spelling, for counting votes: answers of one spelling are one answer.

    A number becomes its exact value, its unit, name and dress off: "2", "-1/3" (decimals and `\frac` alike;
    0.333 is not 1/3). Lists and tuples go element by element; a list or set has its elements in order of
    their spelling. A choice is its letter. Anything else is its text without spaces and LaTeX dress; words
    lose their case, single letters keep it. Whether two answers are equal, with their units and by algebra,
    says `same`.
    """
    return _spelling(values.read(answer))


def same(gold: str, answer: str) -> bool:
    """Whether two answers say the same, by exact reading alone (see tasks.grading.compare)."""
    return values.same(gold, answer)


def _spelling(value: Value) -> str:
    if value.choice:
        return value.choice
    if value.kind == "scalar" and not value.bound and (number := algebra.value(value.body)) is not None:
        try:
            return str(number)
        except ValueError:  # Python does not write whole numbers of more than 4,300 digits
            return value.text
    if value.kind in ("list", "set"):
        items = sorted(map(_spelling, value.body))
        return ",".join(items) if value.kind == "list" else r"\{" + ",".join(dict.fromkeys(items)) + r"\}"
    if value.kind == "tuple":
        return value.body[0] + ",".join(map(_spelling, value.body[1])) + value.body[2]
    return value.text
