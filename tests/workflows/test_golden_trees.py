"""plan_then_act gives the trees of the code that it replaced, node for node: these digests are of that
code's, with the seeds of later turns by path. The model speaks mostly right, else wrong, refused, too long or
without an end."""

from __future__ import annotations

import hashlib
import json
import random

import pytest

from forethought.core.types import Node
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.schema import TaskSpec, TreeSpec
from forethought.tasks.families import build
from forethought.workflows.rollout import Rollouts

TASKS = {
    "desk": TaskSpec(name="desk", levels=(1, 2, 3)),
    "desk stepwise": TaskSpec(
        name="desk", levels=(2, 3, 4), options={"stepwise": True, "slip": 0.2, "flip": 0.1}
    ),
    "blocksworld": TaskSpec(name="blocksworld", levels=(2, 4, 6), options={"slip": 0.2}),
}
DIGESTS = {
    "desk": "204666450aa8338cd01ac5bc0d5540ba",
    "desk stepwise": "ca4df3af704ba22b68f288dcbd02789b",
    "blocksworld": "0e8c4923a3b1db938fa5c98e73d30a1f",
}
TREES = [
    TreeSpec(counts={"plan": 2, "act": 0}),
    TreeSpec(counts={"plan": 1, "act": 1}, temperature=0.0),
    TreeSpec(counts={"plan": 2, "act": 2}, tokens={"plan": 3, "act": 6}),
    TreeSpec(counts={"act": 3}, oracle=("plan",)),
    TreeSpec(counts={"plan": 1, "act": 3}, top_p=0.9),
]


class Noisy(FakeEngine):
    def __init__(self, taskset, tasks, context: int):
        super().__init__(taskset.vocabulary(), taskset.stops, script=self.says, context=context)
        self.taskset, self.tasks = taskset, {f"{t.context} {t.prompt}": t for t in tasks}

    def says(self, policy: str, text: str, i: int, seed: int) -> str:
        root = next(r for r in self.tasks if text.startswith(r))
        said, rng = text[len(root) :].split(), random.Random(f"{seed}/{i}/{policy}")
        shown = self.taskset.demonstrate(self.tasks[root])
        acts, done = [t.text for t in shown if t.role == "act"], said.count(self.taskset.stops["act"])
        planned = self.taskset.stops["plan"] in said
        right = acts[min(done, len(acts) - 1)] if planned else shown[0].text
        words, draw = right.split(), rng.random()
        if draw < 0.6:
            return right
        if draw < 0.7:
            return " ".join(words[:-1] + words[:1] * 40)
        if draw < 0.85:
            words[rng.randrange(len(words) - 1)] = rng.choice(words)
            return " ".join(words)
        return " ".join(words[1:] if len(words) > 1 else words)


def row(n: Node) -> list:
    return [
        n.id, n.parent, n.role, n.text, list(n.token_ids), n.status, n.reason, n.policy, n.version,
        list(n.logprobs), dict(n.reward_parts), n.reward,
    ]  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_trees_are_those_of_before(name):
    found = []
    for context in (4096, 50):
        for j, spec in enumerate(TREES, start=1):
            for with_oracle in (False, True):
                taskset, rng = build(TASKS[name]), random.Random(f"{name}/{j}")
                tasks = [
                    task
                    for _ in range(2)
                    for task in taskset.family(rng, [rng.choice(taskset.levels) for _ in range(3)], "train")
                ]
                rollouts = Rollouts(Noisy(taskset, tasks, context), taskset)
                policies = {"plan": "base", "act": "base"}
                trees = rollouts.grow(tasks, spec, policies, 7 + j, with_oracle=with_oracle, first=j)
                found.append([[row(n) for n in tree.nodes] for tree in trees])
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest()[:32] == DIGESTS[name]
