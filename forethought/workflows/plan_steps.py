"""Plan, then act step by step: before each turn the actor reads the plan's next step, and nothing of the plan
is executed that it does not say."""

from __future__ import annotations

from forethought.core.types import Outcome, Task, Turn
from forethought.tasks.base import Demonstrates, Taskset, needed
from forethought.workflows.acting import judge_plan, pay
from forethought.workflows.plan_then_act import oracle
from forethought.workflows.steps import acts_of, steps_of, steps_of_acts
from forethought.workflows.trajectory import Counts, Trajectory, together

__all__ = ["oracle", "plan_steps", "demonstration"]


async def plan_steps(t: Trajectory, task: Task, n: Counts) -> None:
    """`n["plan"]` plans; under each accepted one `n["act"]` executions that see one plan step per turn."""
    plans = await t.fork("plan", n["plan"])
    for plan in plans:
        judge_plan(plan, task)
    await together(_executions(plan, task, n["act"]) for plan in plans if plan.accepted)


async def _executions(plan: Trajectory, task: Task, n: int) -> None:
    if not n:
        return
    with plan.guard("parse"):
        at_once = plan.taskset.turns == 1  # an environment with one turn takes all steps in it
        first, *rest = steps_of(plan.taskset, task, plan.text, at_once)
        plan.observe(first)
    if not plan.ended:
        await together(_execute(act, task, plan.text, rest) for act in await plan.fork("act", n))


async def _execute(act: Trajectory, task: Task, plan: str, steps: list[str]) -> None:
    left = list(steps)
    while not act.ended:
        outcome = await act.step()
        if outcome is None:
            return
        if not outcome.done and not left:
            outcome = Outcome(done=True, reason="the plan is at its end, the task is not")
            await act.finish(outcome.reason)
            if act.ended:
                return
        if outcome.done:
            with act.guard("reward"):
                follows = act.taskset.follows(task, plan, act.texts("act")).score
                pay(act, outcome, follows=follows)
            return
        act.observe(left.pop(0))
        if not act.ended:
            await act.generate("act")


def demonstration(taskset: Taskset, task: Task) -> list[Turn]:
    """The plan, and before each act its next step."""
    demonstrated = needed(taskset, Demonstrates, "plan_steps").demonstrate(task)
    plan, acts = demonstrated[0], acts_of(demonstrated)
    turns = [plan]
    for step, act in zip(steps_of_acts(taskset, task, plan.text, acts), acts, strict=True):
        turns += [Turn(role=None, text=step), *act]
    return turns
