"""Credit among peers of the same (role, scope): plans of one task against each other, executions of one plan
against each other.

Nothing is averaged across roles: a good plan does not pay a bad execution of it, and a lucky execution does
not pay a bad plan more than its share of the plan's own reward.
"""

from __future__ import annotations

import math

from forethought.core.types import NO_EVIDENCE, Advantages, Node, Tree
from forethought.recipe.schema import CreditSpec


def role_baseline(tree: Tree, spec: CreditSpec) -> Advantages:
    """A = (r - mean) / (std + eps) within each (role, scope); a singleton or a group without spread gets 0.

    Scope of a plan: the task. Scope of an execution: its plan; all turns of one execution share its
    advantage.
    """
    plan_above = {
        leaf.id: next((n for n in tree.path(leaf) if n.role == "plan"), None) for leaf in tree.leaves()
    }
    groups: dict[tuple[str, int | None], list[tuple[list[Node], float]]] = {}
    for node in tree.nodes:
        if node.role == "plan" and node.policy is not None and node.reward is not None:
            groups.setdefault(("plan", node.parent), []).append(([node], node.reward))
    for leaf in tree.leaves():
        if leaf.role not in (None, "plan") and leaf.status not in NO_EVIDENCE and leaf.reward is not None:
            turns = [n for n in tree.path(leaf) if n.role == leaf.role]
            plan = plan_above[leaf.id]
            groups.setdefault((leaf.role, plan.id if plan else None), []).append((turns, leaf.reward))
    advantages = {
        n.id: (0.0,) * len(n.token_ids)
        for n in tree.nodes
        if n.policy is not None and n.status not in NO_EVIDENCE
    }
    for members in groups.values():
        rewards = [r for _, r in members]
        if len(set(rewards)) == 1:
            continue  # 0 by rule: a mean of equal rewards may differ from them in its last bit
        mean = sum(rewards) / len(rewards)
        std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
        for nodes, r in members:
            for node in nodes:
                advantages[node.id] = ((r - mean) / (std + spec.eps),) * len(node.token_ids)
    return advantages
