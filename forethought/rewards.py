"""From named reward parts to one number a node, by the recipe's weights. The parts stay; the sum is one more field.

Parts that the rollout fills in (each 0 or 1):
    plan: format (the interface accepted it), valid (the exact executor says it reaches the goal)
    act:  format (the turn ended), outcome (the episode succeeded), follows (a correct execution of this plan, right or wrong)
Added here, because it needs the whole tree:
    plan: outcome = mean outcome of its executions; 0 for a refused plan, which can have none; absent where none was asked for
          or all of them failed (the engine or the environment broke): no evidence is not a 0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from forethought.types import Node, Tree

PARTS = {"plan": ("format", "valid", "outcome"), "act": ("format", "outcome", "follows")}
DEFAULT = {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}}


def default_weights(credit: str, acts: int) -> Mapping[str, Mapping[str, float]]:
    """What an empty reward table means: success, counted once.

    Credit over whole paths adds the rewards along a path, so there the executions alone are paid; credit by role needs a reward of
    its own on each side. Plans that nobody executes are paid for being valid.
    """
    if not acts:
        return {"plan": {"valid": 1.0}}
    return DEFAULT if credit == "role_baseline" else {"act": DEFAULT["act"]}


def reward(tree: Tree, weights: Mapping[str, Mapping[str, float]]) -> Tree:
    """The tree with `reward` set on plans and on the last turn of each execution.

    A role that `weights` does not name has no reward of its own (None). A failed node never has one: it is not a 0; nor has a
    node that lacks a part which counts.
    """
    executions: dict[int, list[float]] = {}
    for leaf in tree.leaves():
        if "outcome" in leaf.reward_parts and leaf.role == "act":
            plan = next((n for n in tree.path(leaf) if n.role == "plan"), None)
            if plan is not None:
                executions.setdefault(plan.id, []).append(leaf.reward_parts["outcome"])
    # A tree of plans alone says nothing about outcomes, unless the recipe counts them: then all of its plans were refused.
    acted = any(node.role == "act" for node in tree.nodes) or "outcome" in weights.get("plan", {})
    nodes = []
    for node in tree.nodes:
        if node.role == "plan" and node.reward_parts and acted:
            done = executions.get(node.id, [0.0] if node.status in ("refused", "truncated") else [])
            if done:
                node = replace(node, reward_parts={**node.reward_parts, "outcome": sum(done) / len(done)})
        nodes.append(replace(node, reward=_weigh(node, weights)))
    return replace(tree, nodes=tuple(nodes))


def _weigh(node: Node, weights: Mapping[str, Mapping[str, float]]) -> float | None:
    counted = weights.get(node.role, {})
    if node.role not in weights or not node.reward_parts or node.status == "failed" or counted.keys() - node.reward_parts.keys():
        return None
    return sum(w * node.reward_parts[part] for part, w in counted.items())
