"""The combinations of tree, reward and credit that cannot train, and why."""

from __future__ import annotations

from forethought.core.errors import RecipeError, unknown
from forethought.core.named import is_named
from forethought.recipe.ranges import above, at_least, listed, within
from forethought.recipe.schema import ROLES, CreditSpec, StageSpec

# the rows of forethought.learn.credit.CREDITS and OVER_BATCH; a test compares them
CREDITS = ("grpo", "dr_grpo", "rloo", "role_baseline", "turn_level")
OVER_BATCH = ("rae", "reinforce_pp", "reinforce_pp_baseline")
REWARD_PARTS = {
    "plan": ("valid", "outcome", "format", "analytic"),
    "act": ("outcome", "follows", "format", "structure", "length"),
}


def check_reinforce(where: str, stage: StageSpec) -> None:
    """Raise RecipeError for the first thing in a reinforce stage at address `where` that cannot work."""
    _check_tree(where, stage)
    _check_reward(where, stage)
    _check_update(where, stage)


def _check_tree(where: str, stage: StageSpec) -> None:
    tree, here = stage.tree, f"{where}.tree"
    at_least(f"{here}.plans", tree.plans, 1)
    at_least(f"{here}.acts", tree.acts, 0)
    above(f"{here}.temperature", tree.temperature, 0)  # greedy rollouts of one task are all the same
    if not 0 < tree.top_p <= 1:
        raise RecipeError(f"{here}.top_p", f"must be greater than 0 and at most 1, found {tree.top_p}")
    at_least(f"{here}.plan_tokens", tree.plan_tokens, 0)
    at_least(f"{here}.act_tokens", tree.act_tokens, 0)
    if tree.oracle_plan and "plan" in stage.roles:
        raise RecipeError(
            f"{here}.oracle_plan", "the oracle writes the plans, so there is nothing of role 'plan' to train"
        )
    if "act" in stage.roles and tree.acts == 0:
        raise RecipeError(f"{here}.acts", "0 samples no acting, so role 'act' cannot train; use at least 1")
    if tree.oracle_plan and tree.acts < 2:
        raise RecipeError(
            f"{here}.acts",
            "one execution of the oracle's plan is a group of size 1, which has no baseline; use at least 2",
        )
    if not tree.oracle_plan and tree.plans == 1 and tree.acts <= 1:
        raise RecipeError(
            here,
            "one rollout is a group of size 1, which has no baseline: every advantage is "
            "0; raise plans or acts",
        )
    if "plan" in stage.roles and tree.plans < 2:
        raise RecipeError(
            f"{here}.plans",
            "role 'plan' trains, and one plan has no peers to be compared with; use at least 2",
        )
    if "act" in stage.roles and stage.credit.name == "role_baseline" and tree.acts < 2:
        raise RecipeError(
            f"{here}.acts",
            "role_baseline compares executions of one plan, and one has no peers; use at least 2",
        )


def _check_reward(where: str, stage: StageSpec) -> None:
    here, sampled = f"{where}.reward", _sampled(stage)
    for role, parts in stage.reward.items():
        if role not in ROLES:
            raise RecipeError(f"{here}.{role}", unknown("role", role, ROLES))
        if role not in sampled:
            why = "tree.acts is 0" if role == "act" else "the oracle writes the plans"
            raise RecipeError(
                f"{here}.{role}", f"role {role!r} is not sampled ({why}), so it earns no reward"
            )
        for part in parts:
            if part not in REWARD_PARTS[role]:
                raise RecipeError(
                    f"{here}.{role}.{part}", unknown(f"part of the {role} reward", part, REWARD_PARTS[role])
                )
    if stage.reward and not any(weight for parts in stage.reward.values() for weight in parts.values()):
        raise RecipeError(here, "every weight is 0, so every advantage would be; give a part a weight")
    needs_acts = (
        [part for part in ("outcome", "analytic") if part in stage.reward.get("plan", {})]
        if stage.reward
        else ["outcome"]
    )
    if needs_acts and stage.tree.acts == 0:
        address = f"{here}.plan.{needs_acts[0]}" if stage.reward else here
        default = "" if stage.reward else "an empty table means outcome = 1, and "
        raise RecipeError(
            address,
            f"{default}a plan's outcome needs tree.acts >= 1; without acting, reward.plan.valid judges it",
        )
    above(f"{where}.shaping.tau", stage.shaping.tau, 0)
    at_least(f"{where}.shaping.length_max", stage.shaping.length_max, 0)
    if stage.credit.name == "role_baseline" and stage.reward:
        for role in stage.roles:
            if not any(stage.reward.get(role, {}).values()):
                raise RecipeError(
                    f"{here}.{role}",
                    f"role_baseline credits each role by its own reward, and {role!r} has none",
                )


def _sampled(stage: StageSpec) -> list[str]:
    return [*([] if stage.tree.oracle_plan else ["plan"]), *(["act"] if stage.tree.acts else [])]


def _check_update(where: str, stage: StageSpec) -> None:
    _check_credit(f"{where}.credit", stage.credit, stage)
    if stage.loss_share:
        raise RecipeError(
            f"{where}.loss_share", "reinforce reads no demonstrations; loss_share belongs to imitate"
        )
    at_least(f"{where}.ref_kl", stage.ref_kl, 0)
    at_least(f"{where}.updates", stage.updates, 1)


def _check_credit(where: str, credit: CreditSpec, stage: StageSpec) -> None:
    if credit.name not in CREDITS + OVER_BATCH and not is_named(credit.name):
        raise RecipeError(f"{where}.name", unknown("credit", credit.name, CREDITS + OVER_BATCH))
    within(f"{where}.gamma", credit.gamma, 0, 1)
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
    if credit.grams and credit.alpha and credit.mask == "plan":
        raise RecipeError(
            f"{where}.mask",
            '"plan" means the tokens of plans, and grams lists phrases; set '
            'mask = "grams", or take grams out',
        )
    if credit.mask == "placebo" and not credit.grams and len(stage.roles) == 1:
        raise RecipeError(
            f"{where}.mask",
            f'only {stage.roles[0]!r} trains, so "placebo" would draw '
            f"{'all' if stage.roles[0] == 'plan' else 'none'} "
            "of its tokens; train both roles, or give a list of phrases "
            "(grams)",
        )
    weights = {"plan": credit.plan_weight, "act": credit.act_weight}
    for role, weight in weights.items():
        at_least(f"{where}.{role}_weight", weight, 0)
    if not any(weights[role] for role in stage.roles):
        raise RecipeError(
            where, f"the advantages of {listed(stage.roles)} all have weight 0, so nothing would train"
        )
