"""What several tests build from: hand-made trees, and `desk` as the fake engine plays it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

os.environ.setdefault("FORETHOUGHT_CALIBRATE", "0")  # estimates time no machine in tests
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: threads of theirs would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from forethought.core.types import Node, Task, Tree
from forethought.engines.fake.engine import FakeEngine  # noqa: E402
from forethought.envs.base import Environment
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import Recipe
from forethought.tasks.desk.screens import Goal
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts


@pytest.fixture(scope="module", autouse=True)
def untimed():
    with pytest.MonkeyPatch.context() as patch:
        time_nothing(patch)
        # what an engine of another file has chosen for this process
        if crew := getattr(sys.modules.get("forethought.engines.torch.machine.device"), "crew", None):
            patch.setattr(crew, "layers", True)
            patch.setattr(crew, "sampling", True)
        yield


def time_nothing(patch: pytest.MonkeyPatch) -> None:
    """Layers are computed by the first way that there is, and rows sampled by the kernels where they compute
    the model: timing each tiny model costs a quarter of a second, and its answer is chance."""
    if ways := sys.modules.get("forethought.engines.torch.machine.ways"):
        patch.setattr(
            ways, "choose", lambda candidates, model, *threads: (candidates[0], "tests do not time")
        )
        given = ways.choose_sampling
        patch.setattr(
            ways,
            "choose_sampling",
            lambda asked, *of: (given(asked.replace("auto", "c"), *of)[0], "tests do not time"),
        )


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """What runs here is not written into the state folder of whoever tests; and nobody cuts the power, so no
    write waits for the disk, for which a run that saves after each of nine steps asks 120 times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def opened(taskset, task: Task, seed: int = 0, *, noise: bool = True) -> Environment:
    """An environment of the family that has been reset."""
    environment = taskset.environment(task, noise)
    environment.reset(task, seed)
    return environment


TASK = Task(id="t", taskset="made", level=3, context="", prompt="GOAL")


def tree_of(
    outcomes: Sequence[Sequence[float] | None],
    *,
    task: Task = TASK,
    plan_tokens: int = 2,
    act_tokens: int = 3,
) -> Tree:
    """Root -> one plan an entry -> one execution an outcome. None is a plan that the interface refused."""
    nodes = [Node(id=0, parent=None, role=None, text="GOAL", token_ids=(9,))]
    for row in outcomes:
        parts = {"format": float(row is not None), "valid": float(bool(row) and max(row) > 0)}
        nodes.append(
            node(
                len(nodes),
                0,
                "plan",
                plan_tokens,
                status="refused" if row is None else "finished",
                reward_parts=parts,
            )
        )
        plan = nodes[-1].id
        for outcome in row or ():
            nodes.append(
                node(
                    len(nodes),
                    plan,
                    "act",
                    act_tokens,
                    reward_parts={"format": 1.0, "outcome": outcome, "follows": 1.0},
                )
            )
    return Tree(task=task, nodes=tuple(nodes))


def node(id: int, parent: int, role: str | None, tokens: int, **fields) -> Node:
    fields = {"status": "finished", "policy": "base", "logprobs": (-1.0,) * tokens} | fields
    return Node(id=id, parent=parent, role=role, text=f"{role}{id}", token_ids=tuple(range(tokens)), **fields)


# `desk` for the fake engine: a role has three continuations, and only one is right --------------------------

# all logits begin at 0 and greedy takes the first of the best: untrained is wrong
WRONG, RIGHT, REFUSED = range(3)


def desk_choices(text: str, role: str) -> list[str]:
    """Plans: one that starts beside the goal, the right one, one that is not a plan. Acts: under the plan of
    the text, with the wrong value, exactly, and without an end."""
    screen, _, asked = text.partition(" GOAL ")
    words = screen.split()
    parent = {words[i]: words[i + 1] for i in range(0, len(words), 4)}
    cell = {words[i]: words[i + 2 : i + 4] for i in range(0, len(words), 4)}
    goal, value, *said = asked.split()
    if role == "plan":
        path = [goal]
        while parent[path[-1]] != "desk":
            path.append(parent[path[-1]])
        return [f"{min(set(parent) - {goal})} </plan>", f"{' '.join(path)} </plan>", "GOAL </plan>"]
    plan = said[1 : said.index("</plan>")]
    clicks = " ".join(" ".join([name, *cell[name]]) for name in reversed(plan))
    return [f"{clicks} v{(int(value[1:]) + 1) % 8} </act>", f"{clicks} {value} </act>", f"{value} {clicks}"]


def fake_desk(**fields):
    """What `run.train(..., engine_of=...)` takes."""
    return lambda recipe, taskset: FakeEngine(
        taskset.vocabulary(), taskset.stops, choices=desk_choices, **fields
    )


def desk_recipe(*stages: dict, **fields) -> Recipe:
    """A tiny desk: levels 1 and 2 on screens of four widgets."""
    tables = {
        "name": "made",
        "task": {"name": "desk", "levels": [1, 2], "widgets": 4},
        "eval": {"tasks": 2, "every": 2},
        "save": {"every": 2, "trees_every": 2, "trees": 2},
    } | fields
    return from_dict(tables | {"stage": [dict(stage) for stage in stages]})


def nothing(event) -> None:
    pass


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# `desk` by hand, for scripts: one screen, one goal ----------------------------------------------------------

HAND = Task(
    id="hand",
    taskset="desk",
    level=3,
    context="e desk x8 y9 s e x5 y7 c s x3 y4 o desk x1 y3",
    prompt="GOAL c v3",
    state=Goal(
        parents={"e": ("desk",), "s": ("e",), "c": ("s",), "o": ("desk",)},
        cells={"e": ("x8", "y9"), "s": ("x5", "y7"), "c": ("x3", "y4"), "o": ("x1", "y3")},
        goal="c",
        value="v3",
    ),
)
PLAN, ACT = "c s e </plan>", "e x8 y9 s x5 y7 c x3 y4 v3 </act>"


class Listening(FakeEngine):
    """Keeps what it was asked to say and to learn."""

    def __init__(self, *args, **fields):
        super().__init__(*args, **fields)
        self.asked, self.learned, self.waves = [], [], 0

    def sample(self, requests):
        self.asked += requests
        self.waves += 1
        return super().sample(requests)

    def forward_backward(self, batch, objective):
        self.learned.append((batch, objective))
        return super().forward_backward(batch, objective)


def scripted(say, **options) -> Rollouts:
    """Rollouts of `desk` where `say(policy, text, i, seed)` speaks."""
    desk = Desk((1, 2, 3), widgets=4, **options)
    return Rollouts(Listening(desk.vocabulary(), desk.stops, script=say), desk)
