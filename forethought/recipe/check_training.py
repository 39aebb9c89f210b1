"""What every stage that trains is refused for, whatever its kind: its roles and weights, the tasks that it
draws, its optimizer, its loss, its end and its gates."""

from __future__ import annotations

from forethought.core.errors import RecipeError, unknown
from forethought.recipe.check_gates import check_gate, check_until
from forethought.recipe.check_loss import check_loss
from forethought.recipe.layout import BASE, OWN, has_planner, policy_of, weights_of
from forethought.recipe.ranges import above, at_least, known_levels, listed, one_per_level, within
from forethought.recipe.roles import frozen_in
from forethought.recipe.schedules import check_schedule
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.recipe.speaking import of_another_workflow, roles_of


def check_training(where: str, stage: TrainingSpec, recipe: Recipe) -> None:
    """RecipeError for the first of these in the stage at address `where` that cannot work."""
    _check_trained(where, stage, recipe)
    _check_weights(where, stage, recipe)
    check_until(f"{where}.until", stage.until, recipe)
    _check_mix(where, stage, recipe)
    _check_optim(where, stage)
    check_loss(where, stage)
    for i, gate in enumerate(stage.gates):
        check_gate(f"{where}.gates.{i}", gate, stage, recipe)


def _check_trained(where: str, stage: TrainingSpec, recipe: Recipe) -> None:
    roles = roles_of(recipe)
    if not stage.roles:
        raise RecipeError(f"{where}.roles", f"a stage trains at least one role (known: {', '.join(roles)})")
    for i, role in enumerate(stage.roles):
        if role not in roles:
            said = of_another_workflow(recipe, role) or unknown("role", role, roles)
            raise RecipeError(f"{where}.roles.{i}", said)
        if role in stage.roles[:i]:
            raise RecipeError(f"{where}.roles.{i}", f"role {role!r} is listed twice")


def _check_weights(where: str, stage: TrainingSpec, recipe: Recipe) -> None:
    own = OWN[recipe.layout]
    if stage.weights not in ("auto", "base", *own):
        has = f"has {own[0]}s, no {stage.weights}s" if own else f"has no {stage.weights}s"
        raise RecipeError(f"{where}.weights", f'layout "{recipe.layout}" {has}; use "auto" or another layout')
    if has_planner(recipe):
        if stage.weights == "base":
            raise RecipeError(
                f"{where}.weights", 'every role has a model of its own here (planner is given); use "auto"'
            )
        return
    if stage.weights in own and (on_base := [r for r in stage.roles if _shares_base(recipe, r)]):
        raise RecipeError(
            f"{where}.weights",
            f'{listed(on_base)} has policy = "base", so there is no {stage.weights} of its own to train; use '
            '"auto", or take the policy out',
        )
    frozen = frozen_in(recipe, stage)
    if own and weights_of(recipe, stage) == "base" and frozen:
        acts = (
            f' (in layout "mixed" the base speaks as {roles_of(recipe)[-1]}, and only the roles before it '
            "have weights of their own)"
            if recipe.layout == "mixed"
            else ""
        )
        raise RecipeError(
            f"{where}.weights",
            f"the base lies under the weights of every role, so training it for {listed(stage.roles)} would "
            f"move the frozen {listed(frozen)}{acts}; train all roles on the base, or use the role's own "
            'weights (where sharing is the point: layout = "shared")',
        )


def _shares_base(recipe: Recipe, role: str) -> bool:
    """Whether its row says so; in layout "mixed" a stage may still give it weights of its own."""
    return recipe.layout != "mixed" and recipe.layout != "shared" and policy_of(recipe, role) == BASE


def _check_mix(where: str, stage: TrainingSpec, recipe: Recipe) -> None:
    """Which tasks a step draws."""
    levels = stage.levels or recipe.task.levels
    known_levels(f"{where}.levels", stage.levels, recipe.task.levels, "task.levels")
    known_levels(
        f"{where}.easy_levels",
        stage.easy_levels,
        levels,
        "the stage's levels" if stage.levels else "task.levels",
    )
    within(f"{where}.easy_first", stage.easy_first, 0, 1)
    if stage.easy_first and not stage.easy_levels:
        raise RecipeError(
            f"{where}.easy_levels", f"easy_first = {stage.easy_first} needs the levels to draw from at first"
        )
    if stage.level_weights:
        one_per_level(f"{where}.level_weights", stage.level_weights, levels)
        for i, weight in enumerate(stage.level_weights):
            at_least(f"{where}.level_weights.{i}", weight, 0)
        weights = dict(zip(levels, stage.level_weights, strict=True))
        for drawn in (levels, stage.easy_levels):
            if drawn and not any(weights[level] for level in drawn):
                raise RecipeError(
                    f"{where}.level_weights",
                    f"levels {listed(drawn)} all have weight 0, so there is nothing to draw",
                )
    at_least(f"{where}.batch", stage.batch, 1)
    at_least(f"{where}.share", stage.share, 1)
    if stage.batch % stage.share:
        raise RecipeError(
            f"{where}.share", f"{stage.share} tasks on one context do not divide a batch of {stage.batch}"
        )


def _check_optim(where: str, stage: TrainingSpec) -> None:
    optim = stage.optim
    above(f"{where}.optim.lr", optim.lr, 0)
    above(f"{where}.optim.muon_lr", optim.muon_lr, 0)
    for i, beta in enumerate(optim.betas):
        if not 0 <= beta < 1:
            raise RecipeError(f"{where}.optim.betas.{i}", f"must be at least 0 and less than 1, found {beta}")
    at_least(f"{where}.optim.weight_decay", optim.weight_decay, 0)
    above(f"{where}.optim.clip_norm", optim.clip_norm, 0)
    at_least(f"{where}.optim.warmup", optim.warmup, 0)
    within(f"{where}.optim.decay", optim.decay, 0, 1)
    within(f"{where}.optim.least", optim.least, 0, 1)
    check_schedule(f"{where}.optim", stage)
