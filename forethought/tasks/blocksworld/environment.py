"""Episodes of Blocksworld: acts under the strict STRIPS rules, all at once or one a turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forethought.core.errors import ForethoughtError
from forethought.core.types import Outcome, Task
from forethought.envs.base import Environment
from forethought.interface.result import Refusal
from forethought.tasks.blocksworld import words
from forethought.tasks.blocksworld.strips import Step, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Luck:
    """Probabilities: that a legal put or stack has no effect, and that the outcome is told the wrong way
    round."""

    slip: float = 0.0
    flip: float = 0.0


class AtOnce(Environment):
    """One execution of acts; over after one step."""

    def __init__(
        self,
        task: Task,
        luck: Luck,
        heard: Callable[[str], str] = str,
        told_of: Callable[[str], str] = str,
    ):
        """`heard`: an action in the family's words; `told_of`: a reason in those of the text (`wordings`)."""
        self._task, self._luck, self._heard, self._told_of = task, luck, heard, told_of
        self._over = False

    def reset(self, task: Task, seed: int) -> None:
        """Seed the noise; there is no first observation."""
        self._rng = random.Random(seed)

    def step(self, action: str) -> Outcome:
        """Execute a whole plan of primitives at once; the episode is over after it."""
        self._refuse_more()
        parsed = words.act_grammar(self._task.state.names).parse(self._heard(action))
        if isinstance(parsed, Refusal):
            return self._end(False, str(parsed))
        trace = self._run(parsed.value)
        return self._end(trace.goal, trace.reason)

    def _refuse_more(self) -> None:
        if self._over:
            raise ForethoughtError(
                f"the episode of task {self._task.id!r} is over; ask the taskset for a fresh one"
            )

    def _end(self, success: bool, reason: str) -> Outcome:
        self._over, reason = True, self._told_of(reason)
        if self._luck.flip and self._rng.random() < self._luck.flip:
            success, reason = not success, f"flipped by noise; truly: {reason or 'success'}"
        return Outcome(done=True, success=success, reason=reason)

    def _run(self, steps: Sequence[Step], state: words.State | None = None) -> Trace:
        slips = self._slips if self._luck.slip else None
        return words.run_acts(self._task.state, steps, slips, state)

    def _slips(self, step: Step) -> bool:
        return step[0] in ("put", "stack") and self._rng.random() < self._luck.slip


class Stepwise(AtOnce):
    """One primitive a turn, and the towers after each. Over when the goal holds, after an act that says
    nothing, one that cannot be read, or one that is not legal (unless `retry`), and after `turns`."""

    def __init__(self, task: Task, luck: Luck, *, turns: int, retry: bool):
        super().__init__(task, luck)
        self._turns, self._retry = turns, retry
        self._state = words.state(task.state)

    def step(self, action: str) -> Outcome:
        """Take one primitive."""
        self._refuse_more()
        self._turns -= 1
        parsed = words.act_grammar(self._task.state.names).parse(action)
        if isinstance(parsed, Refusal):
            return self._end(False, str(parsed))
        if len(parsed.value) > 1:
            return self._end(False, f"one act a turn, found {len(parsed.value)}")
        trace = self._run(parsed.value, self._state)
        slipped = trace.executable and bool(parsed.value) and trace.state == self._state
        reason, self._state = trace.reason.removeprefix("step 1: "), trace.state
        goes_on = bool(parsed.value) and not trace.goal and (trace.executable or self._retry)
        if not goes_on or not self._turns:
            return self._end(trace.goal, reason)
        if slipped:
            reason = f"'{' '.join(parsed.value[0])}' slipped"
        elif trace.executable:
            reason = ""
        return Outcome(done=False, observation=words.seen(self._task.state, self._state), reason=reason)
