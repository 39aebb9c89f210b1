"""Refuse what cannot work together, with the reason, before anything heavy starts.

Keys, types and choices are `load`'s business; here are ranges and combinations, but for what belongs to one
kind of stage (`kinds/`). A taskset checks its own levels and options.
"""

from __future__ import annotations

import re

from forethought.core.errors import RecipeError, unknown
from forethought.core.named import installed, is_known
from forethought.recipe.bounds import WHOLE

# named here too: this is the module that others read
from forethought.recipe.check_gates import EVALS as EVALS
from forethought.recipe.check_gates import eval_levels as eval_levels
from forethought.recipe.check_gates import measurements as measurements
from forethought.recipe.check_isolation import check_probes
from forethought.recipe.check_reinforce import CREDITS as CREDITS
from forethought.recipe.check_roles import check_roles
from forethought.recipe.kinds import mended_by_user
from forethought.recipe.layout import given, has_planner, trains_whole, weights_of
from forethought.recipe.ranges import above, at_least, known_levels, within
from forethought.recipe.schema import ModelSpec, Recipe, TrainingSpec
from forethought.recipe.speaking import PLAN, PLANLESS, roles_of

TRACKERS = ("auto", "tensorboard", "wandb", "trackio", "mlflow")  # rows of runs.trackers
MOST_THREADS = 1024  # beyond it a process only fails to start them


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
    for i, name in enumerate(recipe.trackers):
        if not is_known("trackers", name, TRACKERS):
            raise RecipeError(f"trackers.{i}", unknown("tracker", name, [*TRACKERS, *installed("trackers")]))
    at_least("max_bad_updates", recipe.max_bad_updates, 1)
    check_surroundings(recipe)
    for i, stage in enumerate(recipe.stage):
        with mended_by_user(stage, f"stage.{i}"):
            stage.check(f"stage.{i}", recipe)
    _check_order(recipe)


def check_surroundings(recipe: Recipe) -> None:
    """What a recipe says beside its stages: the roles, the task, its evaluation, model and machine. All that
    looking at a model needs."""
    check_roles(recipe)
    _check_task_and_eval(recipe)
    _check_machine(recipe)


def _check_task_and_eval(recipe: Recipe) -> None:
    task, evaluation, save = recipe.task, recipe.eval, recipe.save
    for key in ("name", "levels", "options"):
        if key in task.options:
            raise RecipeError(
                f"task.{key}", "is a key of every task, so a taskset's option cannot have this name"
            )
    _check_plans(recipe)
    known_levels("task.levels", task.levels, (), "")
    known_levels("eval.levels", evaluation.levels, task.levels, "task.levels")
    at_least("eval.tasks", evaluation.tasks, 1)
    at_least("eval.every", evaluation.every, 0)
    at_least("eval.give_up", evaluation.give_up, 0)
    check_probes(recipe)
    at_least("save.every", save.every, 1)
    at_least("save.keep", save.keep, 1)
    at_least("save.trees_every", save.trees_every, 0)
    at_least("save.trees", save.trees, 0)
    at_least("limits.step_seconds", recipe.limits.step_seconds, 0)
    at_least("limits.episode_seconds", recipe.limits.episode_seconds, 0)
    at_least("limits.at_once", recipe.limits.at_once, 1)
    at_least("limits.open_episodes", recipe.limits.open_episodes, 0)
    within("limits.max_failed", recipe.limits.max_failed, 0, 1)
    at_least("limits.window", recipe.limits.window, 1)


def _check_plans(recipe: Recipe) -> None:
    """These tasksets say whether a plan comes first, and so does the workflow."""
    if recipe.task.name not in PLANLESS:
        return
    roles, name, plan = roles_of(recipe), recipe.workflow.name, recipe.task.options.get(PLAN, "none")
    if (plan == "none") is (PLAN in roles):
        other = 'workflow = "act_only"' if plan == "none" else 'workflow = "plan_then_act"'
        raise RecipeError(
            "task.plan",
            f'"{plan}", but the workflow {name} speaks {", ".join(roles)}; set {other}, or task.plan = '
            f'"{"tags" if plan == "none" else "none"}"',
        )


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
        if model.adapter and not model.path:
            raise RecipeError(
                f"{name}.adapter", f"an adapter lies on a model: give {name}.path = the one it was trained on"
            )
        for key in ("layers", "width", "heads", "mlp", "vocabulary"):
            at_least(f"{name}.{key}", getattr(model, key), 1)
        if not model.path:  # three heads look back, others match what they found in a second layer
            at_least(f"{name}.layers", model.layers, 2)
            at_least(f"{name}.heads", model.heads, 4)
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
            "a stage trains whole models here, and most updates of a small learning rate are lost in bf16 "
            'weights; use "auto" (fp32, computed with in bf16), or train adapters (layout = "adapters")',
        )
    if engine.weights == "nf4":
        _check_four_bits(recipe)
    within("engine.threads", engine.asked, 0, MOST_THREADS)
    kernel_threads = 1 if engine.kernel_threads == "auto" else engine.kernel_threads
    within("engine.kernel_threads", kernel_threads, 1, MOST_THREADS)
    at_least("engine.pack_tokens", engine.tokens, 1)
    at_least("engine.sample_rows", engine.rows, 1)
    at_least("engine.prefix_cache", 0 if engine.prefix_cache == "auto" else engine.prefix_cache, 0)
    at_least("engine.share_from", 0 if engine.share_from == "auto" else engine.share_from, 0)
    at_least("adapter.rank", adapter.rank, 1)
    above("adapter.alpha", adapter.alpha, 0)


def _check_four_bits(recipe: Recipe) -> None:
    if not recipe.model.path:
        raise RecipeError("engine.weights", "nf4 is for a loaded model: give model.path, or leave it out")
    if trains_whole(recipe):
        raise RecipeError(
            "engine.weights",
            "a base in four bits is frozen, and a stage trains whole models here; train adapters "
            '(layout = "adapter", or one for each role: "adapters")',
        )
    if recipe.model.adapter:
        raise RecipeError(
            "engine.weights", "an adapter is not added to a base in four bits; merge it into a folder first"
        )


def _check_order(recipe: Recipe) -> None:
    """The base is finished before the first adapter lies on it, or the first model is copied from it."""
    own = None
    for i, stage in enumerate(recipe.stage):
        if not isinstance(stage, TrainingSpec):
            continue
        if weights_of(recipe, stage) != "base":
            own = i if own is None else own
        elif own is not None and recipe.layout != "shared":
            raise RecipeError(
                f"stage.{i}.weights",
                f"stage.{own} has given a role weights of its own from this base, and training the base now "
                'would move it under them; train the base first, or use "auto"',
            )
