"""A task family behind its boundary: every call guarded, every value of the type that `tasks.base.Domain`
promises.

This is the one place where Outcomes, Verdicts, tasks and texts come in; what is behind it can rely on their
types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from inspect import iscoroutine
from numbers import Real
from typing import Any

from forethought.core.errors import UserError
from forethought.core.types import Outcome, Task, Turn, Verdict
from forethought.envs.base import Environment
from forethought.envs.guard import Boundary, Guard, WrongType
from forethought.recipe.schema import ROLES, LimitSpec
from forethought.tasks.base import Domain

Check = Callable[[Any], Any]


def guarded(domain: Domain, limits: LimitSpec | None = None) -> Guarded:
    """The family behind its boundary; one that is there already stays as it is. Raises Fault for attributes
    of the wrong type."""
    if not isinstance(domain, Guarded):
        domain = Guarded(domain)
    if limits is not None:
        domain.guard.limits = limits
    return domain


class Guarded:
    """Looks like the family, to read and to write. Methods that the protocol does not name are guarded too,
    without a limit."""

    def __init__(self, domain: Domain):
        own = self.__dict__
        own["_inner"], own["_closed"], own["guard"] = domain, False, Guard(_name(domain))
        self.guard.call("task", "the attributes", _attributes, (domain,))

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

    def family(self, rng: Any, levels: list[int], split: str) -> list[Task]:
        return self.guard.call(
            "task", "family", self._inner.family, (rng, levels, split), None, _tasks_of(len(levels))
        )

    def shown(self, rng: Any, levels: list[int]) -> list[Task]:
        """Training tasks to demonstrate: a family whose problems come without plans has some of its own, else
        they are drawn."""
        if not hasattr(self._inner, "shown"):
            return self.family(rng, levels, "train")
        return self.guard.call(
            "task", "shown", self._inner.shown, (rng, levels), None, _tasks_of(len(levels))
        )

    def environment(self, task: Task, noise: bool) -> Environment:
        return self.guard.call(
            "environment", "environment", self._inner.environment, (task, noise), None, environment
        )

    def close(self) -> None:
        """Give back what the family holds, once. What breaks in that no longer matters to anybody."""
        if not self._closed and callable(getattr(self._inner, "close", None)):
            self.__dict__["_closed"] = True
            with suppress(UserError):
                self.guard.call("task", "close", self._inner.close)


# ---- what a value must be ----------------------------------------------------------------------------------


def outcome(value: Any) -> Outcome:
    _need(isinstance(value, Outcome), value, "an Outcome")
    for name in ("done", "success", "timed_out"):
        if type(getattr(value, name)) is not bool:
            _need(False, getattr(value, name), "True or False", f"Outcome.{name}")
    if value.observation is not None:
        text(value.observation, "Outcome.observation")
    text(value.reason, "Outcome.reason")
    return value


def verdict(value: Any) -> Verdict:
    """With a score from 0 to 1: what a reward is made of."""
    _need(isinstance(value, Verdict), value, "a Verdict")
    score = value.score
    # nan is in no range
    _need(
        isinstance(score, Real) and 0.0 <= float(score) <= 1.0, score, "a number from 0 to 1", "Verdict.score"
    )
    text(value.reason, "Verdict.reason")
    return value if type(score) is float else replace(value, score=float(score))


def text(value: Any, field: str = "") -> str:
    _need(isinstance(value, str), value, "text", field)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            _need(False, value, "text that can be written as UTF-8", field)
    return value


def _tasks(value: Any) -> list[Task]:
    _need(isinstance(value, list | tuple), value, "a list of tasks")
    for i, task in enumerate(value):
        _need(isinstance(task, Task), task, "a Task", f"task {i}")
        for name in ("id", "context", "prompt"):
            text(getattr(task, name), f"Task.{name}")
        _need(isinstance(task.level, int), task.level, "a whole number", "Task.level")
    return list(value)


def _tasks_of(n: int) -> Check:
    def check(value: Any) -> list[Task]:
        found = _tasks(value)
        if len(found) != n:
            raise WrongType(f"gave {len(found)} tasks for {n} levels")
        return found

    return check


def _turns(value: Any) -> list[Turn]:
    _need(isinstance(value, list | tuple) and len(value) > 0, value, "a list of turns")
    for i, turn in enumerate(value):
        _need(isinstance(turn, Turn), turn, "a Turn", f"turn {i}")
        _need(turn.role is None or turn.role in ROLES, turn.role, "a role or None", "Turn.role")
        text(turn.text, "Turn.text")
    return list(value)


def environment(value: Any) -> Environment:
    _need(callable(getattr(value, "step", None)), value, "an environment with a step")
    return value


def _words(value: Any) -> list[str]:
    _need(isinstance(value, list | tuple), value, "a list of words")
    for word in value:
        text(word, "a word")
    return list(value)


def _vote(value: Any) -> str | None:
    return value if value is None else text(value)


def _judgement(value: Any) -> Mapping[str, object]:
    _need(isinstance(value, Mapping), value, "a table of verdicts")
    return value


METHODS: Mapping[str, tuple[Boundary, Check | None]] = {
    "vocabulary": ("task", _words),
    "oracle_plan": ("task", text),
    "demonstrate": ("task", _turns),
    "pool": ("task", _tasks),
    "has_plan": ("task", None),
    "messages": ("task", None),
    "show": ("task", _turns),
    "parse_plan": ("parse", verdict),
    "meaning": ("parse", text),
    "judge_plan": ("reward", verdict),
    "follows": ("reward", verdict),
    "vote": ("reward", _vote),
    "judge_acts": ("reward", _judgement),
}
"""Method -> where it breaks, and what it gives. These have the limit of a step."""


def _attributes(domain: Any) -> None:
    _need(isinstance(domain.name, str), domain.name, "text", "name")
    _need(isinstance(domain.levels, list | tuple), domain.levels, "levels", "levels")
    for level in domain.levels:
        _need(isinstance(level, int), level, "a whole number", "a level")
    _need(isinstance(domain.turns, int) and domain.turns >= 1, domain.turns, "a whole number from 1", "turns")
    for name, kind, what in (("stops", str, "text"), ("budgets", int, "a whole number")):
        table = getattr(domain, name)
        _need(
            isinstance(table, Mapping) and set(ROLES) <= set(table),
            table,
            f"a table with {' and '.join(ROLES)}",
            name,
        )
        for role in ROLES:
            _need(isinstance(table[role], kind), table[role], what, f"{name}[{role!r}]")


def _need(fits: bool, value: Any, wanted: str, field: str = "") -> None:
    if fits:
        return
    if iscoroutine(value):
        value.close()  # it will not be awaited
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else ""
    found = (
        f"a {type(value).__name__}{f', {shown[:60]}' if shown and value is not None else ''}"
        if value is not None
        else "None"
    )
    raise WrongType(f"gave {field + ' ' if field else ''}{found}, not {wanted}")


def _name(domain: Any) -> str:
    name = type(domain).__name__
    return name if name.isprintable() else ascii(name)
