"""Core-parameter isolation (CPI-FT, arXiv 2508.21741), between the roles of one model.

A short imitation of the roles that do not train, from the stage's start, shows the weights that they need
most: those that it moves furthest. While the others train, these are held. The paper has no control; ours
holds as many weights drawn at random (core = "random"). What it leaves open is a setting or said here: the
length and rate of the short imitation; which demonstrations (all levels of the task); and that roles whose
regions overlap by more than `group_above` belong to one group, in which nothing is held.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from forethought.core.seeds import seed_of
from forethought.core.types import Batch, Objective
from forethought.engines.base import Engine, surgery_of
from forethought.learn.batches import demonstration_segments, targets
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec, TrainingSpec
from forethought.stages.isolation.demonstrations import demonstrable
from forethought.workflows.rollout import Rollouts

REGION = "core-"  # begins the names of regions, and of the models that showed them


@dataclass(frozen=True, slots=True)
class Cores:
    reason: str
    numbers: dict[str, float]
    tokens: int  # trained to find them


def region_of(roles: Sequence[str]) -> str:
    """Name of the region that these roles' training moves most."""
    return f"{REGION}{'-'.join(roles)}"


def find_cores(
    engine: Engine,
    rollouts: Rollouts,
    spec: TrainingSpec,
    frozen: Sequence[str],
    policy: str,
    start: str,
    seed: int,
) -> Cores:
    """Find the regions of the roles that train in `spec` and of those that do not (`frozen`), and hold the
    latter. `start`: a frozen copy of `policy`.

    The model that showed the held region stays, under the region's name, where the stage's end needs it.
    """
    isolation, tokens, held = spec.isolation, 0, region_of(frozen)
    for roles in (frozen, spec.roles):
        name = region_of(roles)
        tokens += _imitate(engine, rollouts, spec, policy, roles, seed)
        count = surgery_of(engine).find_region(name, name, start, isolation.core_share)
        if name != held or not (isolation.transplant or isolation.slerp):
            engine.drop(name)
    overlap = surgery_of(engine).overlap(region_of(spec.roles), held)
    chance = isolation.core_share / (2 - isolation.core_share)
    numbers = {
        "weights": count,
        "share": isolation.core_share,
        "jaccard": overlap,
        "jaccard_by_chance": chance,
    }
    said = f"regions of {count} weights each; Jaccard {overlap:.3f}, {chance:.4f} by chance"
    # the control too: it differs from the method in which weights are held, not in whether
    if overlap >= isolation.group_above:
        return Cores(
            f"{said}: at least {isolation.group_above}, so {' and '.join((*spec.roles, *frozen))} are one "
            "group and nothing is held",
            numbers,
            tokens,
        )
    if isolation.core == "random":
        surgery_of(engine).random_region("control", held, seed_of(seed, "control"))
        surgery_of(engine).hold(policy, "control")
        return Cores(f"{said}; as many random weights are held, the control", numbers, tokens)
    surgery_of(engine).hold(policy, held)
    return Cores(
        f"{said}: below {isolation.group_above}, so the region of {' and '.join(frozen)} is held",
        numbers,
        tokens,
    )


def fuse(engine: Engine, spec: TrainingSpec, frozen: Sequence[str], policy: str) -> str:
    """The stage's end: transplant and SLERP. Says what was done, or "" where the recipe asks for neither."""
    isolation, done = spec.isolation, []
    name = region_of(frozen)
    if isolation.transplant:
        surgery_of(engine).transplant(policy, name, name)
        done.append(f"region {name} has the values of its own imitation")
    if isolation.slerp:
        surgery_of(engine).slerp(policy, name, isolation.slerp, outside=name)
        done.append(f"the rest moved by {isolation.slerp} along the arc to {name}")
    if done:
        engine.publish(policy)
        engine.drop(name)
    return "; ".join(done)


def _imitate(
    engine: Engine, rollouts: Rollouts, spec: TrainingSpec, policy: str, roles: Sequence[str], seed: int
) -> int:
    """A copy of `policy` that imitates these roles alone for a few steps; returns the tokens it trained
    on."""
    name, isolation, trained = region_of(roles), spec.isolation, 0
    engine.fork(policy, name, "model")
    engine.prepare(name, OptimSpec(lr=isolation.core_lr, weight_decay=0.0))
    for k in range(isolation.core_steps):
        rng = random.Random(seed_of(seed, "core", "-".join(roles), k))
        tasks = demonstrable(rollouts, rng, spec.batch)
        segments = demonstration_segments(rollouts, tasks, [set(roles)] * len(tasks))
        tokens = targets(segments, "sft")
        if not tokens:
            continue  # the family could show nothing
        engine.forward_backward(
            Batch(policy=name, segments=tuple(segments)), Objective((term("sft", tokens),))
        )
        engine.optim_step(name)
        trained += int(tokens)
    engine.release(name)
    return trained
