"""How a task came to be: the level and the seed by which it was drawn, and what it was made into since. A
lineage is a list that JSON can hold, so a run that is resumed has the same tasks again.

[level, seed, step, ...]: a step is the seed of a `mutate`, or the question and answer of a task that was
written anew.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from forethought.core.types import Task
from forethought.envs.guard import Fault
from forethought.tasks.base import Mutable, Rewritten, Taskset, needed
from forethought.workflows.drawing import drawn, undrawn

Lineage = list[Any]
WHY = 'a curriculum with tasks = "evolve"'


def generation(lineage: Sequence[Any]) -> int:
    """0 of a task that was drawn, and one more each time that it was made into another."""
    return len(lineage) - 2


def task_of(taskset: Taskset, lineage: Sequence[Any]) -> Task:
    """The task. Where the taskset breaks over it, a placeholder on which everything fails."""
    level, seed, *steps = lineage
    [task] = drawn(taskset, random.Random(seed), [level], "train")
    for step in steps:
        try:
            task = _next(taskset, task, step)
        except Fault as fault:
            return undrawn(taskset, [level], fault)[0]
    return task


def _next(taskset: Taskset, task: Task, step: Any) -> Task:
    if isinstance(step, int):
        return needed(taskset, Mutable, WHY).mutate(task, random.Random(step))
    return needed(taskset, Rewritten, WHY).rewritten(task, *step)
