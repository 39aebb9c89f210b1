"""A run that goes on with some of its recipe changed (`train --resume RUN --set stage.1.until.steps=300`),
where that touches nothing that is done.

recipe.json then holds the recipe as it is now, and under "changes" what stood there before: at which step,
and each key with its two values. A checkpoint holds the recipe that it was written with, so one from before a
change is recognised by taking the change back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.core import consent
from forethought.core.errors import UserError, quoted
from forethought.core.jsonl import parse_lines
from forethought.core.types import Decision
from forethought.learn.schedule import lr_scale
from forethought.recipe.check import check
from forethought.recipe.code import code_in
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.load import CHANGES, override, write_resolved
from forethought.recipe.schema import Recipe, StageSpec, TrainingSpec
from forethought.report.settings import MISSING, differences
from forethought.runs import rundata
from forethought.runs.progress import Progress
from forethought.store import DECISIONS, RECIPE, Store
from forethought.store.files import read_object

FREE = (
    "save.",
    "limits.",
    "eval.every",
    "max_bad_updates",
    "trackers",
)  # nothing that is done depends on them
OF_BEGUN = ("until.", "gates")  # keys of a stage that goes on, which are read at its next evaluations
OF_STEPS = (*OF_BEGUN, "tree.", "reward.", "batch", "share")  # which only steps read: free until one is done
NEVER = ("kind", "credit.grams", "distill")  # of a stage that has not begun: what was prepared at the start
WHY = {
    "seed": "everything that was drawn came from it",
    "task": "what is done was learned from these tasks",
    "model": "the run began with this model",
    "planner": "the run began with this model",
    "adapter": "adapters have this shape already",
    "layout": "who holds which weights was decided at the start",
    "roles": "who holds which weights was decided at the start",
    "workflow": "what is done was said in this order",
    "engine": "it changes the bits of what is computed; a resumed run keeps what it began with",
    "eval": "the stage's start was measured with it, and changes are measured against that",
    "probes": "what was probed so far was probed with it",
}


def changed(recipe: Recipe, overrides: Sequence[str], at: Progress, out: Path) -> tuple[Recipe, list[dict]]:
    """(the recipe with the changes, [{"key", "values": [before, now]}]). UserError for the first key that
    cannot be changed where the run stands, with the reason; RecipeError for a value that does not fit."""
    new = override(recipe, overrides)
    rows = differences([to_dict(recipe), to_dict(new)])
    if not rows:
        return recipe, []
    new_run = f"train this one as a run of its own: forethought train {quoted(out)} --set ... --out NEW"
    if at.finished and at.stage >= len(recipe.stage):
        raise UserError(f"{rows[0]['key']}: {out} is finished, and its optimizers are gone; {new_run}")
    for row in rows:
        if why := _refused(row["key"], recipe, new, at):
            raise UserError(f"{row['key']} cannot be changed in {out}: {why}; {new_run}")
    check(new)
    return new, rows


def _refused(key: str, recipe: Recipe, new: Recipe, at: Progress) -> str:
    """Why a key cannot be changed at this point of the run, or ""."""
    if key.startswith(FREE):
        return ""
    first, _, rest = key.partition(".")
    if first != "stage":
        return WHY.get(first, "what is done depends on it")
    number, _, inner = rest.partition(".")
    if len(new.stage) != len(recipe.stage) or not number.isdecimal():
        return "a run has the stages that it began with"
    n = int(number)
    if inner.startswith("gates") and len(new.stage[n].gates) != len(recipe.stage[n].gates):
        return "a stage has the gates that it began with; their numbers can be changed"
    if n < at.stage:
        return f"stage {n} has ended"
    if n > at.stage or not at.begun:
        return "the run has prepared it at its start" if inner.startswith(NEVER) else ""
    if not inner.startswith(OF_BEGUN if at.stage_step else OF_STEPS):
        return f"stage {n} has begun with it (step {at.stage_step} of {recipe.stage[n].steps})"
    return _other_past(recipe.stage[n], new.stage[n], at.stage_step) if inner == "until.steps" else ""


def _other_past(before: StageSpec, now: StageSpec, done: int) -> str:
    """Why a stage of another length would have gone otherwise so far, or "": its rate falls towards its end,
    and easy levels are a share of it."""
    if now.steps <= done:
        return f"{done} of its steps are done, so it has at least {done + 1}"
    if not (isinstance(before, TrainingSpec) and isinstance(now, TrainingSpec)):
        return ""
    scales = [[lr_scale(one.optim, step, one.steps) for step in range(done)] for one in (before, now)]
    if scales[0] != scales[1]:
        return f"optim.schedule follows the stage's length: of {now.steps}, the first {done} have other rates"
    easy = [min(done, round(one.easy_first * one.steps)) for one in (before, now)]
    if easy[0] != easy[1]:
        return (
            f"easy_first follows the stage's length: of {now.steps} steps the first {done} draw other levels"
        )
    return ""


# ---- what the run keeps of it


def write(store: Store, recipe: Recipe, rows: Sequence[Mapping[str, Any]], step: int) -> None:
    """The recipe as it is now, and the change. A run that is killed in between has one or the other."""
    said = [*of(store), {"step": step, "set": {row["key"]: list(row["values"]) for row in rows}}]
    consent.remember(code_in(to_dict(recipe)))
    store.expect_recipe({**to_dict(recipe), CHANGES: said})
    write_resolved(recipe, store.out / RECIPE, {CHANGES: said})
    store.write_start()


def of(store: Store) -> list[dict[str, Any]]:
    """The changes that recipe.json tells of, in order."""
    said = read_object(store.out / RECIPE).get(CHANGES, [])
    whole = isinstance(said, list) and all(
        isinstance(one, dict) and isinstance(one.get("step"), int) and isinstance(one.get("set"), dict)
        for one in said
    )
    if not whole:
        raise ValueError(f"has something else than changes under {CHANGES!r}")
    return said


def earlier(store: Store, recipe: Recipe) -> list[Recipe]:
    """The recipe before its last change, before its last two, and so on to the first one."""
    tables, found = to_dict(recipe), []
    for change in reversed(of(store)):
        for key, (before, _) in change["set"].items():
            _put(tables, key, before)
        consent.need(code_in(tables), store.out)
        found.append(from_dict(tables))
    return found


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    node: Any = tables
    for name in above:
        node = node[int(name)] if isinstance(node, list) else node[name]
    if value == MISSING:
        node.pop(last, None)
    else:
        node[int(last) if isinstance(node, list) else last] = value


def sentences(change: Mapping[str, Any]) -> list[str]:
    """A change in words, a sentence a key."""
    return [
        f"{key}: {before} before, {now} from step {change['step']} on"
        for key, (before, now) in change["set"].items()
    ]


def record(store: Store, recipe: Recipe, at: Progress) -> list[str]:
    """A decision for every change of the recipe or its code that the log does not hold: a new one, or one
    that was made after the checkpoint to which the log was cut back. Returns them in words."""
    path, known = store.out / DECISIONS, set()
    if path.is_file():
        rows, _ = parse_lines(path.read_bytes().splitlines(keepends=True), path, lambda row: "")
        known = {row.get("reason") for row in rows}
    told = [(one["step"], "change", text) for one in of(store) for text in sentences(one)]
    told += [(step, "changed code", text) for step, text in rundata.accepted(store.out)]
    new = [one for one in told if one[2] not in known]
    for step, outcome, text in new:
        store.decide(
            Decision(
                step=step,
                stage=min(at.stage, len(recipe.stage) - 1),
                kind="run",
                name=recipe.name,
                outcome=outcome,
                reason=text,
            )
        )
    return [text for _, _, text in new]
