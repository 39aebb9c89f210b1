"""Credit: pure functions from a rewarded tree to one advantage per token of the nodes that policies wrote.

A new one is a function `(Tree, CreditSpec) -> Advantages` and a row in `CREDITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from forethought.core.types import NO_EVIDENCE, Advantages, Tree
from forethought.learn.credit.classes import class_metrics  # noqa: F401  (stages/step.py asks for it here)
from forethought.learn.credit.flat import dr_grpo, grpo, rloo
from forethought.learn.credit.hicra import (
    Entropies,
    Mask,
    entropy_mask,
    hicra,
    placebo_mask,
    plan_mask,
    released_mask,
)
from forethought.learn.credit.roles import role_baseline
from forethought.recipe.schema import CreditSpec

CREDITS: dict[str, Callable[[Tree, CreditSpec], Advantages]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "role_baseline": role_baseline,
}
NEED_ENTROPIES = ("entropy", "released")  # masks


def assign(
    tree: Tree,
    spec: CreditSpec,
    roles: Iterable[str],
    seed: int = 0,
    entropies: Entropies | None = None,
    planning: Mask | None = None,
) -> Advantages:
    """Advantages of the tokens that train: nodes of `roles`, scaled by the recipe's role weights and, where
    `alpha` is set, by HICRA; coverage checked. `seed` draws a placebo mask, `entropies` make an entropy mask;
    `planning` are the planning tokens where a list of grams says which they are (None: those of plans)."""
    roles = set(roles)
    factor = {"plan": spec.plan_weight, "act": spec.act_weight}
    scored = CREDITS[spec.name](tree, spec)
    advantages = {
        n.id: tuple(a * factor.get(n.role, 1.0) for a in scored[n.id])
        for n in tree.nodes
        if n.role in roles and n.id in scored
    }
    if spec.alpha:
        if spec.mask == "grams" and planning is None:
            raise ValueError('mask "grams" needs the planning tokens')
        mask = _mask(
            tree,
            spec,
            scored,
            advantages,
            seed,
            entropies or {},
            plan_mask(tree) if planning is None else planning,
        )
        advantages = hicra(advantages, {i: mask[i] for i in advantages}, spec.alpha)
    check_coverage(tree, advantages, roles)
    return advantages


def measured(tree: Tree, spec: CreditSpec, advantages: Advantages) -> Advantages:
    """Without the nodes of which nothing is known, because everything that follows from them failed: they
    train on nothing, and count in no denominator. (A plan that has a reward of its own is known where credit
    is by role.)"""
    if all(n.status != "failed" for n in tree.nodes):
        return advantages
    known = {n.id for n in tree.nodes if n.reward is not None} if spec.name == "role_baseline" else set()
    for leaf in tree.leaves():
        if leaf.status != "failed":
            known |= {n.id for n in tree.path(leaf)}
    return {i: row for i, row in advantages.items() if i in known}


def _mask(
    tree: Tree,
    spec: CreditSpec,
    scored: Advantages,
    trained: Advantages,
    seed: int,
    entropies: Entropies,
    planning: Mask,
) -> Mask:
    if spec.mask == "placebo":
        return placebo_mask(tree, seed, planning, trained)
    if spec.mask == "entropy":
        return entropy_mask(tree, entropies, spec.mask_share)
    if spec.mask == "released":
        return released_mask(tree, scored, entropies, spec.mask_share, planning)
    return planning


def check_coverage(tree: Tree, advantages: Advantages, roles: set[str]) -> None:
    """Every token of a node that trains has exactly one advantage, every other token none (ValueError says
    which node)."""
    for node in tree.nodes:
        given = len(advantages.get(node.id, ()))
        trains = node.role in roles and node.policy is not None and node.status not in NO_EVIDENCE
        wanted = len(node.token_ids) if trains else 0
        if given != wanted:
            raise ValueError(
                f"tree {tree.task.id}: node {node.id} ({node.role}, {node.status}) has {given} "
                f"advantages for "
                f"{wanted} trained tokens"
            )
    if strangers := set(advantages) - {n.id for n in tree.nodes}:
        raise ValueError(
            f"tree {tree.task.id}: advantages for nodes {sorted(strangers)} that it does not have"
        )
