"""Credit over trajectories: every path from the root to a leaf is one response, all of them one group.

A node on several paths (a plan with z executions) gets the mean of its paths' advantages: what plain GRPO
over the unrolled responses gives its tokens, with the shared tokens counted once. A branch that ended where
its peers went on (a plan that the interface refused) stands for as many responses as the luckiest of them
has, so that refusing is not cheaper than failing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from forethought.core.types import NO_EVIDENCE, Advantages, Tree
from forethought.learn.peers import below, groups
from forethought.recipe.schema import CreditSpec


def grpo(tree: Tree, spec: CreditSpec) -> Advantages:
    """GRPO (arXiv 2402.03300): A = (R - mean) / (std + eps), population std over the group."""

    def rule(rewards: list[float], weights: list[float]) -> list[float]:
        mean, std = moments(rewards, weights)
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


def moments(rewards: list[float], weights: list[float]) -> tuple[float, float]:
    """Weighted mean and population standard deviation."""
    total = sum(weights)
    mean = sum(w * r for w, r in zip(weights, rewards, strict=True)) / total
    return mean, math.sqrt(sum(w * (r - mean) ** 2 for w, r in zip(weights, rewards, strict=True)) / total)


@dataclass(frozen=True, slots=True)
class Responses:
    """The responses of a tree that say something about the policy, one for each leaf."""

    paths: list[list[int]]  # node ids, from the leaf to the root
    rewards: list[float]  # the sum along the path
    weights: list[float]  # how many responses the leaf stands for


def responses(tree: Tree) -> Responses:
    """Every path from leaf to root, with its summed reward. Nodes that are no evidence (failed, overlong) are
    left out, and so is a path without any reward that ends with a turn as others are paid for: its functions
    had nothing to say of it (TRL's None), which is no 0. One that ended before such a turn is a 0."""
    by_id = {n.id: n for n in tree.nodes}
    paid = {n.role for n in tree.nodes if n.reward is not None}
    leaves: list[int] = []
    paths: list[list[int]] = []
    for leaf in [n.id for n in tree.leaves() if n.role is not None and n.status not in NO_EVIDENCE]:
        path: list[int] = []
        at: int | None = leaf
        while at is not None:
            path.append(at)
            at = by_id[at].parent
        if by_id[leaf].role in paid and all(by_id[i].reward is None for i in path):
            continue
        leaves.append(leaf)
        paths.append(path)
    rewards = [sum(by_id[i].reward or 0.0 for i in path) for path in paths]
    return Responses(paths, rewards, _stand_for(tree, leaves))


def onto_nodes(tree: Tree, found: Responses, advantages: list[float]) -> Advantages:
    """Each node with the mean of its paths' advantages."""
    total: dict[int, float] = {}
    weight: dict[int, float] = {}
    for path, a, w in zip(found.paths, advantages, found.weights, strict=True):
        for i in path:
            total[i] = total.get(i, 0.0) + w * a
            weight[i] = weight.get(i, 0.0) + w
    # A node whose every path failed (engine or environment, not the policy) has no evidence and trains on
    # nothing.
    return {
        n.id: (total[n.id] / weight[n.id] if n.id in weight else 0.0,) * len(n.token_ids)
        for n in tree.nodes
        if n.policy is not None and n.status not in NO_EVIDENCE
    }


def _over_paths(tree: Tree, rule: Callable[[list[float], list[float]], list[float]]) -> Advantages:
    found = responses(tree)
    # A group without spread gets 0 by rule, not by arithmetic: a mean of equal rewards may differ from them
    # in its last bit.
    spread = len(set(found.rewards)) > 1
    zeros = [0.0] * len(found.rewards)
    return onto_nodes(tree, found, rule(found.rewards, found.weights) if spread else zeros)


def _stand_for(tree: Tree, leaves: list[int]) -> list[float]:
    """How many responses each leaf stands for: 1, or, if its branch ended while peers went on, as many as the
    peer with the most has below it."""
    branches = tree.branches()
    on = {n.id: b.id for b in branches.values() for n in b.nodes}
    under = below(branches)
    depth: dict[int, int] = {}
    for b in branches.values():
        depth[b.id] = 0 if b.above is None else depth[b.above] + 1
    ends: dict[int, int] = {}  # branch -> its own leaves that count; more than one only where it forks too
    for leaf in leaves:
        ends[on[leaf]] = ends.get(on[leaf], 0) + 1
    counts: dict[int, float] = {}  # branch -> responses on it and below it
    for level in range(max(depth.values(), default=0), -1, -1):
        here = [b for b in branches.values() if depth[b.id] == level]
        for b in here:
            counts[b.id] = float(ends.get(b.id, 0)) + sum(counts[child.id] for child in under[b.id])
        for peers in groups(here).values():
            most = max((counts[b.id] for b in peers if under[b.id]), default=1.0)
            for b in peers:
                if not under[b.id] and b.id in ends:
                    counts[b.id] = max(most, 1.0)
    return [1.0 if under[on[leaf]] else counts[on[leaf]] for leaf in leaves]
