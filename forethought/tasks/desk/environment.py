"""Episodes of `desk`: clicks on exact cells, all at once or one a turn."""

from __future__ import annotations

import random

from forethought.core.types import Outcome, Task
from forethought.envs.base import Environment
from forethought.tasks.desk.screens import ROOT, SLIPPED, Goal, covered, free, observe

IN_THE_WAY = "a popup covers the desk"


class DeskEnvironment(Environment):
    """The simulator: a click must hit a widget with an open parent; the first that does not ends the episode.

    The widget's name in an act is a comment for the reader of traces: only coordinates count.
    """

    def __init__(
        self,
        state: Goal,
        stepwise: bool,
        retry: bool,
        turns: int,
        stop: str,
        slip: float,
        flip: float,
        popup: float = 0.0,
    ):
        self.state, self.stepwise, self.retry, self.turns, self.stop = state, stepwise, retry, turns, stop
        self.slip, self.flip, self.popup = slip, flip, popup
        self.over: tuple[str, str] | None = None  # where the popup is
        self.open = {ROOT}
        self.by_cell = {cell: name for name, cell in state.cells.items()}
        self.taken = 0

    def reset(self, task: Task, seed: int) -> None:
        """Seed the noise; there is no first observation."""
        if (
            self.slip or self.flip or self.popup
        ):  # else nothing is drawn, and a generator takes longer than a step
            self.rng = random.Random(seed)

    def step(self, action: str) -> Outcome:
        """Make the clicks in `action` in order; a wrong one ends the episode unless the taskset lets it
        retry."""
        self.taken += 1
        words = action.split()
        if not words or words[-1] != self.stop:
            return self._end(False, f"the acting does not end with {self.stop}")
        words = words[:-1]
        if self.popup and self.taken < self.turns and (found := self._covered(words)) is not None:
            return found
        last = None
        while len(words) >= 3:
            last = self.by_cell.get((words[1], words[2]))
            reason = self._click(last, words[1], words[2])
            if reason and self.retry and self.taken < self.turns:
                return Outcome(done=False, observation=SLIPPED, reason=reason)
            if reason:
                return self._end(False, reason)
            words = words[3:]
        if self.stepwise and not words and last is not None and self.taken < self.turns:
            return Outcome(done=False, observation=observe(self.state, last))
        if last != self.state.goal:
            clicked = f"the last click was on {last}" if last else "nothing was clicked"
            return self._end(False, f"{clicked}, the goal is {self.state.goal}")
        if words != [self.state.value]:
            return self._end(
                False, f"the value set was {' '.join(words)!r}, the goal's is {self.state.value!r}"
            )
        return self._end(True, "")

    def _covered(self, words: list[str]) -> Outcome | None:
        """What a popup makes of a turn, if there is one or one comes."""
        if self.over is not None and tuple(words[1:3]) == self.over:
            self.over = None
            return Outcome(done=False, observation=SLIPPED)
        if self.over is None and self.rng.random() < self.popup:
            self.over = free(self.rng, self.state.cells)
        return (
            None
            if self.over is None
            else Outcome(done=False, observation=covered(self.over), reason=IN_THE_WAY)
        )

    def _click(self, name: str | None, x: str, y: str) -> str:
        if name is None:
            return f"nothing is at {x} {y}"
        if not self.open.intersection(self.state.parents[name]):
            return f"{name} was clicked before {' or '.join(self.state.parents[name])} was open"
        if self.slip and self.rng.random() < self.slip:
            return f"the click on {name} slipped"
        self.open.add(name)
        return ""

    def _end(self, success: bool, reason: str) -> Outcome:
        if self.flip and self.rng.random() < self.flip:
            return Outcome(done=True, success=not success, reason=f"flipped verdict ({reason or 'success'})")
        return Outcome(done=True, success=success, reason=reason)
