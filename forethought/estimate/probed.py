"""Seconds that a run's probes take: what is looked at again, and how much of the held-out demonstrations each
policy reads."""

from __future__ import annotations

from forethought.estimate.lengths import Seen
from forethought.estimate.speakers import Speakers, by_stage
from forethought.estimate.speed import Speed
from forethought.recipe.layout import compares
from forethought.recipe.schema import Recipe


def probed(recipe: Recipe, n: Seen, speed: Speed) -> float:
    """Seconds of all. At a stage's start every policy reads the held-out demonstrations, later in it those
    that it trains; the frozen copies of what it trains read them too."""
    probes, total = recipe.probes, 0.0
    if not probes.every:
        return 0.0
    for stage, speakers in by_stage(recipe):
        trained = {speakers[role] for role in stage.roles}
        copies = int(compares(recipe, stage) and probes.kl_start) + int(probes.kl_base)
        for policy in sorted(set(speakers.values())):
            seconds = _look(recipe, n, speed, policy, speakers)
            moved = (1 + copies) * (1 + stage.steps // probes.every)
            total += seconds * (moved if policy in trained else 1)
    return total


def _look(recipe: Recipe, n: Seen, speed: Speed, policy: str, speakers: Speakers) -> float:
    """Seconds in which a policy reads the demonstrations, up to the last turn that it speaks. One task of
    each level lies on one context."""
    levels = max(1, len(recipe.eval.levels or recipe.task.levels))
    roles = list(n.said)
    last = max(i for i, role in enumerate(roles) if speakers[role] == policy)
    said = sum(n.said[role] for role in roles[: last + 1])
    tokens = n.told + recipe.probes.tasks * (n.context + levels * (n.prompt + said))
    return speed.look + speed.forward * tokens
