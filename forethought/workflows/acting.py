"""What the shipped workflows have in common: turns of acting until the environment is done."""

from __future__ import annotations

from forethought.core.types import Outcome
from forethought.workflows.trajectory import Trajectory


def pay(t: Trajectory, outcome: Outcome, **parts: float) -> None:
    """The reward parts of the turn with which an episode ended: whether it has the form, and its outcome."""
    late = {"timed_out": 1.0} if outcome.timed_out else {}
    t.reward(format=float(t.status == "finished"), outcome=float(outcome.success), **parts, **late)
