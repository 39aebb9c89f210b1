"""A demonstration and a plan, taken apart: one act, with what is observed after it, and one step at a
time."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.errors import UserError
from forethought.core.types import Task, Turn
from forethought.tasks.base import Stepped, Taskset, face


def acts_of(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Each act of a demonstration with the observations after it."""
    acts: list[list[Turn]] = []
    for turn in turns:
        if turn.role == "act":
            acts.append([turn])
        elif turn.role is None and acts:
            acts[-1].append(turn)
    return acts


def steps_of(taskset: Taskset, task: Task, plan: str, n: int = 0) -> list[str]:
    """The steps of a plan in words, first one first. `n`: as many as there are acts; one act takes all."""
    stepped = face(taskset, Stepped)
    if not stepped:
        raise UserError(f"{taskset.name} cannot take a plan apart into steps (tasks.base.Stepped)")
    steps = stepped.steps(task, plan)
    if n == 1:
        return [" ".join(steps)]
    if n and len(steps) != n:
        raise UserError(
            f"{taskset.name} shows {n} acts for a plan of {len(steps)} steps; they must be as many"
        )
    return steps
