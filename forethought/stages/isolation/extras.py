"""What isolation adds to a batch."""

from __future__ import annotations

from dataclasses import replace

from forethought.core.types import Objective, Segment
from forethought.learn.batches import joined, targets
from forethought.learn.losses import term
from forethought.stages.isolation.demonstrations import demonstrations
from forethought.stages.setting import Setting

Work = tuple[list[Segment], Objective]


def extras(s: Setting, k: int, segments: list[Segment], objective: Objective) -> Work:
    """The batch with demonstrations of the roles that do not train: their tokens to imitate (replay), or to
    speak about as at the stage's start (KL)."""
    if s.spec.isolation.replay and s.others():
        segments, objective = _replay(s, k, segments, objective)
    if s.spec.isolation.keep_kl and s.others():
        segments, objective = _keep(s, k, segments, objective)
    return segments, objective


def _replay(s: Setting, k: int, segments: list[Segment], objective: Objective) -> Work:
    replayed, weight = demonstrations(s, k, "replay", "sft"), s.spec.isolation.replay
    if not replayed:  # the family could show none
        return segments, objective
    size, first = targets(replayed, "sft"), objective.terms[0]
    if first.stream != "sft":
        return joined(segments, replayed), Objective((*objective.terms, term("sft", size, weight=weight)))
    # imitation: one stream, in which the other role's tokens weigh less
    scale = weight * first.denominator / size
    replayed = [replace(one, weight=tuple(scale * w for w in one.weight)) for one in replayed]
    return joined(segments, replayed), objective


def _keep(s: Setting, k: int, segments: list[Segment], objective: Objective) -> Work:
    kept = demonstrations(s, k, "keep", "keep")
    if not kept:
        return segments, objective
    start = s.references.get(s.policies[s.others()[0]], "")
    away = term("kl", targets(kept, "keep"), weight=s.spec.isolation.keep_kl, reference=start)
    return joined(segments, kept), Objective((*objective.terms, away))
