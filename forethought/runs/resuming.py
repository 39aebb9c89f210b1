"""Where a run goes on: everything that it left is looked at before anything trains, and what is damaged is
named, with what to do.

What decides the training (recipe, checkpoint, logs, guided data, lists of grams) has to be what was written.
What is only shown (trees and their images, the summary) may be damaged: that is a note, and a decision on
record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forethought.core import consent
from forethought.core.errors import CheckpointError, RecipeError, UserError, quoted
from forethought.core.printable import cut
from forethought.recipe.code import code_in
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.layout import weights_of
from forethought.recipe.load import CHANGES
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.report.settings import differences
from forethought.runs import changes, handover, rundata
from forethought.runs.progress import Progress
from forethought.runs.recording import strange_guided
from forethought.store import FILES, METRICS, RECIPE, SHOWN, START, Store, verify
from forethought.store.checkpoints import STATE
from forethought.store.files import read_object

NOTHING = {"logs": {}, "step": -1}  # the state of a run without a checkpoint


@dataclass(slots=True)
class Left:
    """What a run has left. `folder` None: there is no checkpoint, the run begins. `notes`: what is damaged,
    and does not matter to the training."""

    folder: Path | None
    state: Mapping
    progress: Progress
    notes: list[str] = field(default_factory=list)


def recipe_of(store: Store, changed_code: bool = False) -> Recipe:
    """What recipe.json says. UserError where it says nothing (the newest checkpoint knows what it was), and
    for code that has changed (unless `changed_code` accepts that), or to which nobody has consented."""
    try:
        said = read_object(store.out / RECIPE)
        tables = {key: value for key, value in said.items() if key != CHANGES}
        rundata.refuse_strange_code(store.out, tables, changed_code)
        return from_dict(tables)
    except (ValueError, RecipeError) as error:
        known = [store.folder(step) / STATE for step in store.steps()[-1:]]
        where = f'; {known[0]} holds it under "recipe"' if known else ""
        what = f"does not hold a recipe ({error})" if isinstance(error, RecipeError) else str(error)
        raise UserError(f"{store.out / RECIPE} {what}: put it back as it was{where}") from None


def find(store: Store, recipe: Recipe) -> Left:
    """The newest checkpoint of a run, and that all belongs together. Changes nothing. UserError or
    CheckpointError for what does not."""
    steps = store.steps()
    if not steps:
        return _from_the_beginning(store, recipe)
    step = steps[-1]
    folder = store.folder(step)
    good = lambda s: (
        not (
            verify(store.folder(s))
            or _unreadable(store, s)
            or _foreign(store, s, recipe)
            or _damage(store, s)
        )
    )  # noqa: E731
    if problem := verify(folder) or _unreadable(store, step):
        raise CheckpointError(f"checkpoint {folder} is damaged ({problem}); {store.way_back(step, good)}")
    if differs := _foreign(store, step, recipe):
        way = store.way_back(step, good)
        if "delete" not in way and not (store.begun_with() and store.has_its_recipe()):
            raise UserError(_edited(store, differs))
        raise CheckpointError(f"checkpoint {folder} is of another run ({differs}); {way}")
    if problem := _damage(store, step):
        raise CheckpointError(f"{problem}; {store.way_back(step, good)}")
    state = _state(store, step)
    return Left(
        folder=folder, state=state, progress=Progress.read(state["progress"]), notes=_notes(store, state)
    )


def _from_the_beginning(store: Store, recipe: Recipe) -> Left:
    if store.begun_with() and not store.has_its_recipe():
        raise UserError(f"{_edited(store, '')}. Nothing was trained yet")
    for name, wrong in store.damaged_files(None).items():
        if name.startswith("grams/"):
            raise UserError(
                f"{store.out / name} {wrong}: put it back, or start a new run. Nothing was trained yet"
            )
    if (last := store.last_logged()) > 0:  # the first checkpoint is written before the first step
        raise CheckpointError(
            f"{store.checkpoints} holds no checkpoint, and {METRICS} goes to step {last}: put the "
            f"checkpoints back, or start a new run: forethought train {quoted(store.out)} --out NEW"
        )
    return Left(folder=None, state=NOTHING, progress=Progress(policies=handover.first_policies(recipe)))


def _unreadable(store: Store, step: int) -> str:
    """Why the loop's state in a whole checkpoint says nothing to this version, in a clause, or ""."""
    try:
        Progress.read(_state(store, step)["progress"])
    except ValueError as error:
        return f"{STATE} {error}"
    return ""


def _damage(store: Store, step: int) -> str:
    """What the run has lost of its records as a readable checkpoint knows them, or "". What is only shown is
    none of this: nothing trains on it."""
    state = _state(store, step)
    for name, wrong in store.damaged_logs(state).items():
        return f"{store.out / name} is damaged: it {wrong} when step {step} was saved"
    for name, wrong in store.damaged_files(state).items():
        if not name.startswith(SHOWN):
            return f"{store.out / name} is damaged: it {wrong}"
    return ""


def _foreign(store: Store, step: int, recipe: Recipe) -> str:
    """Where a readable checkpoint was written with another recipe, or "". A finished run may be extended by
    further stages."""
    state = _state(store, step)
    progress = Progress.read(state["progress"])
    if progress.stage > len(recipe.stage) or (progress.stage == len(recipe.stage) and not progress.finished):
        return f"it is in stage {progress.stage + 1}, {RECIPE} has {len(recipe.stage)}"
    if "recipe" not in state:
        return ""
    consent.need(code_in(state["recipe"]), store.folder(step))
    try:
        before = from_dict(state["recipe"])
    except RecipeError as error:
        return f"its recipe: {error}"
    # from before a change of the recipe, which recipe.json tells of
    if store.has_its_recipe() and before in changes.earlier(store, recipe):
        return ""
    ended = progress.finished and progress.stage == len(before.stage)
    if before == recipe or (ended and not unlike(before, recipe) and store.has_its_recipe()):
        return ""  # where run.json does not fit, recipe.json was changed by hand: `extend` writes both
    rows = differences([to_dict(before), to_dict(recipe)])
    told = [
        f"{row['key']}: {cut(repr(row['values'][0]))} there, {cut(repr(row['values'][1]))} in {RECIPE}"
        for row in rows[:4]
    ]
    return "; ".join(told) + (f"; and {len(rows) - 4} more" if len(rows) > 4 else "")


def _state(store: Store, step: int) -> dict:
    return read_object(store.folder(step) / STATE)


def unlike(before: Recipe, recipe: Recipe) -> str:
    """In what the first stages of `recipe` would not be those of `before`, or ""."""
    n = len(before.stage)
    for key in ("seed", "task", "model", "planner", "adapter", "engine", "eval", "probes", "save"):
        if getattr(before, key) != getattr(recipe, key):
            return f"{key} differs"
    if before.stage != recipe.stage[:n] or n >= len(recipe.stage):
        return f"its {n} stages are not the first of the {len(recipe.stage)} here"
    if before.layout != recipe.layout and any(
        weights_of(r, stage) != "base"
        for r in (before, recipe)
        for stage in r.stage[:n]
        if isinstance(stage, TrainingSpec)
    ):
        return f'layout "{before.layout}" gave roles weights of their own'
    return ""


def _edited(store: Store, differs: str) -> str:
    return (
        f"{store.out / RECIPE} is not the recipe that the run was trained "
        f"with{f' ({differs})' if differs else ''}: a run keeps its recipe. Put it back, or train this one "
        f"as a run of its own: forethought train {quoted(store.out)} --out NEW"
    )


def _notes(store: Store, state: Mapping) -> list[str]:
    notes = []
    if "recipe" not in state:
        notes.append(
            f"{store.out} was made before records were checked: its {RECIPE}, logs and trees are "
            f"taken as they are"
        )
    if "recipe" in state and not store.begun_with():
        notes.append(f"{START} is missing or unreadable; it is written again")
    if bad := store.damaged_files(state):
        name, wrong = next(iter(bad.items()))
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        notes.append(f"{name} {wrong}{more}: the report leaves it out, the training does not read it")
    if strange := [*store.strange_trees(), *strange_guided(store.out)]:
        notes.append(f"{strange[0].relative_to(store.out)} is not a file of this run and is left alone")
    if over := store.passed_over():
        notes.append(over)
    return notes


def ensure_records(store: Store, state: Mapping) -> None:
    """After the logs were cut back: a run from before has its trees put on record, as they are."""
    if not store.begun_with():
        store.write_start()
    if FILES not in state["logs"] and state["step"] >= 0:
        for path in sorted((store.out / "trees").glob("step-*.jsonl.gz")):
            if path not in store.strange_trees():
                store.record(path)
