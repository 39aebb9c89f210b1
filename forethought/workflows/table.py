"""The workflows that a recipe can name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from forethought.core.errors import RecipeError, unknown
from forethought.core.types import Task, Turn
from forethought.recipe.speaking import CONTINUES, OPTIONS, SPEAKING
from forethought.tasks.base import Taskset
from forethought.workflows import act_only, blink_think_link, plan_steps, plan_then_act, react
from forethought.workflows.trajectory import Counts, Trajectory

Run = Callable[[Trajectory, Task, Counts], Awaitable[None]]
Shown = Callable[[Taskset, Task], list[Turn]]
Oracle = Callable[[Taskset, Task, str], list[str]]


@dataclass(frozen=True, slots=True)
class Workflow:
    """`run`: the coroutine. `shown`: what imitation shows of a task. `oracle`: what the oracle says in a
    role, in order."""

    name: str
    run: Run
    shown: Shown
    oracle: Oracle
    each_turn: tuple[str, ...] = ()  # who may speak before every answer of the environment; (): the last role

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that it speaks, in their order."""
        return SPEAKING[self.name]


def register(
    name: str,
    run: Run,
    roles: tuple[str, ...],
    shown: Shown | None = None,
    oracle: Oracle | None = None,
    options: Mapping[str, int] | None = None,
    continues: Mapping[str, str] | None = None,
) -> Workflow:
    """A workflow of your own, which recipes can name from now on. Without `shown`, imitation shows the turns
    of the taskset's demonstration that its roles speak, and what is observed. `continues`: role -> the role
    on whose branch it speaks (`generate`) where one of it is sampled; the others begin their own (`fork`)."""
    SPEAKING[name], OPTIONS[name] = tuple(roles), dict(options or {})
    CONTINUES[name] = dict(continues or {})

    def own(taskset: Taskset, task: Task) -> list[Turn]:
        return [turn for turn in taskset.demonstrate(task) if turn.role is None or turn.role in roles]

    shown = shown or own
    WORKFLOWS[name] = Workflow(name, run, shown, oracle or _said_in(shown), tuple(roles))
    return WORKFLOWS[name]


def workflow_of(name: str) -> Workflow:
    """RecipeError for one that nobody has registered."""
    if name not in WORKFLOWS:
        raise RecipeError("workflow", unknown("workflow", name, WORKFLOWS))
    return WORKFLOWS[name]


def _said_in(shown: Shown) -> Oracle:
    return lambda taskset, task, role: [turn.text for turn in shown(taskset, task) if turn.role == role]


WORKFLOWS: dict[str, Workflow] = {
    name: Workflow(name, run, shown, oracle or _said_in(shown), each_turn)
    for name, run, shown, oracle, each_turn in (
        ("plan_then_act", plan_then_act.plan_then_act, plan_then_act.shown, plan_then_act.oracle, ()),
        ("act_only", act_only.act_only, act_only.shown, None, ()),
        ("react", react.react, react.shown, None, SPEAKING["react"]),
        ("blink_think_link", blink_think_link.blink_think_link, blink_think_link.shown, None, ()),
        ("plan_steps", plan_steps.plan_steps, plan_steps.shown, plan_steps.oracle, ()),
    )
}
