"""Act without a plan: the baseline of every other workflow."""

from __future__ import annotations

from forethought.core.types import Task
from forethought.workflows.acting import pay
from forethought.workflows.trajectory import Counts, Trajectory, together


async def act_only(t: Trajectory, task: Task, n: Counts) -> None:
    """`n["act"]` executions of the bare task; all are peers."""
    await together(_execute(act) for act in await t.fork("act", n["act"]))


async def _execute(act: Trajectory) -> None:
    while not act.ended:
        outcome = await act.step()
        if outcome is None:
            return
        if outcome.done:
            pay(act, outcome)
            return
        await act.generate("act")
