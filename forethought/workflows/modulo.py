"""LLM-Modulo (arXiv 2402.01817): a planner proposes, an exact validator tests, and the first mistake goes
back to the planner as what it reads next, `rounds` proposals at most.

n plans of a task, each with its rounds on one branch; n executions of a plan that the validator accepts. Only
such a plan is executed: what comes out is as right as the validator, whatever the planner is. Each proposal
is rewarded for itself (`format`, `valid`). Credit that sums a branch (role_baseline) pays the third proposal
like the first; turn_level with gamma below 1 pays earlier success more, and compares proposals of the same
round. The mistakes are observations and train nothing."""

from __future__ import annotations

from forethought.core.types import Task, Turn
from forethought.tasks.base import Critic, Demonstrates, Taskset, needed
from forethought.workflows.plan_then_act import execute, oracle
from forethought.workflows.trajectory import Counts, Trajectory, together

__all__ = ["demonstration", "modulo", "oracle"]


async def modulo(t: Trajectory, task: Task, n: Counts) -> None:
    """`n["plan"]` plans, each mended in rounds; under each right one `n["act"]` executions."""
    await together(_rounds(plan, task, n["act"]) for plan in await t.fork("plan", n["plan"]))


async def _rounds(plan: Trajectory, task: Task, n: int) -> None:
    critic, rounds = needed(plan.taskset, Critic, "modulo"), max(1, plan.options["rounds"])
    for written in range(1, rounds + 1):
        right = _is_right(plan, task)
        if plan.ended:
            return
        if right:
            break
        if written == rounds:
            plan.refuse(f"no right plan in {rounds} rounds; {plan.reason}")
            return
        with plan.guard("reward"):
            plan.observe(critic.critique(task, plan.text))
        if plan.ended:
            return
        await plan.generate("plan")
    await together(execute(act, task, plan.text) for act in await plan.fork("act", n))


def _is_right(plan: Trajectory, task: Task) -> bool:
    """What the validator says of the plan just written; of one that was given nothing is asked. False also
    where it broke, and the branch has ended."""
    if plan.status == "given":
        return True
    with plan.guard("reward"):
        parsed = plan.taskset.parse_plan(task, plan.text)
        valid = plan.taskset.judge_plan(task, plan.text) if parsed.score else parsed
        plan.reward(format=parsed.score, valid=valid.score)
        plan.note(parsed.reason or valid.reason)
        return bool(valid.score) and plan.accepted
    return False


def demonstration(taskset: Taskset, task: Task) -> list[Turn]:
    """Of some tasks a wrong plan and its mistake come first, to be read and not learned; then the whole
    demonstration."""
    turns = needed(taskset, Demonstrates, "modulo").demonstrate(task)
    critic = needed(taskset, Critic, "modulo")
    wrong = critic.mistaken(task) if taskset.spaced else ""
    if not wrong:
        return turns
    return [Turn(role=None, text=wrong), Turn(role=None, text=critic.critique(task, wrong)), *turns]
