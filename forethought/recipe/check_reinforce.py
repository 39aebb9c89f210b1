"""The combinations of tree, reward and credit that cannot train, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import prod
from typing import Any, Protocol

from forethought.core.errors import RecipeError, unknown
from forethought.core.named import installed, is_known, is_named, split
from forethought.recipe.ranges import above, at_least, listed, within
from forethought.recipe.roles import counts_of, sampled_in
from forethought.recipe.schema import CreditSpec, ShapingSpec, TreeSpec

# the rows of forethought.learn.credit.CREDITS and OVER_BATCH; a test compares them
VALUED = ("webrl", "webrl_released")  # those that need a critic, and no peers
CREDITS = ("grpo", "dr_grpo", "rloo", "role_baseline", "turn_level", *VALUED)
OVER_BATCH = ("rae", "reinforce_pp", "reinforce_pp_baseline")
BY_BRANCH = ("role_baseline", "turn_level")  # of them, those that compare each branch with its own peers
# by place: of a role that prepares, and of the last one, which acts
PREPARES = ("valid", "outcome", "format", "analytic")
ACTS = ("outcome", "follows", "format", "structure", "length")
# what environments of shipped tasksets give an act beside these (`Outcome.parts`)
OF_ENVIRONMENTS = ("reward", "legal", "answered")
Roles = tuple[str, ...]
Continues = Mapping[str, str]


class Sampling(Protocol):
    """What is read here of a stage that learns from trees."""

    roles: Roles
    tree: TreeSpec
    reward: dict[str, dict[str, float]]
    parts: dict[str, str]
    judges: dict[str, dict[str, Any]]
    shaping: ShapingSpec
    credit: CreditSpec
    ref_kl: float
    updates: int
    dynamic_sampling: int


def check_reinforce(where: str, stage: Sampling, roles: Roles, continues: Continues) -> None:
    """Raise RecipeError for the first thing in a reinforce stage at address `where` that cannot work, in a
    recipe with these `roles`, some of which go on with the branch of another (`speaking.Speaks`)."""
    _check_tree(where, stage, roles, continues)
    _check_reward(where, stage, roles)
    _check_update(where, stage, roles)


def _check_tree(where: str, stage: Sampling, roles: Roles, continues: Continues) -> None:
    tree, here = stage.tree, f"{where}.tree"
    for name, count in tree.counts.items():
        if name not in roles:
            keys = [field.name for field in fields(TreeSpec) if field.name != "counts"]
            raise RecipeError(f"{here}.{name}", unknown("role", name, (*roles, *keys)))
        at_least(f"{here}.{name}", count, 0 if roles.index(name) else 1)
    above(f"{here}.temperature", tree.temperature, 0)  # greedy rollouts of one task are all the same
    if not 0 < tree.top_p <= 1:
        raise RecipeError(f"{here}.top_p", f"must be greater than 0 and at most 1, found {tree.top_p}")
    at_least(f"{here}.top_k", tree.top_k, 0)
    if tree.top_k == 1:
        raise RecipeError(
            f"{here}.top_k",
            "must be 0 (all tokens) or at least 2: with 1 all rollouts of a task are the same",
        )
    if not 0 <= tree.min_p < 1:
        raise RecipeError(f"{here}.min_p", f"must be at least 0 and below 1, found {tree.min_p}")
    for role, tokens in tree.tokens.items():
        if role not in roles:
            raise RecipeError(f"{here}.tokens.{role}", unknown("role", role, roles))
        at_least(f"{here}.tokens.{role}", tokens, 0)
    _check_oracle(f"{here}.oracle", tree, stage, roles)
    _check_peers(here, stage, roles, continues)


def _check_oracle(where: str, tree: TreeSpec, stage: Sampling, roles: Roles) -> None:
    for i, role in enumerate(tree.oracle):
        if role not in roles:
            raise RecipeError(f"{where}.{i}", unknown("role", role, roles))
        if role in stage.roles:
            raise RecipeError(where, f"the oracle speaks for {role!r}, so there is nothing of it to train")
    if set(tree.oracle) != set(roles[: len(set(tree.oracle))]) or len(set(tree.oracle)) == len(roles):
        raise RecipeError(
            where,
            f"the oracle speaks before the policies: it takes the first of {listed(roles)}, and not the "
            f"last; found {listed(tree.oracle)}",
        )


def _check_peers(here: str, stage: Sampling, roles: Roles, continues: Continues) -> None:
    """Every role that trains is sampled, and compared with something."""
    tree, counts = stage.tree, counts_of(stage.tree, roles)
    sampled = sampled_in(tree, roles)
    for role in stage.roles:
        if role not in sampled:
            ends = next(above for above in roles if not counts[above])
            raise RecipeError(
                f"{here}.{ends}", f"0 samples no {ends}, so role {role!r} cannot train; use at least 1"
            )
    if stage.credit.name not in CREDITS or stage.credit.name in VALUED:
        return  # what compares over a batch, or is one's own, needs no peers in a tree
    if max(sampled.values(), default=1) == 1:
        first = next(role for role in roles if role not in tree.oracle)
        where, what = (
            (f"{here}.{first}", f"one {first} under the oracle's {listed(tree.oracle)}")
            if tree.oracle
            else (here, "one rollout")
        )
        raise RecipeError(
            where,
            f"{what} is a group of size 1, which has no baseline: every advantage is 0; sample more, "
            f"such as {first} = 4",
        )
    for role in stage.roles:
        first = _begins(role, counts, continues)
        alone = (
            first in tree.oracle or counts[first] < 2 if stage.credit.name in BY_BRANCH else sampled[role] < 2
        )
        if alone:
            raise RecipeError(
                f"{here}.{role}",
                f"role {role!r} trains, and one {role} has no peers to be compared with; use at least 2",
            )


def _begins(role: str, counts: Mapping[str, int], continues: Continues) -> str:
    """The role with whose turn the branch begins on which the turns of `role` lie."""
    while counts[role] == 1 and role in continues:
        role = continues[role]
    return role


def _check_reward(where: str, stage: Sampling, roles: Roles) -> None:
    here, sampled = f"{where}.reward", sampled_in(stage.tree, roles)
    for role, parts in stage.reward.items():
        if role not in roles:
            raise RecipeError(f"{here}.{role}", unknown("role", role, roles))
        if role not in sampled:
            why = (
                "the oracle speaks for it"
                if role in stage.tree.oracle
                else f"tree.{_ends(stage, roles)} is 0"
            )
            raise RecipeError(
                f"{here}.{role}", f"role {role!r} is not sampled ({why}), so it earns no reward"
            )
        known = (*((*ACTS, *OF_ENVIRONMENTS) if role == roles[-1] else PREPARES), *stage.parts)
        known = (*known, *stage.judges)
        for part in parts:
            if is_named(part):
                _check_named(f"{here}.{role}", part, role, stage)
            elif str(part).startswith("<"):  # a function itself, from Python
                raise RecipeError(
                    f"{here}.{role}",
                    f'{part} cannot be kept in a run; write it in a file and name it: "rewards.py:NAME"',
                )
            elif str(part).endswith(".py"):
                raise RecipeError(
                    f"{here}.{role}", f'{part!r} is a file; name the function in it: "{part}:NAME"'
                )
            elif part not in known:
                raise RecipeError(f"{here}.{role}.{part}", unknown(f"part of the {role} reward", part, known))
    for name in stage.judges:
        if name in (*PREPARES, *ACTS, *OF_ENVIRONMENTS, *stage.parts, "success", "timed_out"):
            raise RecipeError(
                f"{where}.judges.{name}", f"{name} is a part already; give the judge another name"
            )
        if not any(name in parts for parts in stage.reward.values()):
            raise RecipeError(f"{where}.judges.{name}", "no role is paid for it; give it a weight in reward")
    for part, text in stage.parts.items():
        if not is_known("rewards", text):
            there = f" (installed: {listed(tuple(installed('rewards')))})" if installed("rewards") else ""
            way = f"write {_as_code(text)}{there}"
            raise RecipeError(f"{where}.parts.{part}", f"{text!r} names no code; {way}")
        if not any(part in parts for parts in stage.reward.values()):
            raise RecipeError(f"{where}.parts.{part}", "no role is paid for it; give it a weight in reward")
    if stage.reward and not any(weight for parts in stage.reward.values() for weight in parts.values()):
        raise RecipeError(here, "every weight is 0, so every advantage would be; give a part a weight")
    _check_outcome(here, stage, roles)
    above(f"{where}.shaping.tau", stage.shaping.tau, 0)
    at_least(f"{where}.shaping.length_max", stage.shaping.length_max, 0)
    if stage.credit.name == "role_baseline" and stage.reward:
        for role in stage.roles:
            if not any(stage.reward.get(role, {}).values()):
                raise RecipeError(
                    f"{here}.{role}",
                    f"role_baseline credits each role by its own reward, and {role!r} has none",
                )


def part_of(key: str) -> str:
    """The part of the reward that a key means: itself, or the name of the function that it names."""
    return key.rpartition(":")[2].rpartition(".")[2] if is_named(key) else key


def _as_code(text: str) -> str:
    return f"{text}:NAME" if text.endswith(".py") else "file.py:name"


def _check_named(where: str, key: str, role: str, stage: Sampling) -> None:
    """RecipeError where the part of a function has the name of another one."""
    part = part_of(key)
    split(key, f"{where}.{key}")
    others = [stage.parts[part]] if part in stage.parts else []
    others += [k for counted in stage.reward.values() for k in counted if part_of(k) == part and k != key]
    if part in (*PREPARES, *ACTS, *OF_ENVIRONMENTS, "success", "timed_out"):
        others.append(f"a part that exists, {part}")
    if others:
        raise RecipeError(
            f"{where}.{key}",
            f"its part is called {part!r}, and so is {others[0]}; give it another name: "
            f'parts = {{ mine = "{key}" }}, and a weight for mine in reward',
        )


def _ends(stage: Sampling, roles: Roles) -> str:
    """The role before which the tree ends."""
    return next(role for role, count in counts_of(stage.tree, roles).items() if not count)


def _check_outcome(here: str, stage: Sampling, roles: Roles) -> None:
    """What a role before the last leads to is known where the last one acts."""
    if prod(counts_of(stage.tree, roles).values()):
        return
    role, default = _judged_by_outcome(stage, roles), ""
    if not stage.reward:
        role, default = (roles[0], "outcome"), "an empty table means outcome = 1, and "
    if role:
        address = f"{here}.{role[0]}.{role[1]}" if stage.reward else here
        raise RecipeError(
            address,
            f"{default}the outcome of a {role[0]} needs tree.{_ends(stage, roles)} >= 1; without it, "
            f"reward.{role[0]}.valid judges it",
        )


def _judged_by_outcome(stage: Sampling, roles: Roles) -> tuple[str, str] | None:
    parts = [(role, part) for role in roles[:-1] for part in ("outcome", "analytic")]
    return next((pair for pair in parts if pair[1] in stage.reward.get(pair[0], {})), None)


def _check_update(where: str, stage: Sampling, roles: Roles) -> None:
    _check_credit(f"{where}.credit", stage.credit, stage, roles)
    at_least(f"{where}.ref_kl", stage.ref_kl, 0)
    at_least(f"{where}.updates", stage.updates, 1)
    at_least(f"{where}.dynamic_sampling", stage.dynamic_sampling, 0)


def _check_credit(where: str, credit: CreditSpec, stage: Sampling, roles: Roles) -> None:
    if not is_known("credits", credit.name, CREDITS + OVER_BATCH):
        known = (*CREDITS, *OVER_BATCH, *installed("credits"))
        raise RecipeError(f"{where}.name", unknown("credit", credit.name, known))
    if credit.name in VALUED and not hasattr(stage, "critic"):
        raise RecipeError(
            f"{where}.name", f'"{credit.name}" reads the values of a critic; use kind = "webrl", or "grpo"'
        )
    within(f"{where}.gamma", credit.gamma, 0, 1)
    within(f"{where}.mix", credit.mix, 0, 1)
    within(f"{where}.margin", credit.margin, 0, 1)
    within(f"{where}.decay", credit.decay, 0, 1)
    above(f"{where}.eps", credit.eps, 0)
    at_least(f"{where}.alpha", credit.alpha, 0)
    above(f"{where}.mask_share", credit.mask_share, 0)
    within(f"{where}.mask_share", credit.mask_share, 0, 1)
    if credit.alpha == 0 and credit.mask != CreditSpec().mask:
        raise RecipeError(
            f"{where}.mask",
            f'"{credit.mask}" says where alpha acts, and alpha is 0; set alpha = 0.2, or take mask out',
        )
    if credit.mask == "grams" and not credit.grams:
        raise RecipeError(
            f"{where}.grams",
            'mask = "grams" needs the list: grams = "FILE", such as forethought grams mine writes',
        )
    if credit.alpha and credit.mask == CreditSpec().mask and len(roles) == 1:
        raise RecipeError(
            f"{where}.mask",
            f'"{credit.mask}" means the roles before the last, and {roles[0]} is the only one; give a list '
            'of phrases (grams), or set mask = "entropy"',
        )
    if credit.grams and credit.alpha and credit.mask == CreditSpec().mask:
        raise RecipeError(
            f"{where}.mask",
            f'"{credit.mask}" means the tokens of {listed(roles[:-1])}, and grams lists phrases; set '
            'mask = "grams", or take grams out',
        )
    acts = [role == roles[-1] for role in stage.roles]
    if credit.mask == "placebo" and not credit.grams and (all(acts) or not any(acts)):
        raise RecipeError(
            f"{where}.mask",
            f'only {listed(stage.roles)} trains, so "placebo" would draw {"none" if all(acts) else "all"} '
            "of its tokens; train all roles, or give a list of phrases (grams)",
        )
    for role, weight in credit.weight.items():
        if role not in roles:
            raise RecipeError(f"{where}.weight.{role}", unknown("role", role, roles))
        at_least(f"{where}.weight.{role}", weight, 0)
    if not any(credit.weight.get(role, 1.0) for role in stage.roles):
        raise RecipeError(
            where, f"the advantages of {listed(stage.roles)} all have weight 0, so nothing would train"
        )
