"""From demonstrations to a guided data set (stage 1 of PTA-GRPO, arXiv 2510.01833): summarise each chain to a
plan, keep what is a plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import reduce
from operator import add

import forethought
from forethought.display.pace import pace
from forethought.stages.distill.files import check_ids
from forethought.stages.distill.filter import Drops, FilterSpec, Refuse, admit, complete
from forethought.stages.distill.prompts import digest
from forethought.stages.distill.records import (
    Done,
    Failure,
    Guided,
    Item,
    Provenance,
    Summariser,
    Summary,
    Usage,
)
from forethought.stages.distill.solvers import Solver

TOLD = 10.0  # seconds between two words on how far it is


def distill(
    items: Sequence[Item],
    summariser: Summariser,
    spec: FilterSpec | None = None,
    *,
    solver: Solver | None = None,
    refuse: Refuse | None = None,
    today: date | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> tuple[list[Guided], Provenance]:
    """The guided records, in the order of the items, and where they come from.

    `tell` hears the estimates before anything is asked, and what was spent and dropped at the end. UserError
    for duplicate ids, and for what the summariser raises.
    """
    spec = spec or FilterSpec()
    check_ids([item.id for item in items], "demonstrations")
    drops = Drops(spec.examples)
    asked = complete(items, drops)
    tell(
        f"{len(asked)} of {len(items)} demonstrations to summarise with {summariser.model}, "
        f"{_most(summariser.estimate(asked))}"
        + (f"; the plans to be tried ({solver.name}), {_most(solver.estimate(len(asked)))}" if solver else "")
    )
    results = summariser.summarise(asked, _telling(len(asked), tell))
    rows = admit(asked, results, spec, drops, solver, refuse)
    provenance = _provenance(
        items, summariser, spec, solver, drops, len(rows), results, today or date.today()
    )
    dropped, before, tried = provenance.dropped(), provenance.paid_before, provenance.tried
    tell(
        f"{len(rows)} kept{f'; dropped: {dropped}' if dropped else ''}; spent {shown(provenance.paid)}"
        f"{f'; paid before: {shown(before)}' if before.requests else ''}"
        f"{f'; tries: {shown(tried)}' if tried.requests else ''}"
    )
    return rows, provenance


def _telling(n: int, tell: Callable[[str], None]) -> Done:
    """Counts results as they come; tells how far the work is every ten seconds."""
    began = told = time.monotonic()
    count = 0

    def done(result: Summary | Failure) -> None:
        nonlocal told, count
        count, now = count + 1, time.monotonic()
        if now > told + TOLD:
            told = now
            tell(pace(count, n, "plans", now - began))

    return done


def _provenance(
    items: Sequence[Item],
    summariser: Summariser,
    spec: FilterSpec,
    solver: Solver | None,
    drops: Drops,
    kept: int,
    results: Sequence[Summary | Failure],
    today: date,
) -> Provenance:
    settings = {
        **summariser.settings,
        "most_chars": spec.most_chars,
        "most_numbers": spec.most_numbers,
        **(solver.settings if solver else {"solver": "none"}),
    }
    old = [result.usage for result in results if isinstance(result, Summary) and result.cached]
    new = [result.usage for result in results if not (isinstance(result, Summary) and result.cached)]
    return Provenance(
        summariser=summariser.name,
        model=summariser.model,
        prompt=summariser.prompt,
        prompt_hash=digest(summariser.prompt),
        settings=settings,
        version=forethought.__version__,
        date=today.isoformat(),
        sources=tuple(sorted({item.source for item in items})),
        items=len(items),
        kept=kept,
        drops=drops.by_reason(),
        examples=tuple(drops.examples),
        paid=reduce(add, new, Usage()),
        paid_before=reduce(add, old, Usage()),
        tried=solver.spent if solver else Usage(),
    )


def _most(usage: Usage) -> str:
    return f"at most {shown(usage)}" if usage.requests else "without a request"


def shown(usage: Usage) -> str:
    """`120 requests, 40,000 + 9,000 tokens, 1.2345` with the cost only where there is one."""
    if not usage.requests:
        return "no requests"
    cost = f", cost {usage.cost:.4f}" if usage.cost else ""
    return f"{usage.requests:,} requests, {usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens{cost}"
