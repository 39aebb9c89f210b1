"""Which summaries become training data. Every demonstration that is left out is counted under one reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from forethought.core.errors import UserError
from forethought.interface.result import Refusal
from forethought.interface.tags import Tags
from forethought.stages.distill.leaks import calculation, new_numbers, says
from forethought.stages.distill.records import Drop, Failure, Guided, Item, Summary
from forethought.stages.distill.thinking import without_thinking
from forethought.tasks.sections import PLAN, tags_of

REASONS = {
    "no_question": "the demonstration has no question",
    "no_chain": "the demonstration has no chain of thought",
    "no_answer": "the demonstration has no answer",
    "failed": "the summariser gave nothing",
    "truncated": "the summary ran out of its tokens",
    "empty": "the summary is empty",
    "too_long": "the plan has too many characters",
    "unparsed": "the summary is not one plan between its tags",
    "refused": "the task family does not show it: its interface refuses the plan or the chain, or they do "
    "not fit the model's context",
    "answer": "the plan says the answer, which the question does not",
    "calculation": "the plan calculates",
    "numbers": "the plan has too many numbers that the question does not give",
    "unsolved": "a solver given the plan does not reach the answer",
}
"""Reason -> what it means, in the order in which they are looked for; the first that holds counts."""

Refuse = Callable[[Item, str], str]
"""An item and its plan -> why the task family would not show them, or ""."""

Solve = Callable[[Sequence[tuple[Item, str]]], Sequence[bool]]
"""(Item, plan) pairs -> for each, whether a solver that is given the plan reaches the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSpec:
    """UserError for a bound that lets nothing through."""

    most_chars: int = 1500  # of a plan
    most_numbers: int = 2  # written with digits, that the question does not give
    tags: Tags = field(default_factory=tags_of)
    examples: int = 3  # kept of each reason

    def __post_init__(self) -> None:
        for name, least in (("most_chars", 1), ("most_numbers", 0), ("examples", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be at least {least}")


class Drops:
    """Counts by reason, and the first examples of each."""

    def __init__(self, most_examples: int):
        self.most_examples = most_examples
        self.counts: Counter[str] = Counter()
        self.examples: list[Drop] = []

    def add(self, drop: Drop) -> None:
        """Count a demonstration that is left out; the first few of each reason are kept as examples."""
        if drop.reason not in REASONS:
            raise ValueError(f"no reason to drop is called {drop.reason!r}")
        self.counts[drop.reason] += 1
        if self.counts[drop.reason] <= self.most_examples:
            self.examples.append(drop)

    def by_reason(self) -> dict[str, int]:
        """In the order of REASONS, of those that occurred."""
        return {reason: self.counts[reason] for reason in REASONS if self.counts[reason]}


def complete(items: Sequence[Item], drops: Drops) -> list[Item]:
    """The items with a question, a chain and an answer: the others are dropped before anything is paid for
    them."""
    kept = []
    for item in items:
        missing = next(
            (name for name in ("question", "chain", "answer") if not getattr(item, name).strip()), None
        )
        if missing is None:
            kept.append(item)
        else:
            drops.add(Drop(id=item.id, reason=f"no_{missing}", detail=f"its {missing} is empty", text=""))
    return kept


def admit(
    items: Sequence[Item],
    results: Sequence[Summary | Failure],
    spec: FilterSpec,
    drops: Drops,
    solve: Solve | None = None,
    refuse: Refuse | None = None,
) -> list[Guided]:
    """Guided records of the summaries that pass, in order. `solve` is asked last, about all that are left in
    one call."""
    passed: list[tuple[Item, str]] = []
    for item, result in zip(items, results, strict=True):
        if item.id != result.id:
            raise ValueError(f"the result for {item.id!r} says that it is for {result.id!r}")
        judged = judge(item, result, spec, refuse)
        if isinstance(judged, Drop):
            drops.add(judged)
        else:
            passed.append((item, judged))
    solved = solve(passed) if solve is not None and passed else [True] * len(passed)
    kept = []
    for (item, plan), ok in zip(passed, solved, strict=True):
        if ok:
            kept.append(
                Guided(
                    id=item.id,
                    question=item.question,
                    plan=plan,
                    chain=item.chain,
                    answer=item.answer,
                    level=item.level,
                    source=item.source,
                )
            )
        else:
            drops.add(Drop(id=item.id, reason="unsolved", detail=REASONS["unsolved"], text=plan))
    return kept


def judge(
    item: Item, result: Summary | Failure, spec: FilterSpec, refuse: Refuse | None = None
) -> str | Drop:
    """The plan inside its tags, or why there is none to train on. What a reasoning model thought before it is
    taken off."""
    if isinstance(result, Failure):
        return Drop(id=item.id, reason="failed", detail=f"{result.kind}: {result.detail}", text="")

    def drop(reason: str, detail: str) -> Drop:
        return Drop(id=item.id, reason=reason, detail=detail, text=result.text[: 2 * spec.most_chars])

    text = without_thinking(result.text, spec.tags.name(PLAN))
    why = result.note or (
        "it is thinking without an answer" if result.text.strip() and not text.strip() else ""
    )
    if result.truncated:
        return drop("truncated", REASONS["truncated"] + (f"; {why}" if why else ""))
    if not text.replace(spec.tags.open(PLAN), "").replace(spec.tags.close(PLAN), "").strip():
        return drop("empty", REASONS["empty"] + (f"; {why}" if why else ""))
    parsed = spec.tags.parse(text)
    if isinstance(parsed, Refusal):
        return drop("unparsed", str(parsed))
    sections: Mapping = parsed.value
    if other := [name for name in sections if name != PLAN]:
        return drop("unparsed", f"a {other[0]} section beside the plan")
    plan = sections[PLAN].text
    if len(plan) > spec.most_chars:
        return drop("too_long", f"{len(plan)} characters, allowed are {spec.most_chars}")
    if refuse is not None and (why := refuse(item, plan)):
        return drop("refused", why)
    return _leak(item, plan, spec, drop) or plan


def _leak(item: Item, plan: str, spec: FilterSpec, drop: Callable[[str, str], Drop]) -> Drop | None:
    if says(plan, item.answer) and not says(item.question, item.answer):
        return drop("answer", f"the answer {item.answer!r} stands in the plan")
    if piece := calculation(plan):
        return drop("calculation", f"{piece!r}")
    if len(numbers := new_numbers(plan, item.question)) > spec.most_numbers:
        return drop("numbers", f"{', '.join(numbers)} do not stand in the question")
    return None
