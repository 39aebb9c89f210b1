"""`ft.train`: a recipe becomes a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forethought.api.callbacks import AnyCallback, CallbackError, Watching
from forethought.api.functions import hold, with_names
from forethought.api.given import Located, Overrides, beside_a_loop, path_of, written
from forethought.api.opened import Run
from forethought.core.consent import trusting
from forethought.core.errors import Asked, Interrupted, UserError, quoted
from forethought.core.types import Event
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.runs.interrupts import Wish
from forethought.store import free_directory, is_new

if TYPE_CHECKING:
    from forethought.runs.run import EngineOf
    from forethought.runs.runner import Result


def train(
    recipe: str | PathLike[str] | Mapping[str, Any] | Recipe = "desk",
    *,
    out: str | PathLike[str] | None = None,
    overrides: Overrides = (),
    model: str | PathLike[str] | None = None,
    seed: int | None = None,
    gates: bool = True,
    as_written: bool = False,
    callbacks: Sequence[AnyCallback] = (),
    resume: str | PathLike[str] | Located | None = None,
    changed_code: bool = False,
    progress: bool = True,
    trust_code: bool = False,
    functions: Sequence[Callable[..., Any]] = (),
    engine_of: EngineOf | None = None,
) -> Run:
    """Train a recipe, stage by stage, and return the run.

    `recipe`: the name of a shipped one, a TOML file, a run whose recipe is taken, the tables of a recipe as a
    dict, or a `Recipe`. `out`: its directory (None: runs/NAME-N). `overrides`: changes of single values.
    `model`: start from this model; where the recipe was written for one from scratch, rates and sizes become
    those of a trained one, which `as_written` prevents. `gates` False: without the recipe's gates. `resume`:
    continue this run instead; then only `callbacks`, `progress` and `overrides` that do not touch what is
    done are taken, and `changed_code`: go on with code of the recipe's that has changed since the run began.
    In tables a function or class may stand where a recipe names one (`functions.py`); `functions`, for
    `resume`: those that the run was given so and that no file holds.
    `progress` False: nothing is printed. `trust_code`: run the code that somebody else's run names.

    A run that a callback stopped is returned, with `status` "interrupted". Raises what the command line says
    in one line: UserError (RecipeError with the address of a value), CallbackError, GateStop where a gate
    stops the run, Interrupted for Ctrl-C. Whatever is raised, what was written stays and can be resumed.
    """
    with trusting(trust_code):
        if resume is not None:
            given = {"out": out, "model": model, "seed": seed, "recipe": None if recipe == "desk" else recipe}
            extra = [name for name, value in given.items() if value is not None] + (
                [] if gates else ["gates"]
            )
            if extra:
                raise UserError(
                    f"resume continues a run with the recipe it began with, so it takes no {', '.join(extra)}"
                )
            where = path_of(resume)
            hold(functions)
            changes = {"overrides": written(overrides), "changed_code": changed_code}
            return _go(where, None, changes, callbacks, progress, engine_of)
        if changed_code:
            raise UserError("changed_code is for resume: a new run begins with the code as it is")
        found, told = fitted_of(recipe, overrides, model, seed, gates, as_written)
        where = free_directory(found.name) if out is None else Path(out)
        if not is_new(where):
            begun = (where / "recipe.json").is_file()
            way = f"continue that run with ft.train(resume={str(where)!r}), or choose" if begun else "choose"
            raise UserError(f"{where} is not empty; {way} another out")
        return _go(where, found, {"notes": [told]} if told else {}, callbacks, progress, engine_of)


def recipe_of(
    recipe: str | PathLike[str] | Mapping[str, Any] | Recipe,
    overrides: Overrides = (),
    model: str | PathLike[str] | None = None,
    seed: int | None = None,
    gates: bool = True,
) -> Recipe:
    """The recipe that `train` would run. RecipeError for the first value that does not fit."""
    return fitted_of(recipe, overrides, model, seed, gates)[0]


def fitted_of(
    recipe: str | PathLike[str] | Mapping[str, Any] | Recipe,
    overrides: Overrides = (),
    model: str | PathLike[str] | None = None,
    seed: int | None = None,
    gates: bool = True,
    as_written: bool = False,
) -> tuple[Recipe, str]:
    """(the recipe that `train` would run; what its model has changed in it, in a line, "" for nothing)."""
    from forethought.estimate.for_model import for_model
    from forethought.recipe.load import load, of_tables, override, written_in, written_of
    from forethought.recipe.roles import names_workflow
    from forethought.tasks.families import check_recipe

    said = written(overrides)
    own = frozenset(text.partition("=")[0].strip() for text in said)
    if isinstance(recipe, Recipe):  # every value is his own
        found, as_written = override(recipe, said), True
    elif isinstance(recipe, Mapping):
        tables = with_names(recipe)
        own |= written_of(tables)
        found = override(of_tables(tables, Path.cwd()), said, chosen=names_workflow(tables))
    else:
        found, own = load(str(recipe), said), written_in(str(recipe), said)
    told = ""
    if model is not None:
        found, told = for_model(found, str(model), ["model.path"] if as_written else own)
    if seed is not None:
        found = replace(found, seed=seed)
    if not gates:
        stages = (
            replace(stage, gates=()) if isinstance(stage, TrainingSpec) else stage for stage in found.stage
        )
        found = replace(found, stage=tuple(stages))
    check_recipe(found)
    return found, told


def _go(
    out: Path,
    recipe: Recipe | None,
    changes: Mapping[str, Any],
    callbacks: Sequence[AnyCallback],
    progress: bool,
    engine_of: EngineOf | None,
) -> Run:
    """Train `recipe`, None: resume, in `out`; callbacks hear of it to its end."""
    from forethought import display

    wish = Wish()
    watching = Watching(callbacks, out, wish)
    if progress:
        with display.choose(sys.stdout, plain=False) as shown:
            return _watched(out, recipe, changes, watching, [shown, watching], engine_of)
    return _watched(out, recipe, changes, watching, [watching], engine_of)


def _watched(
    out: Path,
    recipe: Recipe | None,
    changes: Mapping[str, Any],
    watching: Watching,
    observers: Sequence[Callable[[Event], None]],
    engine_of: EngineOf | None,
) -> Run:
    from forethought.runs import run

    def observe(event: Event) -> None:
        for one in observers:
            one(event)

    engine: dict[str, Any] = {} if engine_of is None else {"engine_of": engine_of}

    def work() -> Result:
        if recipe is None:
            return run.resume(out, observe, wish=watching.wish, **changes, **engine)
        return run.train(recipe, out, observe, wish=watching.wish, **changes, **engine)

    status, values = "stopped", {}
    try:
        result = beside_a_loop(work, watching.wish)
        status, values = result.status, result.values
    except (Asked, Interrupted) as error:
        status = "interrupted"
        if isinstance(error, Interrupted):
            raise
    finally:
        if watching.last is not None:  # else nothing has begun
            watching.end(status, values)
    if watching.fault is not None:
        more = "" if status == "done" else f"; continue with: forethought train --resume {quoted(out)}"
        raise CallbackError(f"{watching.said}; everything is saved in {out}{more}") from watching.fault
    return Run(out)
