"""Chain-of-Abstraction (arXiv 2401.17464): a whole chain of reasoning with placeholders for results, which
tools fill in afterwards; the last one is the answer.

n chains of a task, and none of it waits for a tool while it is written. Where a tool refuses, the chain is
written anew on the same branch, after a line of what has no value; `rounds` chains at most."""

from __future__ import annotations

from forethought.core.types import Task, Turn
from forethought.tasks.base import Answers, Oracle, Taskset, needed
from forethought.workflows.acting import answer, judge_plan
from forethought.workflows.tooling import NONE, carried, read, said, tooled
from forethought.workflows.trajectory import Counts, Trajectory, together


async def abstraction(t: Trajectory, task: Task, n: Counts) -> None:
    """`n["plan"]` chains, each filled in, mended and answered."""
    await together(_filled_in(chain, task) for chain in await t.fork("plan", n["plan"]))


async def _filled_in(chain: Trajectory, task: Task) -> None:
    rounds = max(1, chain.options["rounds"])
    for written in range(1, rounds + 1):
        judge_plan(chain, task)
        if not chain.accepted:
            return
        uses = read(chain, task)
        if chain.ended or (found := await carried(chain, uses)) is None:
            return
        if not found.refused or written == rounds:
            act = tooled(chain.taskset, "abstraction").answer(found.values.get(uses[-1].name, NONE))
            await answer(chain, act)
            return
        chain.note("; ".join(f"{name}: {reason}" for name, reason in found.refused.items()))
        chain.observe(said(chain.taskset, {}, found.refused))
        if chain.ended:
            return
        await chain.generate("plan")


def demonstration(taskset: Taskset, task: Task) -> list[Turn]:
    """The oracle's chain; where tools refuse parts of it, those, and the chain that goes around them."""
    plan = needed(taskset, Oracle, "abstraction").oracle_plan(task)
    knows = needed(taskset, Answers, "abstraction")
    turns = [Turn(role="plan", text=plan)]
    if again := knows.repaired(task):
        values = knows.answers(task, plan)
        uses = tooled(taskset, "abstraction").uses(task, plan)
        refused = [use.name for use in uses if use.name not in values and values.keys() >= set(use.needs)]
        turns += [Turn(role=None, text=said(taskset, {}, refused)), Turn(role="plan", text=again)]
    return turns
