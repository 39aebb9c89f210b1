"""A workflow of one's own: think, think again, then act.

    workflow = "workflow_think_twice.py:think_twice"   # beside the recipe; or { name = ..., again = 2 }
    task = { name = "desk", levels = [1, 2] }

    [[stage]]
    kind = "reinforce"
    tree = { think = 4 }
    reward = { act = { outcome = 1.0 } }

The last role acts. `continues` says that acts and further thoughts lie on the branch that the first thought
began, so that all are compared with their peers together.
"""

from forethought.workflows import Counts, Task, Trajectory, together, workflow


@workflow(roles=("think", "act"), continues={"act": "think"}, options={"again": 1})
async def think_twice(t: Trajectory, task: Task, n: Counts) -> None:
    async def one(thought: Trajectory) -> None:
        for role in [*["think"] * t.options["again"], "act"]:
            if thought.accepted:  # a turn without an end is not answered
                await thought.generate(role)
        if not thought.ended and (outcome := await thought.step()):
            thought.reward(outcome=float(outcome.success))

    await together(one(thought) for thought in await t.fork("think", n["think"]))
