"""Credit over trajectories: every path from the root to a leaf is one response, all of them one group.

A node on several paths (a plan with z executions) gets the mean of its paths' advantages: what plain GRPO
over the unrolled responses gives its tokens, with the shared tokens counted once. A plan that the interface
refused has no executions; it stands for as many failed responses as a plan would have had, so that refusing
is not cheaper than failing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from forethought.core.types import NO_EVIDENCE, Advantages, Node, Tree
from forethought.recipe.schema import CreditSpec


def grpo(tree: Tree, spec: CreditSpec) -> Advantages:
    """GRPO (arXiv 2402.03300): A = (R - mean) / (std + eps), population std over the group."""

    def rule(rewards: list[float], weights: list[float]) -> list[float]:
        total = sum(weights)
        mean = sum(w * r for w, r in zip(weights, rewards, strict=True)) / total
        std = math.sqrt(sum(w * (r - mean) ** 2 for w, r in zip(weights, rewards, strict=True)) / total)
        return [(r - mean) / (std + spec.eps) for r in rewards]

    return _over_paths(tree, rule)


def dr_grpo(tree: Tree, spec: CreditSpec) -> Advantages:
    """Dr. GRPO (arXiv 2503.20783): A = R - mean, no division by the std, which over-weights tasks that are
    nearly always or never solved. Its other half, a constant loss denominator, is the stage's `loss_norm =
    "constant"`."""

    def rule(rewards: list[float], weights: list[float]) -> list[float]:
        mean = sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights)
        return [r - mean for r in rewards]

    return _over_paths(tree, rule)


def rloo(tree: Tree, spec: CreditSpec) -> Advantages:
    """RLOO (arXiv 2402.14740): A = R - mean of the other responses. A singleton has no others and gets 0."""

    def rule(rewards: list[float], weights: list[float]) -> list[float]:
        total, weight = sum(w * r for w, r in zip(weights, rewards, strict=True)), sum(weights)
        return [r - (total - r) / (weight - 1) if weight > 1 else 0.0 for r in rewards]

    return _over_paths(tree, rule)


def _over_paths(tree: Tree, rule: Callable[[list[float], list[float]], list[float]]) -> Advantages:
    parent = {n.id: n.parent for n in tree.nodes}
    by_id = {n.id: n for n in tree.nodes}
    leaves = [n for n in tree.leaves() if n.role is not None and n.status not in NO_EVIDENCE]
    weights = _responses(tree, leaves)
    rewards = [sum(by_id[i].reward or 0.0 for i in _up(leaf.id, parent)) for leaf in leaves]
    # A group without spread gets 0 by rule, not by arithmetic: a mean of equal rewards may differ from them
    # in its last bit.
    advantages = rule(rewards, weights) if len(set(rewards)) > 1 else [0.0] * len(rewards)
    total: dict[int, float] = {}
    weight: dict[int, float] = {}
    for leaf, a, w in zip(leaves, advantages, weights, strict=True):
        for i in _up(leaf.id, parent):
            total[i] = total.get(i, 0.0) + w * a
            weight[i] = weight.get(i, 0.0) + w
    # A node whose every path failed (engine or environment, not the policy) has no evidence and trains on
    # nothing.
    return {
        n.id: (total[n.id] / weight[n.id] if n.id in weight else 0.0,) * len(n.token_ids)
        for n in tree.nodes
        if n.policy is not None and n.status not in NO_EVIDENCE
    }


def _responses(tree: Tree, leaves: list[Node]) -> list[float]:
    """How many responses each leaf stands for: 1, or for a plan without executions as many as its luckiest
    sibling has."""
    plan_of = {leaf.id: next((n.id for n in tree.path(leaf) if n.role == "plan"), None) for leaf in leaves}
    executions: dict[int | None, int] = {}
    for leaf in leaves:
        if leaf.role != "plan":
            executions[plan_of[leaf.id]] = executions.get(plan_of[leaf.id], 0) + 1
    most = max(executions.values(), default=1)
    return [float(most) if leaf.role == "plan" else 1.0 for leaf in leaves]


def _up(node: int, parent: dict[int, int | None]) -> list[int]:
    path: list[int] = []
    at: int | None = node
    while at is not None:
        path.append(at)
        at = parent[at]
    return path
