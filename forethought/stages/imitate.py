"""A step of imitation: demonstrations -> batch -> update."""

from __future__ import annotations

import random
from collections.abc import Sequence

from forethought.core.metrics import Mean, Metric
from forethought.core.types import Segment, Task
from forethought.learn.batches import demonstration_segments
from forethought.stages.isolation.extras import extras
from forethought.stages.outcome import Step
from forethought.stages.setting import Setting
from forethought.stages.update import imitation, update


def step(s: Setting, k: int, conflict: bool) -> Step:
    """Step `k` (from 0): draw tasks, show their demonstrations, update. `conflict`: also compare the roles'
    gradients."""
    rng = s.rng(k)
    tasks = s.tasks(rng, s.spec.batch, k)
    roles = _loss_roles(s, tasks, rng)
    failed: list[int] = []
    segments = demonstration_segments(s.rollouts, tasks, roles, failed=failed)
    had = 0
    while had < (had := _tokens(segments)) < s.spec.batch_tokens:  # ends where nothing more can be shown
        more = s.tasks(rng, s.spec.batch, k)
        tasks, roles, failed = tasks + more, roles + _loss_roles(s, more, rng), []
        segments = demonstration_segments(s.rollouts, tasks, roles, failed=failed)
    counts: dict[str, Metric] = {"failed/task": Mean(len(failed), len(tasks))}
    if not segments:
        return Step(counts, failed=len(failed), tried=len(tasks))
    found = update(s, k, *extras(s, k, segments, imitation(s.spec, segments)), conflict)
    return Step(found | counts, failed=len(failed), tried=len(tasks))


def _tokens(segments: Sequence[Segment]) -> int:
    return sum(len(segment.token_ids) for segment in segments)


def _loss_roles(s: Setting, tasks: list[Task], rng: random.Random) -> list[set[str]]:
    """For each task, the roles whose tokens carry loss: drawn with the recipe's `loss_share` at the task's
    level."""
    shares = {
        role: dict(zip(s.curriculum.levels, row, strict=True)) for role, row in s.spec.loss_share.items()
    }
    return [{r for r in s.spec.roles if rng.random() < shares.get(r, {}).get(t.level, 1.0)} for t in tasks]
