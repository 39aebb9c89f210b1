"""An environment of one's own: a secret number, and hints. Try it: python examples/environment.py

workflow = "act_only"
task = { name = "environment", environment = "environment.py:HotAndCold", plan = "none", levels = [15] }
"""

from __future__ import annotations

import random

from forethought.core.types import Outcome, Task
from forethought.envs.pool import play


class HotAndCold:
    """`task.level` is the largest number that the secret can be. An answer is a number, and at most `turns`
    are heard."""

    turns = 8

    def reset(self, task: Task, seed: int) -> str:
        self.secret, self.heard = random.Random(seed).randint(1, task.level), 0
        return f"I think of a number from 1 to {task.level}."

    def step(self, action: str) -> Outcome:
        self.heard += 1
        if not action.strip().isdecimal():
            return Outcome(done=True, reason=f"{action!r} is no number", parts={"readable": 0.0})
        guess = int(action)
        if guess == self.secret or self.heard == self.turns:
            found = guess == self.secret
            return Outcome(done=True, success=found, reason="" if found else f"it was {self.secret}")
        hint = "larger" if guess < self.secret else "smaller"
        return Outcome(done=False, observation=f"It is {hint}.", parts={"readable": 1.0})


if __name__ == "__main__":
    task = Task(id="one", taskset="numbers", level=100, context="", prompt="Find the number.")
    for seen in play(HotAndCold(), task, ["50", "75", "62", "56", "53"]):
        print(seen)
