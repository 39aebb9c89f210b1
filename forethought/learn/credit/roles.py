"""Credit among peers, which are branches of the same role under the same branch: plans of one task against
each other, executions of one plan against each other, at any depth.

Nothing is averaged across roles: a good plan does not pay a bad execution of it, and a lucky execution does
not pay a bad plan more than its share of the plan's own reward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from forethought.core.types import NO_EVIDENCE, Advantages, Branch, Tree
from forethought.learn.peers import groups, value, written
from forethought.recipe.schema import CreditSpec


def role_baseline(tree: Tree, spec: CreditSpec) -> Advantages:
    """A = (r - mean) / (std + eps) among peers; a singleton or a group without spread gets 0. All turns of a
    branch, whatever their roles, share its advantage."""
    advantages = zeros(tree)
    for members in groups(tree.branches().values()).values():
        known = [(branch, r) for branch in members if (r := value(branch)) is not None]
        known.sort(key=lambda pair: written(pair[0])[-1].id)
        found = standardised([r for _, r in known], spec.eps)
        advantages |= shared((branch for branch, _ in known), found)
    return advantages


def zeros(tree: Tree) -> dict[int, tuple[float, ...]]:
    """No advantage, for every token that a policy wrote and that says something about it."""
    return {
        n.id: (0.0,) * len(n.token_ids)
        for n in tree.nodes
        if n.policy is not None and n.status not in NO_EVIDENCE
    }


def standardised(rewards: Sequence[float], eps: float) -> list[float]:
    """(r - mean) / (std + eps), population std; 0 where they are all equal, by rule: a mean of equal rewards
    may differ from them in its last bit."""
    if len(set(rewards)) <= 1:
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    return [(r - mean) / (std + eps) for r in rewards]


def shared(branches: Iterable[Branch], advantages: Sequence[float]) -> Mapping[int, tuple[float, ...]]:
    """Every turn of a branch with the advantage of the branch."""
    return {
        n.id: (a,) * len(n.token_ids)
        for branch, a in zip(branches, advantages, strict=True)
        for n in written(branch)
        if n.status not in NO_EVIDENCE
    }
