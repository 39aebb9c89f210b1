"""The options of the math family: what a recipe's task table says, checked and made ready."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forethought.core.errors import RecipeError, UserError
from forethought.interface.tags import Tags
from forethought.recipe.options.reading import merged, read
from forethought.recipe.options.texts import Math as Table
from forethought.tasks.math.demos import Demos, read_demos
from forethought.tasks.math.grading import GRADERS, Grader
from forethought.tasks.sections import named
from forethought.tasks.text.options import need_sources, sources_of

SYSTEM = (
    "Solve the problem in two parts. First write a plan between {plan} and {/plan}: the phases of the "
    "solution, the methods you choose, and what to do where one of them fails. A plan holds no calculations, "
    "no intermediate results and no answer. Then reason between {think} and {/think}: examine the plan "
    "before you use it, follow it, and where it is wrong say at which point you leave it and what you do "
    "instead. End with the final answer alone in \\boxed{}."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`table`: as it stands. The rest is made of it."""

    table: Table
    eval: tuple[str, ...]
    demos: Demos | None
    grader: Grader
    budgets: Mapping[str, int]
    tags: Tags
    system: str


def read_options(table: Mapping[str, Any], needs: Sequence[str] = ("train", "eval")) -> Options:
    """RecipeError with the address of the first option that does not exist or cannot be had. `needs`: which
    of the problem sets must be there."""
    spare = {"train": "", "eval": ()} if not needs else {}
    said = read(Table, spare | dict(table))
    if "train" in {*needs, *table}:
        need_sources(train=[said.train])
    evaluated = sources_of(said.eval)
    if not evaluated and "eval" in {*needs, *table}:
        raise RecipeError("task.eval", "an empty list; expected a file or a split of the hub, or some")
    if not 0 < said.overlap <= 1:
        raise RecipeError("task.overlap", f"{said.overlap:g} is not a share above 0 and at most 1")
    tags = named(said.tags, ("plan", "think"))
    marks = {f"{{{one}}}": tags.open(one) for one in ("plan", "think")}
    marks |= {f"{{/{one}}}": tags.close(one) for one in ("plan", "think")}
    asks = re.sub(r"\{/?(?:plan|think)\}", lambda mark: marks[mark[0]], SYSTEM)
    return Options(
        table=said,
        eval=evaluated,
        demos=read_demos(said.demos, said.fields),
        grader=_grader(said.grader),
        budgets=merged(Table, "budgets", said.budgets, least=2),
        tags=tags,
        system=asks if said.system is None else said.system,
    )


def _grader(name: str) -> Grader:
    try:
        return GRADERS[name]()
    except UserError as error:
        raise RecipeError("task.grader", str(error)) from None
