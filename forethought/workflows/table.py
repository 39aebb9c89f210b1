"""The workflows that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from forethought.core.types import Task, Turn
from forethought.envs.guarded import guarded
from forethought.envs.values import need
from forethought.recipe.speaking import DECLARED, SPEAKING, Speaks, own, workflow
from forethought.tasks.base import Demonstrates, Taskset, needed
from forethought.workflows import (
    abstraction,
    act_only,
    blink_think_link,
    memory,
    modulo,
    plan_steps,
    plan_then_act,
    react,
    rewoo,
)
from forethought.workflows.trajectory import Counts, Trajectory

Run = Callable[[Trajectory, Task, Counts], Coroutine[Any, Any, None]]
Demonstration = Callable[[Taskset, Task], list[Turn]]
Oracle = Callable[[Taskset, Task, str], list[str]]


@dataclass(frozen=True, slots=True)
class Workflow:
    """`run`: the coroutine. `demonstration`: what imitation shows of a task. `oracle`: what the oracle says
    in a role, in order."""

    name: str
    run: Run
    demonstration: Demonstration
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


def register(name: str, run: Run, roles: tuple[str, ...] = ()) -> Workflow:
    """A workflow of your own, which recipes of this process can name from now on: `run` was declared by
    `@workflow`, or `roles` declare it here. No other process knows the name; a recipe that names the code
    itself ("flow.py:think_twice") is known everywhere."""
    if roles:
        workflow(roles=roles)(run)
    WORKFLOWS[name], SPEAKING[name] = _own(name, run), getattr(run, DECLARED)
    return WORKFLOWS[name]


def workflow_of(name: str) -> Workflow:
    """RecipeError for one that is not known."""
    return WORKFLOWS[name] if name in WORKFLOWS else _own(name, own(name))


def _own(name: str, run: Run) -> Workflow:
    """With what it says of demonstrations behind the boundary: it is foreign code."""
    said: Speaks = getattr(run, DECLARED)
    shown, told = (
        _guarded(name, function, check) if function else None
        for function, check in ((said.demonstration, _turns), (said.oracle, _texts))
    )
    return _made(name, run, said, shown, told)


def _guarded(name: str, function: Callable[..., Any], check: Callable[[Any], Any]) -> Callable[..., Any]:
    """Raises Fault where the function breaks, or gives something else."""

    def call(taskset: Taskset, *args: Any) -> Any:
        return guarded(taskset).guard.call("workflow", name, function, (taskset, *args), None, check)

    return call


def _turns(value: Any) -> list[Turn]:
    need(isinstance(value, list | tuple), value, "a list of turns")
    for i, turn in enumerate(value):
        need(isinstance(turn, Turn), turn, "a Turn", f"turn {i}")
    return list(value)


def _texts(value: Any) -> list[str]:
    need(isinstance(value, list | tuple), value, "a list of texts")
    for one in value:
        need(isinstance(one, str), one, "a text", "a turn of the oracle")
    return list(value)


def _made(
    name: str,
    run: Run,
    said: Speaks,
    demonstration: Demonstration | None = None,
    oracle: Oracle | None = None,
) -> Workflow:
    """A workflow that says nothing else of a demonstration shows the turns of its own roles, and its oracle
    says those of the demonstration."""

    def demonstrated(taskset: Taskset, task: Task) -> list[Turn]:
        turns = needed(taskset, Demonstrates, name).demonstrate(task)
        return [turn for turn in turns if turn.role is None or turn.role in said.roles]

    shown = demonstration or said.demonstration or demonstrated
    return Workflow(name, run, shown, oracle or said.oracle or _said_in(shown), said)


def _said_in(demonstration: Demonstration) -> Oracle:
    return lambda taskset, task, role: [
        turn.text for turn in demonstration(taskset, task) if turn.role == role
    ]


WORKFLOWS: dict[str, Workflow] = {
    name: _made(name, run, SPEAKING[name], *more)
    for name, run, *more in (
        ("plan_then_act", plan_then_act.plan_then_act, None, plan_then_act.oracle),
        ("remembering", memory.remembering, None, plan_then_act.oracle),
        ("act_only", act_only.act_only),
        ("react", react.react, react.demonstration),
        ("blink_think_link", blink_think_link.blink_think_link, blink_think_link.demonstration),
        ("rewoo", rewoo.rewoo, rewoo.demonstration),
        ("abstraction", abstraction.abstraction, abstraction.demonstration),
        ("modulo", modulo.modulo, modulo.demonstration, modulo.oracle),
        ("plan_steps", plan_steps.plan_steps, plan_steps.demonstration, plan_steps.oracle),
    )
}
