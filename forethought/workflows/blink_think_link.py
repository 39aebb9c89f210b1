"""Blink, think, link (arXiv 2509.15566): a look names what matters, a thought makes a plan of it, the link
acts.

n looks at a task, n thoughts after each look that the interface accepts, n executions of each plan. The
taskset judges looks (`Looking`) and plans, its environment the link.
"""

from __future__ import annotations

from forethought.core.errors import RecipeError
from forethought.core.types import Task, Turn
from forethought.tasks.base import Demonstrates, Looking, Taskset, face, needed
from forethought.workflows.acting import judge, judge_plan, pay
from forethought.workflows.trajectory import Counts, Trajectory, together


async def blink_think_link(t: Trajectory, task: Task, n: Counts) -> None:
    """Looks, below each accepted one thoughts, below each accepted one links."""
    looks = await t.fork("blink", n["blink"])
    for look in looks:
        looking = _looking(look.taskset)
        judge(look, task, looking.parse_look, looking.judge_look)
    await together(_thoughts(look, task, n) for look in looks if look.accepted)


async def _thoughts(look: Trajectory, task: Task, n: Counts) -> None:
    thoughts = await look.fork("think", n["think"])
    for thought in thoughts:
        judge_plan(thought, task)
    await together(_links(thought, task, n["link"]) for thought in thoughts if thought.accepted)


async def _links(thought: Trajectory, task: Task, n: int) -> None:
    await together(_link(link, task, thought.text) for link in await thought.fork("link", n))


async def _link(link: Trajectory, task: Task, plan: str) -> None:
    while not link.ended:
        outcome = await link.step()
        if outcome is None:
            return
        if outcome.done:
            with link.guard("reward"):
                pay(link, outcome, follows=link.taskset.follows(task, plan, link.texts("link")).score)
            return
        await link.generate("link")


def demonstration(taskset: Taskset, task: Task) -> list[Turn]:
    """The oracle's look, and the taskset's demonstration in the roles of this workflow."""
    says = {"plan": "think", "act": "link", None: None}
    turns = [
        Turn(role=says[turn.role], text=turn.text)
        for turn in needed(taskset, Demonstrates, "blink_think_link").demonstrate(task)
    ]
    return [Turn(role="blink", text=_looking(taskset).look(task)), *turns]


def _looking(taskset: Taskset) -> Looking:
    found = face(taskset, Looking)
    if found is None:
        raise RecipeError(
            "workflow", f"blink_think_link asks for a look, and {taskset.name} knows none; take desk"
        )
    return found
