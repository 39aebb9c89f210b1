"""The tasks to look at: held-out ones of a family, or the problems of a file."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from forethought.core.errors import UserError
from forethought.core.seeds import seed_of
from forethought.core.types import Task, Undrawn
from forethought.measure.evaluate import held_out
from forethought.recipe.schema import EvalSpec
from forethought.tasks.base import Files, Pool, Taskset, face
from forethought.workflows.drawing import drawn
from forethought.workflows.rollout import Rollouts


def to_measure(
    taskset: Taskset,
    spec: EvalSpec,
    problems: Path | None = None,
    tasks: int | None = None,
    levels: Sequence[int] | None = None,
) -> list[Task]:
    """`tasks` of each of `levels` (by default those of `spec`), the same every time; of a file all, unless
    `tasks` limits them. If the problems are finite (a file, a taskset with a pool), each is used at most
    once. UserError for an unknown level, and for a taskset that reads no files or has no problems of its
    own."""
    if problems is not None:
        return _of_file(taskset, spec, problems, tasks, levels)
    wanted = tuple(dict.fromkeys(levels or spec.levels or _levels(taskset)))
    _need_levels(wanted, _levels(taskset), taskset.name)
    return held_out(taskset, replace(spec, tasks=tasks or spec.tasks), wanted)


def to_show(
    taskset: Taskset, n: int, level: int | None, seed: int, problems: Path | None = None
) -> list[Task]:
    """`n` tasks (all, where there are fewer) of any level or of one, drawn with `seed`. UserError as
    `to_measure` raises it."""
    rng = random.Random(seed_of(seed, "sample"))
    if problems is None and not face(taskset, Pool):
        _need_levels([] if level is None else [level], _levels(taskset), taskset.name)
        return [
            drawn(taskset, rng, [level if level is not None else rng.choice(taskset.levels)], "eval")[0]
            for _ in range(n)
        ]
    levels = None if level is None else [level]
    pool = (
        _of_file(taskset, EvalSpec(), problems, None, levels)
        if problems is not None
        else to_measure(taskset, EvalSpec(), tasks=1 << 60, levels=levels)
    )
    return rng.sample(pool, min(n, len(pool)))


def oracle_plans(rollouts: Rollouts, tasks: Sequence[Task]) -> bool:
    """Whether there is a plan to act under for every one of these tasks."""
    taskset = rollouts.taskset
    return all(taskset.has_plan(task) for task in tasks if not isinstance(task.state, Undrawn))


def _of_file(
    taskset: Taskset, spec: EvalSpec, path: Path, tasks: int | None, levels: Sequence[int] | None
) -> list[Task]:
    if not face(taskset, Files):
        raise UserError(f"--problems: {taskset.name} reads no problem files")
    found = taskset.problems(path)
    there = sorted({task.level for task in found})
    if levels:
        _need_levels(levels, there, str(path))
        found = [task for task in found if task.level in levels]
    if tasks is None:
        return found
    rng, taken = random.Random(f"{spec.seed}/problems"), set()
    for level in there:
        ids = [task.id for task in found if task.level == level]
        taken |= set(rng.sample(ids, min(tasks, len(ids))))
    return [task for task in found if task.id in taken]


def _levels(taskset: Taskset) -> tuple[int, ...]:
    if not taskset.levels:
        raise UserError(
            f'{taskset.name} has no problems to look at; give --problems FILE or --set task.eval=["FILE"]'
        )
    return tuple(taskset.levels)


def _need_levels(wanted: Sequence[int], there: Sequence[int], where: str) -> None:
    if wrong := [level for level in wanted if level not in there]:
        raise UserError(f"no level {wrong[0]} in {where}; its levels are {list(there)}")
