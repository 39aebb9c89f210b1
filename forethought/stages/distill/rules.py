"""Plans without a model: the steps of a worked solution with its calculations taken out, and a taskset's own
oracle."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from forethought.core.errors import UserError
from forethought.stages.distill.leaks import calculation
from forethought.stages.distill.numbers import NUMBER, WORDS, number_of, values_in, words_value
from forethought.stages.distill.records import Done, Failure, Item, Summary, Usage, nothing
from forethought.tasks.base import Oracle, Taskset, needed
from forethought.tasks.sections import PLAN, TAGS

BLANK = "?"
"""Stands in a step where its result stood: what the step has to find."""

_ANNOTATION = re.compile(r"<<.*?>>")
_VALUE = (
    rf"[$€£]?\s?-?(?<!\d)(?:{NUMBER})(?:\s?/\s?\d+)?(?:\s?%|(?:st|nd|rd|th|[a-zA-Z])?\b)|[$€£]?\{BLANK}%?"
)
_OPERAND = rf"\(*+\s?(?:{_VALUE}|\b(?![aAI]\b)[a-zA-Z]\b)\s?\)*"  # a number, or a letter that stands for one
_UNIT = r"(?:[A-Za-z]{1,9}+)?(?:[\s/-]\s?\(?[A-Za-z][\w'’.]*+\)?){0,5}?"
# words between a number and the next sign: 7 players + 13 players
# possessive quantifiers (*+) keep the search short on any text
_SIGN = r"\s?(?:[-+*/×÷=^–−•]|\bx\b|(?<=\d)x(?=[\s\d(])|\btimes\b)\s?"
_EXPRESSION = re.compile(rf"(?<!\(){_OPERAND}(?:{_UNIT}\s?\)*\s?{_SIGN}\s?{_OPERAND})+")
_LEFT_OVER = re.compile(rf"(?<!\s)\s*+=(?:\s*+[$€£]?\s?(?:{NUMBER}|\{BLANK}))?")
_ANY_NUMBER = re.compile(rf"(?<!\w)(?:{NUMBER})(?:\s?/\s?\d+)?")
_OPERATIONS = (("Add", "+"), ("Subtract", "-–−"), ("Multiply", "*×•"), ("Divide", "/÷"))


class Rules:
    """A summariser that is a function from an item to its plan (without tags), or to None where it finds no
    plan."""

    prompt = ""

    def __init__(self, name: str, model: str, plan: Callable[[Item], str | None]):
        self.name, self.model, self.plan = name, model, plan
        self.settings: Mapping[str, object] = {}

    def estimate(self, items: Sequence[Item]) -> Usage:
        """Nothing: rules cost no requests."""
        return Usage()

    def summarise(self, items: Sequence[Item], done: Done = nothing) -> list[Summary | Failure]:
        """One result for each item, in order."""
        results = [self._one(item) for item in items]
        for result in results:
            done(result)
        return results

    def _one(self, item: Item) -> Summary | Failure:
        plan = self.plan(item)
        if not plan:
            return Failure(
                id=item.id, kind="no_plan", detail=f"{self.model} found no step in the chain of {item.id!r}"
            )
        return Summary(id=item.id, text=f"{TAGS.open(PLAN)}{plan}{TAGS.close(PLAN)}")


def gsm8k() -> Rules:
    """The steps of GSM8K's solutions (arXiv 2110.14168), one per line."""
    return Rules("rules", "gsm8k-steps/1", lambda item: "\n".join(steps(item)))


def oracle(taskset: Taskset) -> Rules:
    """The taskset's own plans, for items that carry its tasks."""

    def plan(item: Item) -> str:
        if item.task is None:
            raise UserError(
                f"{item.id!r} carries no task of {taskset.name}, so its oracle has nothing to "
                f"read; take another summariser"
            )
        return (
            needed(taskset, Oracle, "rules").oracle_plan(item.task).removesuffix(taskset.stop(PLAN)).strip()
        )

    return Rules("oracle", f"{taskset.name}-oracle/1", plan)


def item_of_gsm8k(record: Mapping[str, str], *, id: str, source: str = "gsm8k") -> Item:
    """A record {"question", "answer"} as the files have it: steps, then `#### answer`. Level: the number of
    steps. A record without that last line has no answer and will be dropped. UserError for a field that is
    missing or no text."""
    for field in ("question", "answer"):
        if not isinstance(record.get(field), str):
            raise UserError(
                f"{source}: record {id!r} has no text in its field {field!r}; GSM8K records have "
                f"question and answer"
            )
    chain, _, answer = record["answer"].partition("\n####")
    return Item(
        id=id,
        question=record["question"],
        chain=chain,
        answer=answer.strip(),
        level=len(_lines(chain)),
        source=source,
    )


def steps(item: Item) -> list[str]:
    """The plan's steps: the chain's lines without calculations, with BLANK for every number that the question
    does not give."""
    known = values_in(item.question)
    return [_step(line, known, number_of(item.answer)) for line in _lines(item.chain)]


def _lines(chain: str) -> list[str]:
    return [line.strip() for line in chain.splitlines() if line.strip() and not line.startswith("####")]


def _step(line: str, known: set[Fraction], answer: Fraction | None) -> str:
    annotated, end, rest = line.rpartition(">>")  # behind the last end no beginning has one: not searched for
    bare = _ANNOTATION.sub("", annotated + end) + rest
    step = _EXPRESSION.sub(_blank, bare)
    step = _ANY_NUMBER.sub(lambda m: m[0] if values_in(m[0]) <= known else BLANK, step)
    step = _EXPRESSION.sub(_blank, step)  # again, now that blanks count as operands
    if answer is not None and abs(answer) not in known:
        step = WORDS.sub(lambda m: BLANK if words_value(m[0]) == abs(answer) else m[0], step)
    step = _LEFT_OVER.sub(f" {BLANK}", step)
    if calculation(step):  # written in a way that the expressions above do not know: then no number stays
        step = _ANY_NUMBER.sub(BLANK, step)
    step = re.sub(rf"(?:[$€£]?\{BLANK}%?[\s.,]*){{2,}}(?=\s|$)", f"{BLANK} ", step)
    step = re.sub(r"\s+", " ", step).strip()
    return step if re.search(r"[A-Za-z]{2}", step) else _operations(bare)


def _blank(match: re.Match[str]) -> str:
    """BLANK, with the white space that the expression had around it."""
    text = match[0]
    return text[: len(text) - len(text.lstrip())] + BLANK + text[len(text.rstrip()) :]


def _operations(line: str) -> str:
    """What a line without words does, in words: `3 * (16 + 22) = 114` is "Add, multiply"."""
    named = [name for name, signs in _OPERATIONS if any(sign in line for sign in signs)]
    return ", ".join(named).capitalize() + "." if named else "Work out the next number."
