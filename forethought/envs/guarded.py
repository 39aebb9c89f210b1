"""A task family behind its boundary: every call guarded, every value of the type that `tasks.base.Taskset`
promises.

This is the one place where Outcomes, Verdicts, tasks and texts come in; what is behind it can rely on their
types.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from forethought.core.errors import UserError
from forethought.core.types import Side, Task, Turn
from forethought.envs.base import Environment
from forethought.envs.guard import Boundary, Guard
from forethought.envs.pool import Pool
from forethought.envs.values import WrongType, environment, need, text, verdict
from forethought.recipe.schema import LimitSpec
from forethought.tasks.base import Split, Taskset

if TYPE_CHECKING:
    _Taskset = Taskset  # whose attributes it has, by `__getattr__`
else:
    _Taskset = object

Check = Callable[[Any], Any]


def guarded(taskset: Taskset, limits: LimitSpec | None = None) -> Guarded:
    """The family behind its boundary; one that is there already stays as it is. Raises Fault for attributes
    of the wrong type."""
    found = taskset if isinstance(taskset, Guarded) else Guarded(taskset)
    if limits is not None:
        found.guard.limits = limits
    return found


class Guarded(_Taskset):
    """Looks like the family, to read and to write. Methods that the protocol does not name are guarded too,
    without a limit."""

    def __init__(self, taskset: Taskset):
        own = self.__dict__
        own["_inner"], own["_closed"], own["guard"] = taskset, False, Guard(_name(taskset))
        own["episodes"] = Pool(self.guard)
        self.guard.call("task", "the attributes", _attributes, (taskset,))

    def __getattr__(self, name: str) -> Any:
        inner, guard = self._inner, self.guard
        try:
            value = getattr(inner, name)
        except AttributeError:
            raise
        except Exception as error:  # a property
            raise guard.fault("task", name, error) from None
        if not callable(value):
            return value
        boundary, check = METHODS.get(name, ("task", None))
        seconds = None if name in METHODS else 0.0
        if check is _turns:
            check = partial(_turns, roles={*inner.stops, *inner.opens, *inner.budgets})

        def method(*args: Any, **named: Any) -> Any:
            return guard.call(boundary, name, getattr(inner, name), args, named, check, seconds)

        self.__dict__[name] = method
        return method

    def __setattr__(self, name: str, value: Any) -> None:
        # read here: what it stands for comes back
        if value is self.__dict__.get(name) or getattr(value, "__self__", None) is self:
            delattr(self._inner, name)
        else:
            setattr(self._inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._inner, name)

    def family(self, rng: Any, levels: list[int], split: Split) -> list[Task]:
        """Tasks of the taskset, one per level, checked for type and number."""
        return self.guard.call(
            "task", "family", self._inner.family, (rng, levels, split), None, _tasks_of(len(levels))
        )

    def demonstrable(self, rng: Any, levels: list[int]) -> list[Task]:
        """Tasks with demonstrations, one per level, checked for type and number."""
        return self.guard.call(
            "task", "demonstrable", self._inner.demonstrable, (rng, levels), None, _tasks_of(len(levels))
        )

    def environment(self, task: Task, noise: bool) -> Environment:
        """A fresh environment, checked for `reset`, `step` and `close`."""
        return self.guard.call(
            "environment", "environment", self._inner.environment, (task, noise), None, environment
        )

    def close(self) -> None:
        """Give back what the family holds, once. What breaks in that no longer matters to anybody."""
        self.episodes.stop()
        if not self._closed:
            self.__dict__["_closed"] = True
            with suppress(UserError):
                self.guard.call("task", "close", self._inner.close)


# ---- what a value must be ----------------------------------------------------------------------------------


def _tasks(value: Any) -> list[Task]:
    need(isinstance(value, list | tuple), value, "a list of tasks")
    for i, task in enumerate(value):
        need(isinstance(task, Task), task, "a Task", f"task {i}")
        for name in ("id", "context", "prompt"):
            text(getattr(task, name), f"Task.{name}")
        need(isinstance(task.level, int), task.level, "a whole number", "Task.level")
    return list(value)


def _tasks_of(n: int) -> Check:
    def check(value: Any) -> list[Task]:
        found = _tasks(value)
        if len(found) != n:
            raise WrongType(f"gave {len(found)} tasks for {n} levels")
        return found

    return check


def _one(value: Any) -> Task:
    need(isinstance(value, Task), value, "a Task")
    return _tasks([value])[0]


def _turns(value: Any, roles: Container[str]) -> list[Turn]:
    need(isinstance(value, list | tuple) and len(value) > 0, value, "a list of turns")
    for i, turn in enumerate(value):
        need(isinstance(turn, Turn), turn, "a Turn", f"turn {i}")
        need(turn.role is None or turn.role in roles, turn.role, "a role or None", "Turn.role")
        text(turn.text, "Turn.text")
    return list(value)


def _words(value: Any) -> list[str]:
    need(isinstance(value, list | tuple), value, "a list of words")
    for word in value:
        text(word, "a word")
    return list(value)


def _vote(value: Any) -> str | None:
    return value if value is None else text(value)


def _judgement(value: Any) -> Mapping[str, object]:
    need(isinstance(value, Mapping), value, "a table of verdicts")
    return value


METHODS: Mapping[str, tuple[Boundary, Callable[..., Any] | None]] = {
    "vocabulary": ("task", _words),
    "oracle_plan": ("task", text),
    "demonstrate": ("task", _turns),
    "pool": ("task", _tasks),
    "mutate": ("task", _one),
    "rewritten": ("task", _one),
    "has_plan": ("task", None),
    "messages": ("task", None),
    "with_plan": ("task", _turns),
    "look": ("task", text),
    "parse_look": ("parse", verdict),
    "judge_look": ("reward", verdict),
    "parse_plan": ("parse", verdict),
    "meaning": ("parse", text),
    "judge_plan": ("reward", verdict),
    "follows": ("reward", verdict),
    "vote": ("reward", _vote),
    "judge_acts": ("reward", _judgement),
}
"""Method -> where it breaks, and what it gives. These have the limit of a step."""


def _attributes(taskset: Any) -> None:
    need(
        isinstance(taskset, Taskset),
        taskset,
        "an object whose class derives from forethought.tasks.base.Taskset",
    )
    need(isinstance(taskset.name, str), taskset.name, "text", "name")
    need(isinstance(taskset.levels, list | tuple), taskset.levels, "levels", "levels")
    for level in taskset.levels:
        need(isinstance(level, int), level, "a whole number", "a level")
    need(
        isinstance(taskset.turns, int) and taskset.turns >= 1, taskset.turns, "a whole number from 1", "turns"
    )
    need(isinstance(taskset.told, str), taskset.told, "text", "told")
    side, most = taskset.side, taskset.observation
    need(side in get_args(Side), side, " or ".join(get_args(Side)), "side")
    need(type(most) is int and most >= 0, most, "a whole number from 0", "observation")
    for name, table, kind, what in (
        ("stops", taskset.stops, str, "text"),
        ("budgets", taskset.budgets, int, "a whole number"),
    ):
        need(
            isinstance(table, Mapping)
            and (bool(table) or name != "budgets")
            and all(isinstance(role, str) for role in table),
            table,
            "a table with a row for each role",
            name,
        )
        for role in table:
            need(isinstance(table[role], kind), table[role], what, f"{name}[{role!r}]")


def _name(taskset: Any) -> str:
    """What people call it: its class, or what a taskset that plays somebody's environment says (`plays`)."""
    plays = getattr(taskset, "plays", "")
    name = plays if isinstance(plays, str) and plays else type(taskset).__name__
    return name if name.isprintable() else ascii(name)
