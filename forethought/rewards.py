"""From named reward parts to one number a node, by the recipe's weights. The parts stay; the sum is one more field.

Parts that the rollout fills in (each 0 or 1):
    plan: format (the interface accepted it), valid (the exact executor says it reaches the goal)
    act:  format (the turn ended), outcome (the episode succeeded), follows (a correct execution of this plan, right or wrong)
Added here, because it needs the whole tree:
    plan: outcome = mean outcome of its executions (0 for a refused plan: nothing was executed)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from forethought.types import Node, Tree

PARTS = {"plan": ("format", "valid", "outcome"), "act": ("format", "outcome", "follows")}
DEFAULT = {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}}


def reward(tree: Tree, weights: Mapping[str, Mapping[str, float]]) -> Tree:
    """The tree with `reward` set on plans and on the last turn of each execution.

    A role that `weights` does not name has no reward of its own (None). A failed node never has one: it is not a 0.
    """
    executions: dict[int, list[float]] = {}
    for leaf in tree.leaves():
        if "outcome" in leaf.reward_parts and leaf.role == "act":
            plan = next((n for n in tree.path(leaf) if n.role == "plan"), None)
            if plan is not None:
                executions.setdefault(plan.id, []).append(leaf.reward_parts["outcome"])
    acted = any(node.role == "act" for node in tree.nodes)  # a tree of plans alone says nothing about outcomes
    nodes = []
    for node in tree.nodes:
        if node.role == "plan" and node.reward_parts and acted:
            done = executions.get(node.id)
            outcome = sum(done) / len(done) if done else 0.0
            node = replace(node, reward_parts={**node.reward_parts, "outcome": outcome})
        nodes.append(replace(node, reward=_weigh(node, weights)))
    return replace(tree, nodes=tuple(nodes))


def _weigh(node: Node, weights: Mapping[str, Mapping[str, float]]) -> float | None:
    if node.role not in weights or not node.reward_parts or node.status == "failed":
        return None
    return sum(w * node.reward_parts.get(part, 0.0) for part, w in weights[node.role].items())
