"""The workflows that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from forethought.core.types import Task, Turn
from forethought.recipe.speaking import DECLARED, SPEAKING, Speaks, own, workflow
from forethought.tasks.base import Demonstrates, Taskset, needed
from forethought.workflows import act_only, blink_think_link, plan_steps, plan_then_act, react
from forethought.workflows.trajectory import Counts, Trajectory

Run = Callable[[Trajectory, Task, Counts], Coroutine[Any, Any, None]]
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
    speaks: Speaks

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that it speaks, in their order."""
        return self.speaks.roles

    @property
    def each_turn(self) -> tuple[str, ...]:
        """Who may speak before every answer of the environment; (): the last role."""
        return self.speaks.each_turn


def register(
    name: str,
    run: Run,
    roles: tuple[str, ...] = (),
    shown: Shown | None = None,
    oracle: Oracle | None = None,
    options: Mapping[str, int] | None = None,
    continues: Mapping[str, str] | None = None,
) -> Workflow:
    """A workflow of your own, which recipes of this process can name from now on: `run` was declared by
    `@workflow`, or `roles` and the rest declare it here. No other process knows the name; a recipe that names
    the code itself ("flow.py:think_twice") is known everywhere."""
    if roles:
        workflow(roles=roles, continues=continues, options=options, shown=shown, oracle=oracle)(run)
    WORKFLOWS[name], SPEAKING[name] = _own(name, run), getattr(run, DECLARED)
    return WORKFLOWS[name]


def workflow_of(name: str) -> Workflow:
    """RecipeError for one that is not known."""
    return WORKFLOWS[name] if name in WORKFLOWS else _own(name, own(name))


def _own(name: str, run: Run) -> Workflow:
    said: Speaks = getattr(run, DECLARED)

    def demonstrated(taskset: Taskset, task: Task) -> list[Turn]:
        turns = needed(taskset, Demonstrates, name).demonstrate(task)
        return [turn for turn in turns if turn.role is None or turn.role in said.roles]

    shown = said.shown or demonstrated
    return Workflow(name, run, shown, said.oracle or _said_in(shown), said)


def _said_in(shown: Shown) -> Oracle:
    return lambda taskset, task, role: [turn.text for turn in shown(taskset, task) if turn.role == role]


WORKFLOWS: dict[str, Workflow] = {
    name: Workflow(name, run, shown, oracle or _said_in(shown), SPEAKING[name])
    for name, run, shown, oracle in (
        ("plan_then_act", plan_then_act.plan_then_act, plan_then_act.shown, plan_then_act.oracle),
        ("act_only", act_only.act_only, act_only.shown, None),
        ("react", react.react, react.shown, None),
        ("blink_think_link", blink_think_link.blink_think_link, blink_think_link.shown, None),
        ("plan_steps", plan_steps.plan_steps, plan_steps.shown, plan_steps.oracle),
    )
}
