"""Tasks of a taskset, one per level; where it breaks, tasks that say so stand in their place."""

from __future__ import annotations

import random
from collections.abc import Sequence

from forethought.core.types import Task, Undrawn
from forethought.envs.guard import Fault
from forethought.tasks.base import Split, Taskset


def drawn(taskset: Taskset, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
    """Tasks, one per level; where drawing breaks, placeholders whose trees fail at the boundary "task"."""
    try:
        return taskset.family(rng, levels, split)
    except Fault as fault:
        return undrawn(taskset, levels, fault)


def demonstrable(taskset: Taskset, rng: random.Random, levels: list[int]) -> list[Task]:
    """Training tasks to demonstrate."""
    try:
        return taskset.demonstrable(rng, levels)
    except Fault as fault:
        return undrawn(taskset, levels, fault)


def undrawn(taskset: Taskset, levels: Sequence[int], fault: Fault) -> list[Task]:
    """A placeholder task for each level, which carries the fault's reason."""
    state = Undrawn(fault.reason)
    return [
        Task(id="undrawn", taskset=taskset.name, level=level, context="", prompt="", state=state)
        for level in levels
    ]
