r"""Graders of the taskset `text`: what an answer is worth, given the row's answer.

    exact         the whole answer, white space around it aside
    contains      the answer stands in it; case and runs of white space do not count
    number        its last number (in \boxed{}, or after ####, where there is one) has the value of the answer
    regex         the answer is a pattern that is found in it
    choice        the letter that it chooses, in brackets, in a box, after "answer", or at its beginning
    math-verify   its last \boxed{} says the same (tasks/math/grading.py); needs the extra `math`
    file.py:name  a function of your own, f(completion=..., answer=..., **columns) -> a number or true/false

A grader that reads something out of the answer gives the reward part `answered`, 1 where there was something
to read. Scores between 0 and 1 are partial credit; 1 is success.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.core.named import find, is_known
from forethought.core.places import described
from forethought.core.types import Outcome, Verdict
from forethought.envs.values import WrongType
from forethought.interface.result import Refusal, quoted_text
from forethought.tasks.math.grading import GRADERS as MATH
from forethought.tasks.math.grading import why_unmatchable
from forethought.tasks.text.answers import boxed, hashed

Read = Callable[[str], str | None]
Same = Callable[[str, str], Verdict]
NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*[1-9]\d*)?|-?\.\d+")
LETTER = re.compile(r"\(([A-Z])\)|\b(?i:answer|option|choice)\b\W{0,3}(?i:is\b)?\W{0,4}([A-Z])\b")
MOST_DIGITS = 300


@dataclass(frozen=True, slots=True)
class Grader:
    """`read`: what is compared of an answer, None where it says nothing of the kind; `same`: whether that
    matches the row's answer; `why_not`: why no answer can match it, or ""."""

    read: Read
    same: Same
    why_not: Callable[[str], str]
    reads: bool = True  # there may be nothing to read in an answer

    def graded(self, text: str, answer: str, row: Mapping[str, Any]) -> Outcome:
        """What the text is worth."""
        found = self.read(text)
        parts = {"answered": float(found is not None)} if self.reads else {}
        if found is None:
            return Outcome(done=True, parts=parts, reason="no answer was found in it")
        verdict = self.same(answer, found)
        return Outcome(
            done=True,
            success=verdict.score == 1.0,
            reason=verdict.reason,
            timed_out=verdict.timed_out,
            parts=parts,
        )


@dataclass(frozen=True, slots=True)
class Own:
    """A function of the user's own."""

    name: str
    function: Callable[..., Any]

    def graded(self, text: str, answer: str, row: Mapping[str, Any]) -> Outcome:
        """What the function says of the text: its score, and success from 1 on."""
        given = {**row, "completion": text, "answer": answer}
        parameters = inspect.signature(self.function).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            given = {name: value for name, value in given.items() if name in parameters}
        said = self.function(**given)
        if isinstance(said, Verdict):
            return Outcome(done=True, success=said.score >= 1.0, score=said.score, reason=said.reason)
        if isinstance(said, bool):
            return Outcome(done=True, success=said)
        if not isinstance(said, int | float) or not math.isfinite(said):
            raise WrongType(f"gave {said!r:.60}, not a finite number, true or false")
        return Outcome(done=True, success=said >= 1.0, score=float(said))

    def why_not(self, answer: str) -> str:
        """ "": only the function knows."""
        return ""


def grader_of(name: str) -> Grader | Own:
    """RecipeError at task.grader for one that does not exist or cannot be had."""
    if name in GRADERS:
        try:
            return GRADERS[name]()
        except UserError as error:
            raise RecipeError("task.grader", str(error)) from None
    if not is_known("graders", name, GRADERS):
        raise RecipeError("task.grader", f"{unknown('grader', name, GRADERS)}, or file.py:name")
    function = find("graders", name, {}, "task.grader", "grader", again=True, more=GRADERS)
    if not callable(function):
        raise RecipeError("task.grader", f"{name} is no function, but {described(function)}")
    return Own(name, function)


# ---- one row each


def _exact(gold: str, answer: str) -> Verdict:
    return _verdict(gold.strip() == answer, gold, answer)


def _contains(gold: str, answer: str) -> Verdict:
    return _verdict(_plain(gold) in _plain(answer), gold, answer)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _number_in(text: str) -> str | None:
    for found in (boxed(text), hashed(text)):
        if not isinstance(found, Refusal):
            said = found.value if isinstance(found.value, str) else found.value[0]
            return said if _value(said) is not None else None
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _value(text: str) -> Fraction | None:
    """The one number that a text says, with a unit or a sign of money beside it or without."""
    found = NUMBER.findall(text)
    if len(found) != 1 or len(found[0]) > MOST_DIGITS:
        return None
    return Fraction(found[0].replace(",", "").replace(" ", ""))


def _same_number(gold: str, answer: str) -> Verdict:
    return _verdict(_value(gold) == _value(answer), gold, answer)


def _matches(gold: str, answer: str) -> Verdict:
    return _verdict(re.search(gold, answer) is not None, gold, answer)


def _why_no_pattern(gold: str) -> str:
    try:
        re.compile(gold)
    except (re.error, RecursionError, OverflowError) as error:
        return f"it is no regular expression ({error})"
    return "" if gold else "it is empty"


def _choice(text: str) -> str | None:
    found = boxed(text)
    said = text.strip() if isinstance(found, Refusal) else found.value
    if alone := re.fullmatch(r"\W*([A-Z])\W*", said):
        return alone[1]
    if letters := [a or b for a, b in LETTER.findall(said)]:
        return letters[-1]
    begins = re.match(r"([A-Z])[.):]", said)
    return begins[1] if begins else None


def _letter(gold: str) -> str:
    return gold.strip().strip("().").upper()


def _boxed(text: str) -> str | None:
    found = boxed(text)
    return None if isinstance(found, Refusal) else found.value


def _whole(text: str) -> str:
    return text.strip()


def _empty(gold: str) -> str:
    return "" if gold.strip() else "it is empty"


def _verdict(same: bool, gold: str, answer: str) -> Verdict:
    if same:
        return Verdict(score=1.0)
    return Verdict(score=0.0, reason=f"expected {quoted_text(gold, 60)}, found {quoted_text(answer, 60)}")


GRADERS: dict[str, Callable[[], Grader]] = {
    "exact": lambda: Grader(_whole, _exact, _empty, reads=False),
    "contains": lambda: Grader(_whole, _contains, _empty, reads=False),
    "number": lambda: Grader(
        _number_in, _same_number, lambda gold: "" if _value(gold) is not None else "it is not one number"
    ),
    "regex": lambda: Grader(_whole, _matches, _why_no_pattern, reads=False),
    "math-verify": lambda: Grader(_boxed, MATH["math-verify"](), why_unmatchable),
    "choice": lambda: Grader(
        _choice,
        lambda gold, answer: _verdict(_letter(gold) == answer, gold, answer),
        lambda gold: "" if re.fullmatch(r"[A-Z]", _letter(gold)) else "it is not one letter",
    ),
}
