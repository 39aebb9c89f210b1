"""What the tests of arms share: a small file of arms, finished runs written by hand, and engines that a child
process can import."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from conftest import desk_choices

from forethought.arms.jobs import Job
from forethought.core.errors import UserError
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.load import write_resolved

RECIPE = """
name = "made"
layout = "shared"
task = { name = "desk", levels = [1, 2], widgets = 4 }
eval = { tasks = 2, every = 2 }
save = { every = 1 }

[[stage]]
until = { steps = 2 }
batch = 2
optim = { lr = 0.5 }

[[stage]]
kind = "reinforce"
name = "learn to plan"
roles = ["plan"]
until = { steps = 4 }
batch = 2
tree = { plan = 3, act = 0 }
reward = { plan = { valid = 1 } }
optim = { lr = 0.5 }
"""

ARMS = """
name = "trial"
seeds = [0, 1]

[group.desk]
recipe = "made.toml"
baseline = "shared"
metrics = ["eval/plan", "eval/act"]

[[arm]]
group = "desk"
name = "shared"
about = "one set of weights"

[[arm]]
group = "desk"
name = "adapters"
about = "two | of them"
set = ["layout=adapters", "stage.1.weights=adapter"]
"""


def write_files(folder: Path, more: str = "", arms: str = ARMS) -> Path:
    """made.toml and arms.toml; returns the latter."""
    (folder / "made.toml").write_text(RECIPE)
    (folder / "arms.toml").write_text(arms + more)
    return folder / "arms.toml"


def finished(job: Job, *evaluations: dict, status: str = "done", seconds: float = 10.0, **cost) -> None:
    """A run as `job` would leave it: a first stage of two steps, then one evaluation a step of the last
    stage."""
    job.out.mkdir(parents=True)
    write_resolved(job.recipe, job.out / "recipe.json")
    lines = [{"step": 2, "stage": 0, "stage_step": 2, "seconds": 3.0, "eval/plan": 0.9, "tokens/trained": 7}]
    lines += [
        {
            "step": 2 + k,
            "stage": 1,
            "stage_step": k,
            "seconds": 3.0 + seconds * k / max(len(evaluations) - 1, 1),
            **values,
        }
        | (cost if k else {})
        for k, values in enumerate(evaluations)
    ]
    (job.out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (job.out / "summary.json").write_text(json.dumps({"status": status, "stages": [{}, {}]}))


# Engines for `forethought.runs.run` in another process: named functions of a module that it can import ------


def engine_of(recipe, taskset):
    return FakeEngine(taskset.vocabulary(), taskset.stops, choices=desk_choices)


class Fragile(FakeEngine):
    """Breaks at its third call of `sample`, once for each letter in the file `plan`: `k` kills the process,
    `e` is an exception, `s` is a signal to the process `parent` (a Ctrl-C), `K` kills that one."""

    plan, parent, calls = Path(), 0, 0

    def sample(self, requests):
        self.calls += 1
        left = self.plan.read_text() if self.calls == 3 else ""
        if left:
            self.plan.write_text(left[1:])
            if left[0] == "e":
                raise ValueError("it broke")
            os.kill(
                os.getpid() if left[0] == "k" else self.parent,
                signal.SIGINT if left[0] == "s" else signal.SIGKILL,
            )
            # until the command has passed the signal on to this process, or this one has seen it die
            for _ in range(200 if left[0] in "sK" else 0):
                if signal.getsignal(signal.SIGTERM).__self__.caught:
                    break
                time.sleep(0.05)
        return super().sample(requests)


def fragile(plan: str, parent: int, recipe, taskset):
    """Fragile is the engine of desk/adapters, seed 1, beyond the shared stages; for `partial`."""
    if (recipe.layout, recipe.seed, len(recipe.stage)) != ("adapters", 1, 2):
        return engine_of(recipe, taskset)
    engine = Fragile(taskset.vocabulary(), taskset.stops, choices=desk_choices)
    engine.plan, engine.parent = Path(plan), parent
    return engine


def told(folder: str, recipe, taskset):
    """Leaves what its process knows of threads, in a file of the process."""
    from forethought.arms.pool import ONE_THREAD

    (Path(folder) / str(os.getpid())).write_text(
        " ".join(os.environ.get(name, "-") for name in ONE_THREAD) + f" {recipe.engine.threads}"
    )
    return engine_of(recipe, taskset)


def poor(recipe, taskset):
    """No engine for the shared stages of seed 0."""
    if (recipe.seed, len(recipe.stage)) == (0, 1):
        raise UserError("no room for this model")
    return engine_of(recipe, taskset)
