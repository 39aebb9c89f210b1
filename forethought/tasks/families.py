"""The tasksets that a recipe can name: those that ship are rows here, those of one's own are code (`own`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.core.named import installed, is_known
from forethought.envs.guard import Guard
from forethought.envs.guarded import guarded
from forethought.recipe.check import check
from forethought.recipe.schema import LimitSpec, Recipe, TaskSpec
from forethought.recipe.speaking import SPEAKING
from forethought.tasks import base, own
from forethought.tasks.base import Taskset, needed


def _desk(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.desk.taskset import Desk

    return Desk(tuple(levels), **options)


def _blocksworld(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.blocksworld.taskset import Blocksworld

    return Blocksworld(tuple(levels), **options)


def _math(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.math.taskset import Math

    return Math(tuple(levels), **options)


def _environment(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.environment.taskset import environments

    return environments(levels, **options)


def _math_to_measure(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.math.measured import MeasuredMath

    return MeasuredMath(tuple(levels), **options)


def _text(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.text.taskset import Text

    return Text(tuple(levels), **options)


def _web(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.web.taskset import Web

    return Web(tuple(levels), **options)


def _screens(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.screens.taskset import Screens

    return Screens(tuple(levels), **options)


def _tools(levels: Sequence[int], **options) -> Taskset:
    from forethought.tasks.tools.taskset import Tools

    return Tools(tuple(levels), **options)


TASKSETS = {
    "desk": _desk,
    "blocksworld": _blocksworld,
    "math": _math,
    "text": _text,
    "environment": _environment,
    "web": _web,
    "screens": _screens,
    "tools": _tools,
}
TO_MEASURE = TASKSETS | {"math": _math_to_measure}


def build(spec: TaskSpec, *, to_measure: bool = False, limits: LimitSpec | None = None) -> Taskset:
    """The taskset a recipe names, behind its boundary. `to_measure`: nothing will train on it, so what only
    training needs may be left out. RecipeError for an unknown taskset, level or option, and for code that is
    none; Fault for one that breaks when it is made."""
    call = Guard(spec.name).call
    if spec.name in TASKSETS:
        make = (TO_MEASURE if to_measure else TASKSETS)[spec.name]
        made = call("task", "the constructor", make, (spec.levels,), spec.options, seconds=0.0)
    else:
        check_name(spec.name)
        make = own.found(spec.name, TASKSETS)
        given = own.arguments(spec.name, make, spec.levels, spec.options)
        made = own.checked(spec.name, call("task", "the constructor", make, (), given, seconds=0.0))
    return guarded(made, limits)


def check_recipe(recipe: Recipe) -> None:
    """`recipe.check.check`. RecipeError as it raises it; but a level that the taskset has not is the fault of
    task.levels, and not of the stage that draws others than those. A workflow that a shipped taskset cannot
    play is refused first: what else the recipe says of its roles follows from that."""
    _need_face(recipe)
    try:
        check(recipe)
    except RecipeError as error:
        if "levels" in error.where:
            _need_levels(recipe.task)
        raise


def _need_face(recipe: Recipe) -> None:
    """RecipeError where the workflow asks for a face that the taskset, one of those that ship, has not."""
    said = SPEAKING.get(recipe.workflow.name)
    if said is None or not said.asks or recipe.task.name not in TASKSETS:
        return
    with closing(build(recipe.task, to_measure=True, limits=recipe.limits)) as taskset:
        try:
            needed(taskset, getattr(base, said.asks), recipe.workflow.name)
        except UserError as error:
            raise RecipeError("workflow", str(error)) from None


def _need_levels(spec: TaskSpec) -> None:
    """RecipeError where the taskset refuses its levels; what else the user has to mend in it, others say."""
    try:
        build(spec).close()
    except UserError as error:
        if isinstance(error, RecipeError) and error.where == "task.levels":
            raise


def check_name(name: str) -> None:
    """RecipeError for a name that nobody knows."""
    if not is_taskset(name):
        raise RecipeError("task.name", unknown("task", name, {*TASKSETS, *installed("tasks")}))


def is_taskset(name: str) -> bool:
    """Whether it is shipped, names code, or is installed; nothing is loaded."""
    return is_known("tasks", name, TASKSETS)
