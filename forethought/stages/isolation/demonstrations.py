"""Demonstrations that isolation reads: of the roles that do not train, on all levels of the task."""

from __future__ import annotations

import random
from collections.abc import Sequence

from forethought.core.types import Segment, Task
from forethought.learn.batches import demonstration_segments
from forethought.stages.setting import Setting
from forethought.workflows.rollout import Rollouts

SHARE = 8  # demonstrations on one context, where the taskset has contexts


def demonstrable(rollouts: Rollouts, rng: random.Random, n: int) -> list[Task]:
    """`n` tasks of all levels, which the family demonstrates."""
    levels = rng.choices(rollouts.taskset.levels, k=n)
    return [t for i in range(0, n, SHARE) for t in rollouts.demonstrable(rng, levels[i : i + SHARE])]


def demonstrations(
    s: Setting, k: int, name: str, stream: str, roles: Sequence[str] | None = None
) -> list[Segment]:
    """Drawn anew at every step, and for every purpose `name`; `roles` (default: those that do not train)
    carry loss. None where the family can show nothing."""
    n = max(1, round(s.spec.isolation.demos * s.spec.batch))
    tasks = demonstrable(s.rollouts, s.rng(k, name), n)
    return demonstration_segments(s.rollouts, tasks, [set(roles or s.others())] * n, stream)
