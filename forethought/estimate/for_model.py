"""A recipe for a model from scratch, given one that was trained before: what `recipe.pretrained` says, and an
evaluation that takes no more than a tenth of the time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from forethought.core.errors import UserError
from forethought.engines.gguf_header import lacks_model
from forethought.estimate.account import estimate
from forethought.estimate.hardware import Hardware, cpu, this_machine
from forethought.recipe.pretrained import Changed, fitted, told
from forethought.recipe.schema import Recipe

SHARE = 0.1  # of the time of a run that its evaluations may take
FEWEST = 8  # tasks of a level, below which an evaluation says nothing


def for_model(recipe: Recipe, path: str, written: Collection[str]) -> tuple[Recipe, str]:
    """(the recipe with this model, what has changed in it in one line; "" where nothing has). `written`:
    addresses that the user has set, which stay. A recipe that names a model itself changes nothing but it.
    UserError where the path holds no model."""
    _there(path)
    scratch = not recipe.model.path
    recipe = replace(recipe, model=replace(recipe.model, path=path))
    if not scratch or "model.path" in written:
        return recipe, ""
    changed, done = fitted(recipe, written)
    budget = evaluation_budget(changed, cpu() if recipe.engine.device == "cpu" else this_machine())
    budget = tuple(one for one in budget if one.key not in written)
    evaluation = replace(changed.eval, **{one.key.removeprefix("eval."): one.now for one in budget})
    return replace(changed, eval=evaluation), told((*done, *budget))


def _there(path: str) -> None:
    """UserError for a path without a model; a name is left to the hub."""
    if not path.strip():
        raise UserError("--model is empty; give a folder, a GGUF file, or a name on the hub")
    try:
        lacking = lacks_model(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--model: {path}: {error}") from None
    if lacking:
        raise UserError(
            f"--model: {path} is not a model: "
            + ("it has no config.json" if Path(path).expanduser().exists() else "nothing is there")
            + "; give a folder that `save_pretrained` wrote, a GGUF file, or a hub name"
        )


def evaluation_budget(recipe: Recipe, hardware: Hardware) -> tuple[Changed, ...]:
    """What keeps evaluations within their share of the estimated time: first none inside a stage, then fewer
    tasks of a level, at least `FEWEST`; () where it is kept, or where there is no estimate."""
    own, tried = recipe.eval, recipe
    if _share(recipe, hardware) <= SHARE:
        return ()
    if own.every:
        tried = replace(recipe, eval=replace(own, every=0))
    tasks = own.tasks
    while tasks > FEWEST and _share(tried, hardware) > SHARE:
        tasks = max(FEWEST, tasks // 2)
        tried = replace(tried, eval=replace(tried.eval, tasks=tasks))
    found = (
        Changed(key="eval.every", before=own.every, now=tried.eval.every),
        Changed(key="eval.tasks", before=own.tasks, now=tasks),
    )
    return tuple(one for one in found if one.before != one.now)


def _share(recipe: Recipe, hardware: Hardware) -> float:
    """Of the estimated seconds, those of evaluations; 0 where nothing is known."""
    try:
        account = estimate(recipe, hardware)
    except UserError:  # said where the recipe is checked
        return 0.0
    if account.evaluations is None or not account.hardware.flops:
        return 0.0
    measured = account.evaluations.sampling or 0.0
    whole = measured + sum((one.sampling or 0.0) + (one.training or 0.0) for one in account.stages)
    return measured / whole if whole else 0.0
