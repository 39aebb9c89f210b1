"""From named reward parts to one number a node, by the recipe's weights. The parts stay; the sum is one more
field.

Parts that the rollout fills in (each 0 or 1):
    plan: format (the interface accepted it), valid (the exact executor says it reaches the goal)
    act:  format (the turn ended), outcome (the episode succeeded), follows (a correct execution of this plan,
          right or wrong)
Added here, because they need the whole tree:
    plan: outcome = mean outcome of its executions; 0 for a refused plan, which can have none; absent where
    none was asked for
          or all of them failed (the engine or the environment broke) or had no room: no evidence is not a 0
          analytic = softmax of the outcomes of the task's plans (PTA-GRPO)
    act:  structure = 1 where plan and acting both kept to the format; length = how near the shortest success
          (PTA-GRPO)

PTA-GRPO's reward (arXiv 2510.01833) is { plan = { analytic = 0.5 }, act = { outcome = 1, structure = 0.2,
length = ALPHA } } with credit "grpo": one normalisation over all responses of the tree. The paper does not
give ALPHA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from forethought.core.types import NO_EVIDENCE, Node, Tree
from forethought.recipe.schema import ShapingSpec

PARTS = {
    "plan": ("format", "valid", "outcome", "analytic"),
    "act": ("format", "outcome", "follows", "structure", "length"),
}
DEFAULT = {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}}
DEFAULT_SHAPING = ShapingSpec()


def default_weights(credit: str, acts: int) -> Mapping[str, Mapping[str, float]]:
    """What an empty reward table means: success, counted once.

    Credit over whole paths adds the rewards along a path, so there the executions alone are paid; credit by
    role needs a reward of its own on each side. Plans that nobody executes are paid for being valid.
    """
    if not acts:
        return {"plan": {"valid": 1.0}}
    return DEFAULT if credit == "role_baseline" else {"act": DEFAULT["act"]}


def reward(
    tree: Tree, weights: Mapping[str, Mapping[str, float]], shaping: ShapingSpec = DEFAULT_SHAPING
) -> Tree:
    """The tree with `reward` set on plans and on the last turn of each execution.

    A role that `weights` does not name has no reward of its own (None). A node that failed or had no room
    never has one: it is not a 0; nor has a node that lacks a part which counts.
    """
    parts = {node.id: dict(node.reward_parts) for node in tree.nodes}
    _outcomes_of_plans(tree, weights, parts)
    if "analytic" in weights.get("plan", {}):
        _analytic(tree, shaping.tau, parts)
    if weights.get("act", {}).keys() & {"structure", "length"}:
        _structure_and_length(tree, shaping.length_max, parts)
    nodes = [replace(node, reward_parts=parts[node.id]) for node in tree.nodes]
    return replace(tree, nodes=tuple(replace(node, reward=_weigh(node, weights)) for node in nodes))


def _outcomes_of_plans(
    tree: Tree, weights: Mapping[str, Mapping[str, float]], parts: dict[int, dict[str, float]]
) -> None:
    executions: dict[int, list[float]] = {}
    for leaf in tree.leaves():
        if "outcome" in leaf.reward_parts and leaf.role == "act":
            plan = next((n for n in tree.path(leaf) if n.role == "plan"), None)
            if plan is not None:
                executions.setdefault(plan.id, []).append(leaf.reward_parts["outcome"])
    # A tree of plans alone says nothing about outcomes, unless the recipe counts them: then all of its plans
    # were refused.
    acted = (
        any(node.role == "act" for node in tree.nodes)
        or {"outcome", "analytic"} & weights.get("plan", {}).keys()
    )
    for node in tree.nodes:
        if node.role == "plan" and node.reward_parts and acted:
            done = executions.get(node.id, [0.0] if node.status in ("refused", "truncated") else [])
            if done:
                parts[node.id]["outcome"] = sum(done) / len(done)


def _analytic(tree: Tree, tau: float, parts: dict[int, dict[str, float]]) -> None:
    """r_i = exp(s_i / tau) / sum_j exp(s_j / tau) over the plans of the task, s_i the share of plan i's
    executions that succeed.

    Where all succeed alike it is 1/m for each, which no normalised credit can tell apart. Plans without
    evidence take no part.
    """
    plans = [
        n.id
        for n in tree.nodes
        if n.role == "plan" and n.status not in NO_EVIDENCE and "outcome" in parts[n.id]
    ]
    if not plans:
        return
    best = max(parts[i]["outcome"] for i in plans)
    raised = {i: math.exp((parts[i]["outcome"] - best) / tau) for i in plans}
    total = sum(raised[i] for i in plans)
    for i in plans:
        parts[i]["analytic"] = raised[i] / total


def _structure_and_length(tree: Tree, length_max: int, parts: dict[int, dict[str, float]]) -> None:
    """length = exp(-|n - T| / (T_max - T)): n tokens of the response (plan and acts), T those of the shortest
    success.

    The paper leaves two cases open. Nobody succeeds: there is no T, and nobody is paid for length. T_max <=
    T: a response of T tokens gets 1, any other the limit of the formula, 0.
    """
    responses = [
        leaf
        for leaf in tree.leaves()
        if leaf.role == "act" and leaf.status not in NO_EVIDENCE and "outcome" in leaf.reward_parts
    ]
    size = {
        leaf.id: sum(len(n.token_ids) for n in tree.path(leaf) if n.role is not None) for leaf in responses
    }
    shortest = min((size[leaf.id] for leaf in responses if leaf.reward_parts["outcome"] > 0), default=None)
    longest = length_max or max(size.values(), default=0)
    for leaf in responses:
        path = [n for n in tree.path(leaf) if n.policy is not None]
        kept = all(n.status == "finished" for n in path) and all(
            n.reward_parts.get("format", 1.0) for n in path
        )
        parts[leaf.id]["structure"] = float(kept)
        if shortest is None:
            near = 0.0
        elif longest <= shortest:
            near = float(size[leaf.id] == shortest)
        else:
            near = math.exp(-abs(size[leaf.id] - shortest) / (longest - shortest))
        parts[leaf.id]["length"] = near


def _weigh(node: Node, weights: Mapping[str, Mapping[str, float]]) -> float | None:
    counted = weights.get(node.role, {})
    if (
        node.role not in weights
        or not node.reward_parts
        or node.status in NO_EVIDENCE
        or counted.keys() - node.reward_parts.keys()
    ):
        return None
    return sum(w * node.reward_parts[part] for part, w in counted.items())
