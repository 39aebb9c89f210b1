"""A third role: a critic reads the plan before anybody acts. Run: python examples/role_of_its_own.py"""

import random

from forethought.core.types import Task, Turn
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict
from forethought.runs.run import build
from forethought.tasks.base import Taskset
from forethought.workflows.table import register
from forethought.workflows.trajectory import Counts, Trajectory

ROLES = ("plan", "critic", "act")
STAGE = {"kind": "reinforce", "tree": {"plan": 2, "critic": 2}, "reward": {"act": {"outcome": 1}}}
RECIPE = {"workflow": "criticised", "task": {"name": "desk", "levels": [1]}, "stage": [STAGE]}
RECIPE["roles"] = {"critic": {"budget": 3, "policy": "plan"}}  # three words, by the planner's weights


async def criticised(t: Trajectory, task: Task, n: Counts) -> None:
    for plan in await t.fork("plan", n["plan"]):
        for critic in await plan.fork("critic", n["critic"]) if plan.accepted else []:
            if critic.accepted and not (await critic.generate("act")).ended:
                if outcome := await critic.step():
                    critic.reward(outcome=float(outcome.success))


def shown(taskset: Taskset, task: Task) -> list[Turn]:
    plan, *acts = taskset.demonstrate(task)
    return [plan, Turn(role="critic", text="GOAL </critic>"), *acts]


if __name__ == "__main__":
    register("criticised", criticised, ROLES, shown, continues={"act": "critic"})
    check(recipe := from_dict(RECIPE))
    stops = {role: f"</{role}>" for role in ROLES}
    _, rollouts = build(recipe, lambda recipe, desk: FakeEngine(desk.words(ROLES), stops))
    tasks, base = rollouts.shown(random.Random(0), [1]), dict.fromkeys(ROLES, "base")
    [tree] = rollouts.grow(tasks, recipe.stage[0].tree, base, seed=0)
    print(*((node.role, node.status, node.text) for node in tree.nodes), sep="\n")
