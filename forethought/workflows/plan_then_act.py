"""Plan, then act: n plans of a task, and n executions of each that the interface accepts.

`replan_after`: where the environment goes on after a step that failed, a plan is written anew after as many
failed steps, on the same branch; and after a step with which the environment asks for one (`Outcome.replan`).
"""

from __future__ import annotations

from forethought.core.types import Task
from forethought.tasks.base import Demonstrates, Oracle, Taskset, needed
from forethought.workflows.acting import judge_plan, pay
from forethought.workflows.trajectory import Counts, Trajectory, together


async def plan_then_act(t: Trajectory, task: Task, n: Counts) -> None:
    """`n["plan"]` plans; under each accepted one `n["act"]` executions."""
    plans = await t.fork("plan", n["plan"])
    for plan in plans:
        judge_plan(plan, task)
    await together(_executions(plan, task, n) for plan in plans if plan.accepted)


async def _executions(plan: Trajectory, task: Task, n: Counts) -> None:
    await together(execute(act, task, plan.text) for act in await plan.fork("act", n["act"]))


async def execute(act: Trajectory, task: Task, plan: str) -> None:
    """The turns of an execution of `plan`, to the end of its episode."""
    failed, again, most = 0, False, act.options.get("replan_after", 0)
    while not act.ended:
        outcome = await act.step()
        if outcome is None:
            return
        if outcome.done:
            with act.guard("reward"):
                # whether a plan from the middle of an episode is followed is not known
                parts = {} if again else {"follows": act.taskset.follows(task, plan, act.texts("act")).score}
                pay(act, outcome, **parts)
            return
        failed += outcome.missed
        if most and (outcome.replan or failed >= most):
            failed, again = 0, True
            await act.generate("plan")
            _parse(act, task)
            if not act.accepted:
                return
        await act.generate("act")


def _parse(plan: Trajectory, task: Task) -> None:
    if plan.ended:
        return
    with plan.guard("parse"):
        parsed = plan.taskset.parse_plan(task, plan.text)
        plan.reward(format=parsed.score)
        if not parsed.score:
            plan.refuse(parsed.reason)


def oracle(taskset: Taskset, task: Task, role: str) -> list[str]:
    """The oracle's texts for `role`, turn by turn."""
    if role == "plan":
        first = needed(taskset, Oracle, "plan_then_act").oracle_plan(task)
        # no second plan can come where there is one turn
        return [first] if taskset.turns == 1 else [first, *_shown(taskset, task, role)[1:]]
    return _shown(taskset, task, role)


def _shown(taskset: Taskset, task: Task, role: str) -> list[str]:
    turns = needed(taskset, Demonstrates, "plan_then_act").demonstrate(task)
    return [turn.text for turn in turns if turn.role == role]
