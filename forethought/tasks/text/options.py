"""The options of the taskset `text`: what a recipe's task table says, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.interface.tags import Tags
from forethought.recipe.options import names
from forethought.recipe.options.texts import Text as Table
from forethought.tasks.sections import tags_of
from forethought.tasks.text.graders import Grader, Own, grader_of
from forethought.tasks.text.prompts import Template

NAMES = names(Table)
PLANS = ("none", "tags")  # none: flat, the act alone (workflow act_only); tags: a plan between tags first
BUDGETS = {"plan": 256, "act": 256}  # tokens; TRL's max_completion_length is 256
SYSTEM = (
    "First write a plan between {plan} and {/plan}: the steps that you will take, without the answer. Then "
    "follow it and answer."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As `tasks.text.taskset.Text` describes them."""

    train: str
    eval: tuple[str, ...]
    most: int
    prompt: Template | None
    messages: str
    answer: str
    solution: str
    plan_column: str
    level: str
    grader: Grader | Own | None
    plan: str
    tags: Tags
    system: str
    shots: int | str
    chat: bool
    budgets: Mapping[str, int]
    repeats: str
    held_out: float


def read_options(table: Mapping[str, Any]) -> Options:
    """RecipeError with the address of the first option that does not exist or cannot be had."""
    for key in table:
        if key not in NAMES:
            raise RecipeError(f"task.{key}", unknown("option of task text", key, NAMES))
    said = {key: _text(key, table.get(key, "")) for key in ("answer", "solution", "level", "messages")}
    plan = table.get("plan", PLANS[0])
    if plan not in PLANS:
        raise RecipeError("task.plan", unknown("way to plan", str(plan), PLANS))
    if said["messages"] and "prompt" in table:
        raise RecipeError("task.messages", "the prompt is a template or messages, not both; take one out")
    template = Template.read(_text("prompt", table["prompt"]), "task.prompt") if "prompt" in table else None
    grader = table.get("grader", "exact" if said["answer"] else None)
    if grader is not None and not said["answer"] and ":" not in str(grader):
        raise RecipeError(
            "task.grader", f'{grader!r} compares with an answer: name its column, answer = "COLUMN"'
        )
    tags = _tags(table.get("tags", {}))
    return Options(
        **said,
        train=_source(table.get("train")),
        eval=_sources(table.get("eval", ())),
        most=_count("most", table.get("most", 0)),
        prompt=template,
        plan_column=_text("plan_column", table.get("plan_column", "plan" if plan != PLANS[0] else "")),
        grader=None if grader is None else grader_of(grader),
        plan=plan,
        tags=tags,
        system=_system(table.get("system"), tags, plan),
        shots=_shots(table.get("shots", 0)),
        chat=_flag("chat", table.get("chat", True)),
        budgets=_budgets(table.get("budgets", {})),
        repeats=_one_of("repeats", table.get("repeats", "refuse"), ("refuse", "drop")),
        held_out=_share(table.get("held_out", 0.1)),
    )


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or (key == "prompt" and not value):
        raise RecipeError(f"task.{key}", f"{value!r} is not a text")
    return value


def _source(value: object) -> str:
    if not isinstance(value, str) or not value:
        found = "missing" if value is None else repr(value)
        raise RecipeError("task.train", f"{found}; expected a file or a split of the hub")
    return value


def _sources(value: object) -> tuple[str, ...]:
    listed = (value,) if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) and one for one in listed):
        raise RecipeError("task.eval", f"{value!r}; expected a file or a split of the hub, or a list of them")
    return tuple(listed)


def _count(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RecipeError(f"task.{key}", f"{value!r} is not a number of at least 0")
    return value


def _shots(value: object) -> int | str:
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RecipeError("task.shots", f"{value!r}; expected a number of examples, or a file of them")
    return value


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise RecipeError(f"task.{key}", f"{value!r}; expected true or false")
    return value


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise RecipeError("task.held_out", f"{value!r} is not a share above 0 and below 1")
    return float(value)


def _one_of(key: str, value: object, known: tuple[str, ...]) -> str:
    if value not in known:
        raise RecipeError(f"task.{key}", unknown("value", str(value), known))
    return str(value)


def _tags(value: object) -> Tags:
    if not isinstance(value, Mapping):
        raise RecipeError("task.tags", f"{value!r} is not a table")
    for key in value:
        if key != "plan":
            raise RecipeError(f"task.tags.{key}", unknown("tag of task text", key, ("plan",)))
    try:
        return tags_of(**value)
    except UserError as error:
        raise RecipeError("task.tags", str(error)) from None


def _system(value: object, tags: Tags, plan: str) -> str:
    if value is None:
        said = SYSTEM.replace("{plan}", tags.open("plan")).replace("{/plan}", tags.close("plan"))
        return said if plan == "tags" else ""
    return _text("system", value)


def _budgets(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise RecipeError("task.budgets", f"{value!r} is not a table")
    for role, tokens in value.items():
        if role not in BUDGETS:
            raise RecipeError(f"task.budgets.{role}", unknown("role", role, BUDGETS))
        if type(tokens) is not int or tokens < 1:
            raise RecipeError(f"task.budgets.{role}", f"{tokens!r} is not a number of tokens, at least 1")
    return BUDGETS | dict(value)
