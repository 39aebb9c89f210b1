"""The options of the taskset `text`: what a recipe's task table says, checked and made ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forethought.core.errors import RecipeError
from forethought.interface.tags import Tags
from forethought.recipe.options.reading import merged, read
from forethought.recipe.options.texts import Text as Table
from forethought.recipe.ranges import at_least
from forethought.tasks.sections import named
from forethought.tasks.text.graders import Grader, Own, grader_of
from forethought.tasks.text.prompts import Template

SYSTEM = (
    "First write a plan between {plan} and {/plan}: the steps that you will take, without the answer. Then "
    "follow it and answer."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`table`: as it stands. The rest is made of it."""

    table: Table
    eval: tuple[str, ...]
    prompt: Template | None
    plan_column: str
    grader: Grader | Own | None
    tags: Tags
    system: str
    budgets: Mapping[str, int]


def read_options(table: Mapping[str, Any]) -> Options:
    """RecipeError with the address of the first option that does not exist or cannot be had."""
    said, planned = read(Table, table), table.get("plan") == "tags"
    if said.messages and said.prompt is not None:
        raise RecipeError("task.messages", "the prompt is a template or messages, not both; take one out")
    for key, number in (("most", said.most), ("shots", said.shots)):
        if not isinstance(number, str):
            at_least(f"task.{key}", number, 0)
    if not 0 < said.held_out < 1:
        raise RecipeError("task.held_out", f"{said.held_out:g} is not a share above 0 and below 1")
    grader = "exact" if said.grader is None and said.answer else said.grader
    if grader is not None and not said.answer and ":" not in grader:
        raise RecipeError(
            "task.grader", f'{grader!r} compares with an answer: name its column, answer = "COLUMN"'
        )
    tags = named(said.tags, ("plan",))
    asks = SYSTEM.replace("{plan}", tags.open("plan")).replace("{/plan}", tags.close("plan"))
    need_sources(train=[said.train])
    return Options(
        table=said,
        eval=sources_of(said.eval),
        prompt=None if said.prompt is None else Template.read(said.prompt, "task.prompt"),
        plan_column=said.plan_column or ("plan" if planned else ""),
        grader=None if grader is None else grader_of(grader),
        tags=tags,
        system=said.system if said.system is not None else asks if planned else "",
        budgets=merged(Table, "budgets", said.budgets),
    )


def sources_of(said: str | Sequence[str]) -> tuple[str, ...]:
    """The sources to measure on, one or a list."""
    found = (said,) if isinstance(said, str) else tuple(said)
    need_sources(eval=found)
    return found


def need_sources(**sources: Sequence[str]) -> None:
    """RecipeError, at the key, for a source without a name."""
    for key, found in sources.items():
        if "" in found:
            raise RecipeError(f"task.{key}", "''; expected a file or a split of the hub")
