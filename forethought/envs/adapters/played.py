"""A session of an adapter as an environment of this library: what the model writes is read, turns and rewards
are counted, and an end is told as an `Outcome`."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from forethought.core.types import Outcome, Task
from forethought.envs.adapters.base import Adapter, Answer
from forethought.envs.adapters.bridge import Bridge
from forethought.envs.base import Environment, Observation
from forethought.envs.values import WrongType, need
from forethought.interface.result import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Of an episode. `turns`: most of them. `threshold`: return from which it is a success. `ends`: a turn
    that is no action ends it; else the model is told why, and the turn is used up."""

    turns: int
    threshold: float
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """The `state` of a task: with what its episodes are reset, and the system message of its prompt."""

    seed: int
    system: str = ""


class Played(Environment):
    """One episode of an adapter whose sessions do not wait."""

    def __init__(self, adapter: Adapter, rules: Rules):
        self.adapter, self.rules = adapter, rules
        self.session: Any = None
        self.taken, self.total = 0, 0.0

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin as the task says: what is shown is the task's prompt already, so nothing is shown again."""
        self.session = self.adapter.session()
        self.session.reset(task.state.seed, task.level)
        return Observation()

    def step(self, action: str) -> Outcome:
        """The environment's answer to a turn; a turn that is no action never reaches it."""
        return _driven(self._step(action))

    def close(self) -> None:
        """Close the session, if there is one."""
        if self.session is not None:
            self.session.close()

    async def _step(self, text: str) -> Outcome:
        self.taken += 1
        read = self.adapter.read(text)
        if isinstance(read, Refusal):
            return await self._refused(read)
        answer = await self._ask(self.session.step(read.value))
        if isinstance(answer, Outcome):  # of a class that speaks this library's words
            cut = not answer.done and self.taken >= self.rules.turns
            return replace(answer, done=True, reason=answer.reason or self._late()) if cut else answer
        need(isinstance(answer, Answer), answer, "an Answer")
        reward = _number(answer.reward, "the reward of a step")
        self.total += reward
        parts = {"legal": 1.0, "reward": reward, **answer.parts}
        if answer.terminated or answer.truncated or self.taken >= self.rules.turns:
            return await self._end(answer, parts)
        return Outcome(
            done=False, observation=answer.text, images=answer.images, parts=parts, reason=answer.reason
        )

    async def _refused(self, read: Refusal) -> Outcome:
        reason, parts = f"no action: {read}", {"legal": 0.0, "reward": 0.0}
        if self.rules.ends or self.taken >= self.rules.turns:
            return await self._end(Answer(truncated=True, reason=reason), parts)
        return Outcome(done=False, observation=f"That is no action. {read}", reason=reason, parts=parts)

    async def _end(self, answer: Answer, parts: dict[str, float]) -> Outcome:
        """How the episode ended: `terminated` or not (`truncated`: cut off, by the environment or here)."""
        judged: float | None = self.total
        if hasattr(self.session, "score"):
            judged = await self._ask(self.session.score())
            if judged is not None:
                judged = self.total + _number(judged, "the score of an episode")
                parts["reward"] += judged - self.total
        parts |= {"terminated": float(answer.terminated), "truncated": float(not answer.terminated)}
        success = None if judged is None else judged >= self.rules.threshold
        why = answer.reason or ("" if answer.terminated else self._late(answer.truncated))
        return Outcome(
            done=True,
            success=success,
            score=judged,
            observation=answer.text,
            images=answer.images,
            parts=parts,
            reason=why,
        )

    def _late(self, truncated: bool = False) -> str:
        return "cut off by the environment" if truncated else f"no end within {self.rules.turns} turns"

    async def _ask(self, answer: Any) -> Any:
        return answer


class Waiting(Played):
    """One episode of an adapter whose sessions are coroutines, on the adapter's own loop."""

    def __init__(self, adapter: Adapter, rules: Rules, bridge: Bridge):
        super().__init__(adapter, rules)
        self.bridge = bridge

    async def reset(self, task: Task, seed: int) -> Observation:  # type: ignore[override]
        """As `Played.reset`."""
        self.session = self.adapter.session()
        await self.bridge.there(self.session.reset(task.state.seed, task.level))
        return Observation()

    async def step(self, action: str) -> Outcome:  # type: ignore[override]
        """As `Played.step`."""
        return await self._step(action)

    async def close(self) -> None:  # type: ignore[override]
        """As `Played.close`."""
        if self.session is not None:
            await self.bridge.there(self.session.close())

    async def _ask(self, answer: Any) -> Any:
        return await self.bridge.there(answer)


def _driven(coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
    """The value of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise WrongType("waited, though its adapter does not")


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        need(False, value, "a finite number", what)
    return float(value)
