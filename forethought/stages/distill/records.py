"""What distillation passes on: demonstrations in, summaries between, guided records and their provenance
out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from forethought.core.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A demonstration: a question and a chain of thought that ends in its answer. `id` is unique in a data
    set."""

    id: str
    question: str
    chain: str
    answer: str  # the gold answer alone; empty: none was found, and the item will be dropped
    level: int = 0
    source: str = ""  # file, or taskset and split
    task: Task | None = None  # where the question is a taskset's own task: what its oracle reads


def task_of(item: Item) -> Task:
    """The taskset's own task. ValueError for an item of a file, which has none."""
    if item.task is None:
        raise ValueError(f"{item.id!r} carries no task of a taskset")
    return item.task


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a model was asked and what that cost. Retries count as requests."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # in the currency of the prices
    # requests whose tokens were worked out from the length of the text, because the reply gave none
    guessed: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            requests=self.requests + other.requests,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=self.cost + other.cost,
            guessed=self.guessed + other.guessed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a summariser wrote, as it wrote it: `<plan>...</plan>` if it did as it was told. The filter parses
    it."""

    id: str
    text: str
    truncated: bool = False  # ran out of its budget of tokens
    note: str = ""  # where the text is empty: what the model did instead
    usage: Usage = Usage()
    cached: bool = False  # from the cache: `usage` was paid by an earlier run


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """No summary: `kind` is one word for counting, `detail` a sentence. Not cached, so that the next run asks
    again."""

    id: str
    kind: str
    detail: str
    usage: Usage = Usage()


Done = Callable[[Summary | Failure], None]
"""Called as soon as an item's result is known, and always from the thread that called `summarise`: once an
item, or twice for the one that an interrupt came upon."""


def nothing(result: Summary | Failure) -> None:
    """A `Done` that does nothing."""


class Summariser(Protocol):
    """From a question and its chain to a plan. One that asks a model says which, and with which words."""

    name: str  # policy, model, endpoint, rules, oracle
    model: str  # names the weights, or the version of the rules
    prompt: str  # template of what the model reads; empty where no model reads
    # whatever else changes the text of a summary (temperature, budget), for cache and provenance
    settings: Mapping[str, object]

    def estimate(self, items: Sequence[Item]) -> Usage:
        """At most what `summarise` will use, retries aside."""

    def summarise(self, items: Sequence[Item], done: Done = nothing) -> list[Summary | Failure]:
        """One result per item, in their order. UserError for what would fail on every item (a wrong key, a
        wrong address)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guided:
    """A demonstration with its plan: what a model is trained on. `plan` has no tags, `chain` is as it was
    given."""

    id: str
    question: str
    plan: str
    chain: str
    answer: str
    level: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A demonstration that was left out."""

    id: str
    reason: str  # a row of `filter.REASONS`
    detail: str
    text: str  # what the summariser wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a data set comes from. `items` = `kept` + the sum of `drops`."""

    summariser: str
    model: str
    prompt: str
    prompt_hash: str  # sha256 of `prompt`, hex
    settings: Mapping[str, object]
    version: str  # of forethought
    date: str  # ISO 8601
    sources: tuple[str, ...]
    items: int
    kept: int
    drops: Mapping[str, int]  # reason -> how many
    examples: tuple[Drop, ...]  # the first few of each reason
    paid: Usage = field(default_factory=Usage)  # by this run
    # by the runs that filled the cache, for the summaries taken from it
    paid_before: Usage = field(default_factory=Usage)
    tried: Usage = field(default_factory=Usage)  # by a solver that acted under the plans

    def dropped(self) -> str:
        """`answer 3, calculation 1`: how many for each reason."""
        return ", ".join(f"{reason} {n}" for reason, n in self.drops.items())
