"""Reasoning without observation (ReWOO, arXiv 2305.18323): a plan names every use of a tool before the first
is carried out, with `#E1` where a later one takes what an earlier one brings; workers carry them out, side by
side where they can; a solver reads plan and evidence, and answers.

n plans of a task, n solutions of each that the interface accepts. Fewer tokens are read than by thinking
before every act, from the second step on (`measure.costs`); but nothing that comes back changes the plan. A
use that a tool refuses brings `none`, and so does everything that needs it."""

from __future__ import annotations

from forethought.core.types import Task, Turn
from forethought.tasks.base import Answers, Oracle, Taskset, needed
from forethought.workflows.acting import answer, judge_plan
from forethought.workflows.tooling import NONE, carried, read, said, tooled
from forethought.workflows.trajectory import Counts, Trajectory, together


async def rewoo(t: Trajectory, task: Task, n: Counts) -> None:
    """`n["plan"]` plans; under each accepted one, after its tools, `n["conclude"]` solutions."""
    plans = await t.fork("plan", n["plan"])
    for plan in plans:
        judge_plan(plan, task)
    if n["conclude"]:
        await together(_worked(plan, task, n["conclude"]) for plan in plans if plan.accepted)


async def _worked(plan: Trajectory, task: Task, n: int) -> None:
    uses = read(plan, task)
    if plan.ended or (found := await carried(plan, uses)) is None:
        return
    plan.observe(said(plan.taskset, found.values, [use.name for use in uses]))
    if not plan.ended:
        solutions = await plan.fork("conclude", n)
        await together(answer(solution) for solution in solutions if not solution.ended)


def demonstration(taskset: Taskset, task: Task) -> list[Turn]:
    """The oracle's plan, what the tools bring, and the last value as the answer."""
    plan = needed(taskset, Oracle, "rewoo").oracle_plan(task)
    values = needed(taskset, Answers, "rewoo").answers(task, plan)
    names = [use.name for use in tooled(taskset, "rewoo").uses(task, plan)]
    value = values.get(names[-1], NONE)
    return [
        Turn(role="plan", text=plan),
        Turn(role=None, text=said(taskset, values, names)),
        Turn(role="conclude", text=f"{value} {taskset.stop('conclude')}".strip()),
    ]
