"""Credit: functions from rewarded trees to one advantage per token of the nodes that policies wrote.

A new one is a function `(Tree, CreditSpec) -> Advantages` and a row in `CREDITS`; where it has to see the
trees of a step together, or remember earlier steps, `(Sequence[Tree], CreditSpec, State) ->
Sequence[Advantages]` and a row in `OVER_BATCH`. A recipe can also name one of its own, "file.py:function"
(`own.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from forethought.core.types import NO_EVIDENCE, Advantages, Tree
from forethought.core.watchdog import Watchdog
from forethought.learn.credit.batch import State, rae, reinforce_pp, reinforce_pp_baseline
from forethought.learn.credit.classes import class_metrics as class_metrics
from forethought.learn.credit.coverage import watch as watch
from forethought.learn.credit.flat import dr_grpo, grpo, rloo
from forethought.learn.credit.hicra import (
    Entropies,
    Mask,
    entropy_mask,
    hicra,
    placebo_mask,
    released_mask,
)
from forethought.learn.credit.hicra import preparing_mask as preparing_mask
from forethought.learn.credit.own import own_row
from forethought.learn.credit.roles import role_baseline
from forethought.learn.credit.turns import turn_level
from forethought.learn.credit.webrl import webrl, webrl_released
from forethought.recipe.check_reinforce import VALUED
from forethought.recipe.schema import CreditSpec

CREDITS: dict[str, Callable[[Tree, CreditSpec], Advantages]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "role_baseline": role_baseline,
    "turn_level": turn_level,
    "webrl": webrl,
    "webrl_released": webrl_released,
}
OVER_BATCH: dict[str, Callable[[Sequence[Tree], CreditSpec, State], list[Advantages]]] = {
    "rae": rae,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
}
BY_BRANCH = (
    "role_baseline",
    "turn_level",
    "rae",
    *VALUED,
)  # a branch's own reward counts, not the sum along a path
NEED_ENTROPIES = ("entropy", "released")  # masks


def score(
    trees: Sequence[Tree],
    spec: CreditSpec,
    state: State,
    seconds: float = 0.0,
    watchdog: Watchdog | None = None,
) -> Sequence[Advantages]:
    """The advantages by the recipe's credit row, for all roles. Changes `state` if the row keeps one.
    `seconds`: what a row of one's own may take (0: no limit), by the clock of `watchdog`."""
    if spec.name in CREDITS:
        return [CREDITS[spec.name](tree, spec) for tree in trees]
    return (OVER_BATCH.get(spec.name) or own_row(spec.name, seconds, watchdog))(trees, spec, state)


def assign(
    tree: Tree,
    spec: CreditSpec,
    roles: Iterable[str],
    seed: int = 0,
    entropies: Entropies | None = None,
    planning: Mask | None = None,
) -> Advantages:
    """The advantages of one tree alone: `weigh` of its `score`."""
    return weigh(tree, spec, score([tree], spec, {})[0], roles, seed, entropies, planning)


def weigh(
    tree: Tree,
    spec: CreditSpec,
    scored: Advantages,
    roles: Iterable[str],
    seed: int = 0,
    entropies: Entropies | None = None,
    planning: Mask | None = None,
) -> Advantages:
    """Advantages of the tokens that train: nodes of `roles`, scaled by the recipe's role weights and, where
    `alpha` is set, by HICRA; coverage checked. `seed` draws a placebo mask, `entropies` make an entropy mask;
    `planning` are the planning tokens: those of a list of grams, or of `preparing_mask`."""
    roles = set(roles)
    advantages: Advantages = {
        n.id: _times(spec.weight.get(n.role, 1.0), scored[n.id])
        for n in tree.nodes
        if n.role in roles and n.id in scored
    }
    if spec.alpha:
        mask = _mask(tree, spec, scored, advantages, seed, entropies or {}, planning)
        advantages = hicra(advantages, {i: mask[i] for i in advantages}, spec.alpha)
    check_coverage(tree, advantages, roles)
    return advantages


def _times(weight: float, scored: tuple[float, ...]) -> tuple[float, ...]:
    return scored if weight == 1.0 else tuple(a * weight for a in scored)


def measured(tree: Tree, spec: CreditSpec, advantages: Advantages) -> Advantages:
    """Drop the nodes about which nothing is known, because everything that follows from them failed: they do
    not train and count in no denominator. (Where credit is by branch, a branch with a reward of its own is
    known.)."""
    if all(n.status != "failed" for n in tree.nodes):
        return advantages
    known = {n.id for n in tree.nodes if n.reward is not None} if spec.name in BY_BRANCH else set()
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
    planning: Mask | None,
) -> Mask:
    if spec.mask == "entropy":
        return entropy_mask(tree, entropies, spec.mask_share)
    if planning is None:
        raise ValueError(f'mask "{spec.mask}" needs the planning tokens')
    if spec.mask == "placebo":
        return placebo_mask(tree, seed, planning, trained)
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
                f"tree {tree.task.id}: node {node.id} ({node.role}, {node.status}) has {given} advantages "
                f"for {wanted} trained tokens"
            )
    if strangers := set(advantages) - {n.id for n in tree.nodes}:
        raise ValueError(
            f"tree {tree.task.id}: advantages for nodes {sorted(strangers)} that it does not have"
        )
