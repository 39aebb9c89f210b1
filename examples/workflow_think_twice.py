"""A workflow of one's own: think, think again, then act. Run: python examples/workflow_think_twice.py"""

import random

from forethought.core.types import Task
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.schema import TreeSpec, WorkflowSpec
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts
from forethought.workflows.table import register
from forethought.workflows.trajectory import Counts, Trajectory, together


async def think_twice(t: Trajectory, task: Task, n: Counts) -> None:
    async def one(thought: Trajectory) -> None:
        for role in ("think", "act"):
            if thought.accepted:  # a turn without an end is not answered
                await thought.generate(role)
        if not thought.ended and (outcome := await thought.step()):
            thought.reward(outcome=float(outcome.success))

    await together(one(thought) for thought in await t.fork("think", n["think"]))


register("think_twice", think_twice, roles=("think", "act"))  # a recipe may now say workflow = "think_twice"


def main() -> None:
    desk, roles = Desk((1, 2)), ("think", "act")
    engine = FakeEngine(desk.words(roles), {role: desk.stop(role) for role in roles})
    rollouts = Rollouts(engine, desk, WorkflowSpec(name="think_twice"))
    tasks = rollouts.shown(random.Random(0), [1])
    [tree] = rollouts.grow(tasks, TreeSpec(counts={"think": 2}), dict.fromkeys(roles, "base"), seed=0)
    for node in tree.nodes[1:]:
        print(node.id, node.parent, node.role, node.branch, node.status, node.text)


if __name__ == "__main__":
    main()
