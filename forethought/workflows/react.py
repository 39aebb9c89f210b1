"""Think, act, observe, and again (ReAct, arXiv 2210.03629).

n thoughts of a task; where more than one act is asked for, n executions of each first thought. All later
turns lie on the branch that they continue.
"""

from __future__ import annotations

from forethought.core.types import Task, Turn
from forethought.tasks.base import Oracle, Taskset, Thinking, face, needed
from forethought.workflows.acting import pay
from forethought.workflows.steps import acts_of, steps_of_acts
from forethought.workflows.trajectory import Counts, Trajectory, together


async def react(t: Trajectory, task: Task, n: Counts) -> None:
    """`n["think"]` thoughts; after each `n["act"]` acts, and then thought and act in turn to the end."""
    await together(_first(thought, n["act"]) for thought in await t.fork("think", n["think"]))


async def _first(thought: Trajectory, n: int) -> None:
    if not _is_whole(thought):
        return
    if n > 1:
        await together(_turns(act) for act in await thought.fork("act", n))
    elif n == 1:
        await _turns(await thought.generate("act"))


async def _turns(t: Trajectory) -> None:
    while not t.ended:
        outcome = await t.step()
        if outcome is None:
            return
        if outcome.done:
            pay(t, outcome)
            return
        if not _is_whole(await t.generate("think")):
            return
        await t.generate("act")


def _is_whole(thought: Trajectory) -> bool:
    """A thought that ran out of budget is not acted on."""
    thought.reward(format=float(thought.accepted))
    return thought.accepted


def demonstration(taskset: Taskset, task: Task) -> list[Turn]:
    """Before each act the plan's next step, as a thought, or what the taskset thinks there."""
    knows, thinks = needed(taskset, Oracle, "react"), face(taskset, Thinking)
    acts = acts_of(knows.demonstrate(task))
    if thinks:
        steps = thinks.thoughts(task)
    else:
        steps = steps_of_acts(taskset, task, knows.oracle_plan(task), acts)
    turns: list[Turn] = []
    for step, act in zip(steps, acts, strict=True):
        turns += [Turn(role="think", text=f"{step} {taskset.stop('think')}"), *act]
    return turns
