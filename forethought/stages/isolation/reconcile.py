"""Gradients of roles that share weights, reconciled before they move them (PCGrad, arXiv 2001.06782)."""

from __future__ import annotations

from forethought.core.metrics import Metric, merge
from forethought.core.seeds import seed_of
from forethought.core.types import Batch, Objective
from forethought.learn.batches import for_role
from forethought.stages.isolation.conflict import pairwise
from forethought.stages.setting import Setting


def reconciled(s: Setting, k: int, batch: Batch, objective: Objective, conflict: bool) -> dict[str, Metric]:
    """The gradient, gathered role by role and reconciled as the recipe says; `conflict`: measure that of
    before."""
    parts, names = [], []
    for role in s.speakers(batch.policy):
        own = for_role(batch, role)
        if any(one.stream for one in own.segments):
            parts.append(s.engine.forward_backward(own, objective))
            s.surgery.set_aside(batch.policy, role)
            names.append(role)
    if conflict and len(names) > 1:
        parts.append(pairwise(names, lambda a, b: s.surgery.conflict(batch.policy, a, b)))
    seed = seed_of(s.seed, k, "surgery")
    parts.append(s.surgery.combine(batch.policy, names, s.spec.isolation.surgery, seed))
    return merge(parts)
