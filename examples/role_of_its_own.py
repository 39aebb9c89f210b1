"""A third role: a critic reads the plan before anybody acts.

workflow = "role_of_its_own.py:criticised"
task = { name = "desk", levels = [1] }
roles = { critic = { budget = 3, policy = "plan" } }   # three words, by the planner's weights

[[stage]]
kind = "reinforce"
tree = { plan = 2, critic = 2 }
reward = { act = { outcome = 1.0 } }
"""

from forethought.workflows import Counts, Task, Taskset, Trajectory, Turn, workflow


def demonstration(taskset: Taskset, task: Task) -> list[Turn]:
    """What imitation shows: a critic who repeats the goal."""
    plan, *acts = taskset.demonstrate(task)
    return [plan, Turn(role="critic", text="GOAL </critic>"), *acts]


@workflow(roles=("plan", "critic", "act"), continues={"act": "critic"}, demonstration=demonstration)
async def criticised(t: Trajectory, task: Task, n: Counts) -> None:
    for plan in await t.fork("plan", n["plan"]):
        for critic in await plan.fork("critic", n["critic"]) if plan.accepted else []:
            if critic.accepted and not (await critic.generate("act")).ended:
                if outcome := await critic.step():
                    critic.reward(outcome=float(outcome.success))
