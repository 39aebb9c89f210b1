"""What happens where a phase begins: the reference becomes the policy as it is, tasks are chosen, the buffer
is sifted. All of it is in the state of the stage, which a checkpoint holds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from forethought.core.errors import UserError
from forethought.core.metrics import Last, Mean, Metric, Sum
from forethought.core.seeds import seed_of
from forethought.core.types import Task, Undrawn
from forethought.recipe.kinds.webrl import CurriculumSpec
from forethought.stages.setting import Setting
from forethought.stages.webrl import replay
from forethought.stages.webrl.lineage import Lineage, task_of
from forethought.stages.webrl.writing import written
from forethought.stages.webrl.yes_or_no import YesOrNo

KEY = "webrl"  # of what the stage remembers
State = dict[str, Any]
"""phase: its number; tasks: lineages of those that it has left to draw; failed: lineages; buffer, chosen: see
`replay`; references: policy -> frozen copy from the start of the phase."""


def state_of(s: Setting) -> State:
    """What the stage remembers, from its first step on."""
    empty = {"phase": -1, "tasks": [], "failed": [], "buffer": [], "chosen": [], "references": {}}
    state: State = s.remembered.setdefault(KEY, empty)
    return state


def length(s: Setting) -> int:
    """Steps of a phase."""
    steps: int = s.spec.until.steps // s.spec.phases
    return steps


def begin(s: Setting, state: State, critic: YesOrNo) -> dict[str, Metric]:
    """The next phase begins. Returns what can be said of it now."""
    state["phase"] += 1
    spec, first = s.spec.curriculum, state["phase"] == 0
    needed = s.spec.batch * length(s)
    rng = random.Random(seed_of(s.seed, "phase", state["phase"]))
    _refer(s, state)
    told: dict[str, Metric] = {}
    state["tasks"] = []
    if not first and spec.tasks != "uniform":
        made = _candidates(s, spec, state["failed"], needed, rng)
        if not made:  # to go on with fresh ones would be another experiment
            raise UserError(
                f"phase {state['phase']} has no task to choose from: what was made of those that failed "
                f"({len(state['failed'])}) broke, or has none of the levels "
                f"{sorted(set(s.curriculum.levels))}; "
                '`forethought check` tries mutate, and curriculum.tasks = "band" draws fresh tasks'
            )
        state["tasks"], told = _within(s, critic, spec, made, needed)
    state["failed"] = []
    state["chosen"], seen = (
        replay.sifted(s, state["buffer"], s.spec.replay) if s.spec.replay.most else ([], [])
    )
    if seen:
        low, high = s.spec.replay.low, s.spec.replay.high
        told["replay/in_band"] = Mean(sum(low <= x <= high for x in seen), len(seen))
        told["replay/perplexity"] = Mean(sum(seen), len(seen))
    return told | {"replay/kept": Last(len(state["buffer"]))}


def _refer(s: Setting, state: State) -> None:
    """The reference of the regression is the policy as the phase finds it: a frozen copy under a name of its
    own, beside that of the stage's start, which probes and gates compare with."""
    for name in state["references"].values():
        s.engine.drop(name)
    state["references"] = {}
    for policy, start in s.references.items():
        name = f"{start}-phase-{state['phase']}"
        if name in s.engine.policies():  # of an attempt at the stage that was rolled back
            s.engine.drop(name)
        s.engine.fork(policy, name, "frozen")
        state["references"][policy] = name


def _candidates(
    s: Setting, spec: CurriculumSpec, failed: Sequence[Lineage], needed: int, rng: random.Random
) -> list[tuple[Lineage, Task]]:
    """Tasks to choose from, each once: those that failed, made into others, or fresh ones (also where nothing
    failed)."""
    levels = set(s.curriculum.levels)
    if spec.tasks == "evolve" and failed and spec.endpoint:
        lineages = written(s, spec.endpoint, [rng.choice(failed) for _ in range(needed * spec.candidates)])
    elif spec.tasks == "evolve" and failed:
        lineages = [[*rng.choice(failed), rng.getrandbits(48)] for _ in range(needed * spec.candidates)]
    else:
        lineages = fresh(s, rng, needed * spec.candidates, s.spec.until.steps)
    found: dict[str, tuple[Lineage, Task]] = {}
    with s.rollouts.guard.watch():
        for lineage in lineages:
            task = task_of(s.rollouts.taskset, lineage)
            if task.level in levels and not isinstance(task.state, Undrawn):
                found.setdefault(task.id, (lineage, task))
    return list(found.values())


def _within(
    s: Setting, critic: YesOrNo, spec: CurriculumSpec, made: Sequence[tuple[Lineage, Task]], needed: int
) -> tuple[list[Lineage], dict[str, Metric]]:
    """As many tasks as are needed whose expected success lies between the bounds; where there are too few,
    also those nearest to them."""
    words = s.rollouts.words
    values = critic.of_prompts([words.root_ids(task) for _, task in made])
    away = [max(spec.low - v, v - spec.high, 0.0) for v in values]
    order = sorted(range(len(made)), key=lambda i: (away[i], i))[:needed]
    kept = [made[i][0] for i in order]
    return kept, {
        "curriculum/candidates": Last(len(made)),
        "curriculum/in_band": Mean(sum(x == 0 for x in away), len(away)),
        "curriculum/expected": Mean(sum(values), len(values)),
        "curriculum/expected_kept": Mean(sum(values[i] for i in order), len(order)),
        "curriculum/filled": Mean(sum(away[i] > 0 for i in order), len(order)),
    }


def fresh(s: Setting, rng: random.Random, n: int, k: int) -> list[Lineage]:
    """`n` lineages of tasks that are drawn as the stage draws at step `k`."""
    return [[level, rng.getrandbits(48)] for level in s.curriculum.draw(rng, n, k)]


def tasks_of(s: Setting, state: State, k: int) -> list[tuple[Lineage, Task]]:
    """The tasks of step `k`: those that its phase has chosen, else fresh ones."""
    n, at = s.spec.batch, k % length(s)
    lineages = state["tasks"][at * n : (at + 1) * n]
    lineages = [*lineages, *fresh(s, s.rng(k), n - len(lineages), k)]
    with s.rollouts.guard.watch():
        return [(lineage, task_of(s.rollouts.taskset, lineage)) for lineage in lineages]


def by_generation(told: Sequence[tuple[int, float]]) -> Mapping[str, Metric]:
    """(generation, share of successes) of each task: `generation/tasks@G` and `generation/success@G`."""
    out: dict[str, Metric] = {}
    for g in sorted({g for g, _ in told}):
        own = [x for at, x in told if at == g]
        out[f"generation/tasks@{g}"] = Sum(len(own))
        out[f"generation/success@{g}"] = Mean(sum(own), len(own))
    return out
