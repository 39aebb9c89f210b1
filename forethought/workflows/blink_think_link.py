"""Blink, think, link (arXiv 2509.15566): a look names what matters, a thought makes a plan of it, the link
acts.

n looks at a task, n thoughts after each look that the interface accepts, n executions of each plan. The
taskset judges looks (`Looking`) and plans, its environment the link. `replan_after`: as `plan_then_act` has
it; a new thought comes after a new look.
"""

from __future__ import annotations

from forethought.core.errors import RecipeError
from forethought.core.types import Task, Turn
from forethought.tasks.base import Demonstrates, Looking, LooksAgain, Taskset, face, needed
from forethought.workflows.acting import Reads, judge, judge_plan, pay
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
    failed, again, most = 0, False, link.options.get("replan_after", 0)
    while not link.ended:
        outcome = await link.step()
        if outcome is None:
            return
        if outcome.done:
            with link.guard("reward"):
                # whether a thought from the middle of an episode is followed is not known
                followed = link.taskset.follows
                parts = {} if again else {"follows": followed(task, plan, link.texts("link")).score}
                pay(link, outcome, **parts)
            return
        failed += outcome.missed
        if most and (outcome.replan or failed >= most):
            failed, again = 0, True
            await _say(link, task, "blink", _looking(link.taskset).parse_look)
            await _say(link, task, "think", link.taskset.parse_plan)
        await link.generate("link")


async def _say(link: Trajectory, task: Task, role: str, parse: Reads) -> None:
    """A look or a thought on the page as it is now."""
    if link.ended:
        return
    await link.generate(role)
    if link.ended:
        return
    with link.guard("parse"):
        parsed = parse(task, link.text)
        link.reward(format=parsed.score)
        if not parsed.score:
            link.refuse(parsed.reason)


def demonstration(taskset: Taskset, task: Task) -> list[Turn]:
    """The taskset's demonstration in the roles of this workflow, and before each thought the oracle's
    look."""
    says = {"plan": "think", "act": "link", None: None}
    again = face(taskset, LooksAgain)
    looks = [_looking(taskset).look(task), *(again.later_looks(task) if again else ())]
    turns: list[Turn] = []
    for turn in needed(taskset, Demonstrates, "blink_think_link").demonstrate(task):
        if turn.role == "plan" and looks:
            turns.append(Turn(role="blink", text=looks.pop(0)))
        turns.append(Turn(role=says[turn.role], text=turn.text))
    return turns


def _looking(taskset: Taskset) -> Looking:
    found = face(taskset, Looking)
    if found is None:
        raise RecipeError(
            "workflow", f"blink_think_link asks for a look, and {taskset.name} knows none; take desk or web"
        )
    return found
