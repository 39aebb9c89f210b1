"""Who speaks when: tasks become trees of rollouts. What a workflow of one's own is written with can be
imported from here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forethought.core.types import Outcome, Task, Turn
    from forethought.recipe.speaking import workflow
    from forethought.tasks.base import Taskset
    from forethought.workflows.trajectory import Counts, Trajectory, together

__all__ = ["Counts", "Outcome", "Task", "Taskset", "Trajectory", "Turn", "together", "workflow"]
_FROM = {
    "workflow": "forethought.recipe.speaking",
    "Taskset": "forethought.tasks.base",
    **dict.fromkeys(("Counts", "Trajectory", "together"), "forethought.workflows.trajectory"),
    **dict.fromkeys(("Outcome", "Task", "Turn"), "forethought.core.types"),
}


def __getattr__(name: str) -> Any:
    """Loaded when it is asked for."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FROM[name]), name)
