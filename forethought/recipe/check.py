"""Refuse what cannot work together, with the reason, before anything heavy starts.

Keys, types and choices are `load`'s business; here are ranges and combinations. A domain checks its own
levels and options.
"""

from __future__ import annotations

import re
from dataclasses import fields

from forethought.core.errors import RecipeError, unknown
from forethought.recipe.bounds import WHOLE
from forethought.recipe.check_isolation import check_after, check_isolation, check_probes

# named here too: this is the module that others read
from forethought.recipe.check_loss import check_loss
from forethought.recipe.check_reinforce import CREDITS as CREDITS
from forethought.recipe.check_reinforce import check_reinforce
from forethought.recipe.check_roles import OVERALL, check_roles
from forethought.recipe.layout import BASE, OWN, given, has_planner, policy_of, trains_whole, weights_of
from forethought.recipe.ranges import above, at_least, known_levels, listed, one_per_level, within
from forethought.recipe.roles import frozen_in
from forethought.recipe.schema import DistillSpec, GateSpec, ModelSpec, Recipe, StageSpec, UntilSpec
from forethought.recipe.speaking import CONTINUES, roles_of

MOST_THREADS = 1024  # beyond it a process only fails to start them
# what an evaluation measures beside the roles, as eval/<name> and eval/<name>@<level>
EVALS = (OVERALL, "executable", "goal")
METRIC_FAMILIES = (
    "eval",
    "eval_failed",
    "entropy",
    "reward",
    "loss",
    "kl",
    "format",
    "failed",
    "truncated",
    "refused",
    "overlong",
    "gap",
    "grad",
    "groups",
    "probe",
    "probe_rel",
    "interference",
    "conflict",
    "meaning",
    "phase",
    "hicra",
)
REINFORCE_ONLY = (
    "reward",
    "parts",
    "shaping",
    "tree",
    "credit",
    "loss_norm",
    "ref_kl",
    "updates",
    "dynamic_sampling",
    "skip_zero",
)


def check(recipe: Recipe) -> None:
    """Raise RecipeError, with the address of the value to change, for the first thing in `recipe` that cannot
    work."""
    if not recipe.stage:
        raise RecipeError(
            "stage", 'a recipe needs at least one stage: [[stage]] with kind = "imitate" or "reinforce"'
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.name):
        raise RecipeError(
            "name", f"{recipe.name!r} names run directories: use letters, digits, '.', '_' and '-'"
        )
    within("seed", recipe.seed, -WHOLE, WHOLE - 1)
    at_least("max_bad_updates", recipe.max_bad_updates, 1)
    check_surroundings(recipe)
    for i, stage in enumerate(recipe.stage):
        _check_stage(f"stage.{i}", stage, recipe)
    _check_order(recipe)


def check_surroundings(recipe: Recipe) -> None:
    """What a recipe says beside its stages: the roles, the task, its evaluation, model and machine. All that
    looking at a model needs."""
    check_roles(recipe)
    _check_task_and_eval(recipe)
    _check_machine(recipe)


def measurements(recipe: Recipe) -> tuple[str, ...]:
    """What an evaluation can measure: each role under the oracle's turns before it, and all together."""
    return (*roles_of(recipe), *EVALS)


def eval_levels(recipe: Recipe) -> tuple[int, ...]:
    """The levels that an evaluation covers; empty: the domain's own, which the recipe does not know."""
    return recipe.eval.levels or recipe.task.levels


def _check_task_and_eval(recipe: Recipe) -> None:
    task, evaluation, save = recipe.task, recipe.eval, recipe.save
    for key in ("name", "levels", "options"):
        if key in task.options:
            raise RecipeError(
                f"task.{key}", "is a key of every task, so a domain's option cannot have this name"
            )
    known_levels("task.levels", task.levels, (), "")
    known_levels("eval.levels", evaluation.levels, task.levels, "task.levels")
    at_least("eval.tasks", evaluation.tasks, 1)
    at_least("eval.every", evaluation.every, 0)
    check_probes(recipe)
    at_least("save.every", save.every, 1)
    at_least("save.keep", save.keep, 1)
    at_least("save.trees_every", save.trees_every, 0)
    at_least("save.trees", save.trees, 0)
    at_least("limits.step_seconds", recipe.limits.step_seconds, 0)
    at_least("limits.episode_seconds", recipe.limits.episode_seconds, 0)
    at_least("limits.at_once", recipe.limits.at_once, 1)
    within("limits.max_failed", recipe.limits.max_failed, 0, 1)
    at_least("limits.window", recipe.limits.window, 1)


def _check_machine(recipe: Recipe) -> None:
    engine, adapter = recipe.engine, recipe.adapter
    if not given(recipe.model):
        raise RecipeError(
            "model", 'nothing to start from: give init = "small" or path = "a model on disk or on the hub"'
        )
    if not has_planner(recipe) and recipe.planner != ModelSpec(init=""):
        raise RecipeError(
            "planner",
            'has settings but nothing to start from: add init = "small" or path = '
            '"a model on disk or on the hub"',
        )
    if has_planner(recipe) and recipe.layout != "models":
        raise RecipeError(
            "planner", f'layout "{recipe.layout}" has one base; a planner of its own needs layout = "models"'
        )
    if has_planner(recipe) and bool(recipe.planner.path) != bool(recipe.model.path):
        raise RecipeError(
            "planner",
            "a model from scratch and one from a path have different tokenizers; "
            "give both a path, or neither",
        )
    for name, model in (("model", recipe.model), ("planner", recipe.planner)):
        for key in ("layers", "width", "heads", "mlp", "vocabulary"):
            at_least(f"{name}.{key}", getattr(model, key), 1)
        if model.width % (2 * model.heads):  # rotary positions turn pairs of a head's numbers
            raise RecipeError(
                f"{name}.width", f"{model.width} must divide into {model.heads} heads of an even width"
            )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", engine.device):
        raise RecipeError(
            "engine.device", unknown("device", engine.device, ("auto", "cpu", "cuda", "cuda:0"))
        )
    if engine.weights == "bf16" and trains_whole(recipe):
        raise RecipeError(
            "engine.weights",
            "a stage trains whole models here, and most updates of a small "
            "learning rate are lost in bf16 "
            'weights; use "auto" (fp32, computed with in bf16), or train '
            'adapters (layout = "adapters")',
        )
    within("engine.threads", engine.asked, 0, MOST_THREADS)
    kernel_threads = 1 if engine.kernel_threads == "auto" else engine.kernel_threads
    within("engine.kernel_threads", kernel_threads, 1, MOST_THREADS)
    at_least("engine.pack_tokens", engine.tokens, 1)
    at_least("engine.sample_rows", engine.rows, 1)
    at_least("engine.prefix_cache", 0 if engine.prefix_cache == "auto" else engine.prefix_cache, 0)
    at_least("adapter.rank", adapter.rank, 1)
    above("adapter.alpha", adapter.alpha, 0)


def _check_stage(where: str, stage: StageSpec, recipe: Recipe) -> None:
    if stage.kind == "distill":
        _check_distill(where, stage, recipe)
        return
    if stage.distill != DistillSpec():
        raise RecipeError(
            f"{where}.distill",
            f'{stage.kind} does not read it; take it out, or make the stage kind = "distill"',
        )
    _check_trained(where, stage, roles_of(recipe))
    _check_weights(where, stage, recipe)
    _check_until(f"{where}.until", stage.until, recipe)
    _check_mix(where, stage, recipe)
    _check_optim(where, stage)
    check_loss(where, stage)
    for i, gate in enumerate(stage.gates):
        _check_gate(f"{where}.gates.{i}", gate, stage, recipe)
    if stage.kind == "imitate":
        _check_imitate(where, stage, recipe)
    else:
        check_reinforce(where, stage, roles_of(recipe), CONTINUES.get(recipe.workflow.name, {}))
    check_isolation(where, stage, recipe)


def _check_distill(where: str, stage: StageSpec, recipe: Recipe) -> None:
    """Nothing trains in it; what it distils with is the business of the task family."""
    if stage.distill.solver == "policy" and len(roles_of(recipe)) != 2:
        raise RecipeError(
            f"{where}.distill.solver",
            f'"policy" acts in the last role under a plan that the first one says, and {recipe.workflow.name} '
            f'speaks {listed(roles_of(recipe))}; take "exact" or "none"',
        )
    default = StageSpec(kind="distill", name=stage.name, distill=stage.distill, roles=roles_of(recipe))
    for field in fields(StageSpec):
        if getattr(stage, field.name) != getattr(default, field.name):
            raise RecipeError(
                f"{where}.{field.name}", "distill trains nothing and does not read it; take it out"
            )


def _check_trained(where: str, stage: StageSpec, roles: tuple[str, ...]) -> None:
    if not stage.roles:
        raise RecipeError(f"{where}.roles", f"a stage trains at least one role (known: {', '.join(roles)})")
    for i, role in enumerate(stage.roles):
        if role not in roles:
            raise RecipeError(f"{where}.roles.{i}", unknown("role", role, roles))
        if role in stage.roles[:i]:
            raise RecipeError(f"{where}.roles.{i}", f"role {role!r} is listed twice")


def _check_weights(where: str, stage: StageSpec, recipe: Recipe) -> None:
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
            f' (in layout "mixed" the base speaks as {roles_of(recipe)[-1]}, and only the roles before it have '
            "weights of their own)"
            if recipe.layout == "mixed"
            else ""
        )
        raise RecipeError(
            f"{where}.weights",
            f"the base lies under the weights of every role, so training it for {listed(stage.roles)} would "
            f"move the frozen "
            f"{listed(frozen)}{acts}; train all roles on the base, or use the role's own weights "
            '(where sharing is the point: layout = "shared")',
        )


def _shares_base(recipe: Recipe, role: str) -> bool:
    """Whether its row says so; in layout "mixed" a stage may still give it weights of its own."""
    return recipe.layout != "mixed" and recipe.layout != "shared" and policy_of(recipe, role) == BASE


def _check_order(recipe: Recipe) -> None:
    """The base is finished before the first adapter lies on it, or the first model is copied from it."""
    own = None
    for i, stage in enumerate(recipe.stage):
        if stage.kind == "distill":
            continue
        if weights_of(recipe, stage) != "base":
            own = i if own is None else own
        elif own is not None and recipe.layout != "shared":
            raise RecipeError(
                f"stage.{i}.weights",
                f"stage.{own} has given a role weights of its own from this base, and training the base now "
                f"would move it under them; "
                'train the base first, or use "auto"',
            )


def _check_until(where: str, until: UntilSpec, recipe: Recipe) -> None:
    at_least(f"{where}.steps", until.steps, 1)
    at_least(f"{where}.patience", until.patience, 1)
    bounds = {"at_least": until.at_least, "at_most": until.at_most}
    given = {key: bound for key, bound in bounds.items() if bound is not None}
    if given and not until.metric:
        raise RecipeError(
            f"{where}.metric", f"{listed(list(given))} needs a metric to compare, such as eval/plan"
        )
    if not until.metric:
        return
    if not given:
        raise RecipeError(where, f"metric {until.metric!r} needs at_least or at_most")
    if recipe.eval.every == 0:
        raise RecipeError(
            "eval.every",
            f"0 leaves no evaluation inside a stage, so {where}.metric could never end it earlier",
        )
    _check_metric(f"{where}.metric", until.metric, recipe)
    _check_shares(where, until.metric, given)


def _check_mix(where: str, stage: StageSpec, recipe: Recipe) -> None:
    """Which tasks a step draws."""
    levels = stage.levels or recipe.task.levels
    known_levels(f"{where}.levels", stage.levels, recipe.task.levels, "task.levels")
    known_levels(f"{where}.easy_levels", stage.easy_levels, levels, "the stage's levels")
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


def _check_optim(where: str, stage: StageSpec) -> None:
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


def _check_gate(where: str, gate: GateSpec, stage: StageSpec, recipe: Recipe) -> None:
    names = ("at_least", "at_most", "max_drop", "max_rise", "max_slope_down")
    given = {name: getattr(gate, name) for name in names if getattr(gate, name) is not None}
    if len(given) != 1:
        found = listed(list(given)) if given else "none"
        raise RecipeError(where, f"a gate has exactly one condition of {', '.join(names)}; found {found}")
    _check_metric(f"{where}.metric", gate.metric, recipe)
    for name, bound in given.items():
        if name.startswith("max_"):
            at_least(f"{where}.{name}", bound, 0)
    _check_shares(where, gate.metric, given)
    if not 0 <= gate.confidence < 1:
        raise RecipeError(
            f"{where}.confidence", f"must be at least 0 and less than 1, found {gate.confidence}"
        )
    at_least(f"{where}.window", gate.window, 2)
    check_after(where, gate, stage, recipe)


def _check_metric(where: str, metric: str, recipe: Recipe) -> None:
    family, _, rest = metric.partition("/")
    if family not in METRIC_FAMILIES:
        raise RecipeError(where, f"{metric!r}: {unknown('family of metrics', family, METRIC_FAMILIES)}")
    if family != "eval":
        return
    name, at, level = rest.partition("@")
    if name not in (known := measurements(recipe)):
        raise RecipeError(where, f"{metric!r}: {unknown('measurement', name, known)}")
    if at and not level.isdecimal():
        raise RecipeError(where, f"{metric!r}: what follows @ is a level, such as eval/{name}@5")
    levels = eval_levels(recipe)
    if at and levels and int(level) not in levels:
        raise RecipeError(
            where, f"{metric!r}: level {level} is not evaluated (levels: {', '.join(map(str, levels))})"
        )


def _check_shares(where: str, metric: str, bounds: dict[str, float]) -> None:
    for name, bound in bounds.items():
        if metric.startswith("eval/") and not 0 <= bound <= 1:
            raise RecipeError(f"{where}.{name}", f"{metric} is a share between 0 and 1, found {bound}")


def _check_imitate(where: str, stage: StageSpec, recipe: Recipe) -> None:
    default = StageSpec()
    for key in REINFORCE_ONLY:
        if getattr(stage, key) != getattr(default, key):
            why = (
                "reads no rewards"
                if key in ("reward", "credit")
                else "samples no trees"
                if key == "tree"
                else "does not read it"
            )
            raise RecipeError(
                f"{where}.{key}", f'imitate {why}; take {key} out, or make the stage kind = "reinforce"'
            )
    for role, shares in stage.loss_share.items():
        here = f"{where}.loss_share.{role}"
        if role not in stage.roles:
            raise RecipeError(here, unknown("role of this stage", role, stage.roles))
        one_per_level(here, shares, stage.levels or recipe.task.levels)
        for i, share in enumerate(shares):
            within(f"{here}.{i}", share, 0, 1)
        if not any(shares):
            raise RecipeError(
                here, f"no {role} token would ever carry loss; take {role!r} out of roles instead"
            )
