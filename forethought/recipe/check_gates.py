"""What a stage's end and its gates may read, and what they compare it with."""

from __future__ import annotations

from forethought.core.errors import RecipeError, unknown
from forethought.recipe.check_isolation import check_after
from forethought.recipe.check_roles import OVERALL
from forethought.recipe.ranges import at_least, listed
from forethought.recipe.schema import GateSpec, Recipe, TrainingSpec, UntilSpec
from forethought.recipe.speaking import roles_of

# what an evaluation measures beside the roles, as eval/<name> and eval/<name>@<level>
EVALS = (OVERALL, "executable", "goal")
METRIC_FAMILIES = (
    "eval",
    "eval_failed",
    "eval_grounding",
    "eval_reward",
    "eval_score",
    "entropy",
    "reward",
    "reward_std",
    "loss",
    "kl",
    "format",
    "failed",
    "truncated",
    "refused",
    "overlong",
    "gap",
    "grad",
    "grad_norm",
    "clip",
    "tokens",
    "groups",
    "probe",
    "probe_rel",
    "interference",
    "conflict",
    "meaning",
    "phase",
    "hicra",
)


def measurements(recipe: Recipe) -> tuple[str, ...]:
    """What an evaluation can measure: each role under the oracle's turns before it, and all together."""
    return (*roles_of(recipe), *EVALS)


def eval_levels(recipe: Recipe) -> tuple[int, ...]:
    """The levels that an evaluation covers; empty: the taskset's own, which the recipe does not know."""
    return recipe.eval.levels or recipe.task.levels


def check_until(where: str, until: UntilSpec, recipe: Recipe) -> None:
    """RecipeError for an end of a stage that is incomplete, out of range, or reads a metric nobody
    measures."""
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


def check_gate(where: str, gate: GateSpec, stage: TrainingSpec, recipe: Recipe) -> None:
    """RecipeError for a gate without exactly one condition, or with a metric that is not measured."""
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
