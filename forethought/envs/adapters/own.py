"""A class of the user's own: `file.py:Class` or `package.module:Class`, in this library's shape
(docs/environments.md): `step(action) -> Outcome`, and where it wants them `reset(task, seed)` and `close()`.

Options of the task table:
    make        arguments of the class
    actions     the only texts that are actions, where there is such a list; others never reach `step`
"""

from __future__ import annotations

import random
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from forethought.core.errors import RecipeError
from forethought.core.places import described
from forethought.core.types import Outcome, Task
from forethought.envs import values
from forethought.envs.adapters.base import Adapter, Shown
from forethought.envs.adapters.options import Options
from forethought.envs.pool import METHODS
from forethought.interface.result import Parsed, Refusal, alternatives, quoted_text

WHERE = "task.environment"


class Own(Adapter):
    """An adapter of one class."""

    def __init__(self, reference: str, made: Any, options: Options):
        if not callable(made):
            raise RecipeError(WHERE, f"{reference} is no class, but {described(made)}")
        if isinstance(made, type) and not callable(getattr(made, "step", None)):
            raise RecipeError(
                WHERE, f"{reference} has no method step(action); docs/environments.md shows one"
            )
        self.made: Callable[..., Any] = made
        self.name = reference.rpartition(":")[2]
        self.arguments = options.mapping("make")
        self.actions = options.names("actions")
        self.waits = any(iscoroutinefunction(getattr(made, name, None)) for name in METHODS)
        turns = getattr(made, "turns", 0)
        self.turns = turns if type(turns) is int and turns > 0 else 0
        if self.actions:
            self.budget = max(len(name.encode()) for name in self.actions) + 2

    def session(self) -> OwnSession:
        """A fresh object of the class."""
        return WaitingSession(self) if self.waits else OwnSession(self)

    def instruction(self) -> str:
        """The actions, where they are known."""
        if not self.actions:
            return ""
        return f"Answer each observation with one action, and nothing else: {', '.join(self.actions)}."

    def read(self, text: str) -> Parsed | Refusal:
        """The text, or one of the actions."""
        said = text.strip()
        if self.actions and said not in self.actions:
            reason = f"found {quoted_text(said)}, expected {alternatives(list(self.actions[:20]))}"
            return Refusal(position=1, reason=reason)
        return Parsed(said)

    def sample(self, rng: random.Random) -> str | None:
        """One of the actions, where they are known."""
        return rng.choice(self.actions) if self.actions else None

    def marks(self) -> list[str]:
        """The actions."""
        return list(self.actions)


class OwnSession:
    """One object, used once."""

    def __init__(self, adapter: Own):
        self._adapter = adapter
        self._object: Any = None

    def reset(self, seed: int, level: int) -> Any:
        """What the object's own reset shows."""
        return _shown(self._begin(seed, level))

    def step(self, action: str) -> Any:
        """The object's outcome, checked."""
        return values.outcome(self._object.step(action))

    def close(self) -> Any:
        """The object's own close, if it has one."""
        return self._object.close() if hasattr(self._object, "close") else None

    def _begin(self, seed: int, level: int) -> Any:
        self._object = values.environment(self._adapter.made(**self._adapter.arguments))
        if not hasattr(self._object, "reset"):
            return None
        task = Task(id=self._adapter.name, taskset="environment", level=level, context="", prompt="")
        return self._object.reset(task, seed)


class WaitingSession(OwnSession):
    """One object with methods that are `async def`."""

    async def reset(self, seed: int, level: int) -> Shown:
        """As `OwnSession.reset`."""
        return _shown(await _awaited(self._begin(seed, level)))

    async def step(self, action: str) -> Outcome:
        """As `OwnSession.step`."""
        return values.outcome(await _awaited(self._object.step(action)))

    async def close(self) -> None:
        """As `OwnSession.close`."""
        if hasattr(self._object, "close"):
            await _awaited(self._object.close())


async def _awaited(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value


def _shown(value: Any) -> Shown:
    seen = values.observation(value)
    return Shown(text=seen.text, images=seen.images)
