"""The options of the math family: what a recipe's task table says, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.interface.tags import Tags
from forethought.recipe.options import names
from forethought.recipe.options.texts import Math as Table
from forethought.tasks.math.demos import Demos, read_demos
from forethought.tasks.math.grading import GRADERS, Grader
from forethought.tasks.sections import tags_of
from forethought.tasks.text.overlap import THRESHOLD

NAMES = names(Table)
REPEATS = ("refuse", "drop")
# tokens; together the 3.5k that PTA-GRPO (arXiv 2510.01833) gives Qwen2.5-7B
BUDGETS = {"plan": 512, "act": 3072}
SYSTEM = (
    "Solve the problem in two parts. First write a plan between {plan} and {/plan}: the phases of the "
    "solution, the methods you choose, and what to do where one of them fails. A plan holds no calculations, "
    "no intermediate results and no answer. Then reason between {think} and {/think}: examine the plan "
    "before you use it, follow it, and where it is wrong say at which point you leave it and what you do "
    "instead. End with the final answer alone in \\boxed{}."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As `tasks.math.Math` describes them."""

    train: str
    eval: Sequence[str]
    demos: Demos | None
    fields: Mapping[str, str]
    graded: bool
    grader: Grader
    budgets: Mapping[str, int]
    tags: Tags
    system: str
    overlap: float
    repeats: str


def read_options(table: Mapping[str, object], needs: Sequence[str] = ("train", "eval")) -> Options:
    """RecipeError with the address of the first option that does not exist or cannot be had. `needs`: which
    of the problem sets must be there."""
    for key in table:
        if key not in NAMES:
            raise RecipeError(f"task.{key}", unknown("option of task math", key, NAMES))
    tags, fields = _tags(table.get("tags", {})), _fields(table.get("fields", {}))
    return Options(
        train=_typed("train", table.get("train"), str, "a file or a split of the hub")
        if "train" in {*needs, *table}
        else "",
        eval=_sources(table.get("eval")) if "eval" in {*needs, *table} else [],
        demos=read_demos(table.get("demos"), fields),
        fields=fields,
        graded=_typed("graded", table.get("graded", True), bool, "true or false"),
        grader=_grader(table.get("grader", "auto")),
        budgets=_budgets(table.get("budgets", {})),
        tags=tags,
        system=_system(table.get("system"), tags),
        overlap=_share(table.get("overlap", THRESHOLD)),
        repeats=_repeats(table.get("repeats", "refuse")),
    )


def _typed(key: str, value: object, kind: type | tuple[type, ...], expected: str) -> Any:
    if not isinstance(value, kind) or value == "":
        raise RecipeError(
            f"task.{key}", f"{'missing' if value is None else repr(value)}; expected {expected}"
        )
    return value


def _table(key: str, value: object) -> dict[str, Any]:
    return dict(_typed(key, value, Mapping, "a table"))


def _fields(value: object) -> dict[str, str]:
    """Which parts exist, the reader of files checks."""
    fields = _table("fields", value)
    return {part: _typed(f"fields.{part}", name, str, "the name of a field") for part, name in fields.items()}


def _sources(value: object) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    expected = "a file or a split of the hub, or a list of them"
    if not (sources := _typed("eval", listed, (list, tuple), expected)):
        raise RecipeError("task.eval", f"an empty list; expected {expected}")
    return [_typed("eval", source, str, expected) for source in sources]


def _tags(value: object) -> Tags:
    names = _table("tags", value)
    for key in names:
        if key not in ("plan", "think"):
            raise RecipeError(f"task.tags.{key}", unknown("tag of task math", key, ("plan", "think")))
    try:
        return tags_of(**names)
    except UserError as error:
        raise RecipeError("task.tags", str(error)) from None


def _budgets(value: object) -> dict[str, int]:
    budgets = _table("budgets", value)
    for role, tokens in budgets.items():
        if role not in BUDGETS:
            raise RecipeError(f"task.budgets.{role}", unknown("role", role, BUDGETS))
        if type(tokens) is not int or tokens < 2:
            raise RecipeError(f"task.budgets.{role}", f"{tokens!r} is not a number of tokens, at least 2")
    return BUDGETS | budgets


def _system(value: object, tags: Tags) -> str:
    if value is None:
        marks = {
            "{plan}": tags.open("plan"),
            "{/plan}": tags.close("plan"),
            "{think}": tags.open("think"),
            "{/think}": tags.close("think"),
        }
        return re.sub(r"\{/?(?:plan|think)\}", lambda mark: marks[mark[0]], SYSTEM)
    if not isinstance(value, str):
        raise RecipeError("task.system", f'{value!r} is not a text; write the system message, or "" for none')
    return value


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise RecipeError("task.overlap", f"{value!r} is not a share above 0 and at most 1")
    return float(value)


def _repeats(value: object) -> str:
    if value not in REPEATS:
        raise RecipeError("task.repeats", unknown("way to treat repeated problems", value, REPEATS))
    return str(value)


def _grader(value: object) -> Grader:
    if not isinstance(value, str) or value not in GRADERS:
        raise RecipeError("task.grader", unknown("grader", value, GRADERS))
    try:
        return GRADERS[value]()
    except UserError as error:
        raise RecipeError("task.grader", str(error)) from None
