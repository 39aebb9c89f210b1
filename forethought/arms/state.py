"""What a job's folder already holds, and what is to be done about it.

Beside the run directory `seed-N` lie its log `seed-N.log` and `seed-N.outcome.json`: how the last process
that worked on it ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from forethought.arms.jobs import Job
from forethought.core.errors import RecipeError, UserError
from forethought.core.printable import cut
from forethought.recipe.convert import to_dict
from forethought.recipe.load import load
from forethought.report.settings import differences
from forethought.runs import rundata
from forethought.store import OWN, Store
from forethought.store.locks import writing

Status = Literal["done", "stopped", "interrupted", "failed", "broken", "killed"]
State = Literal["new", "finished", "begun", "failed", "changed"]
# what a run directory can hold
OURS = {*OWN, "recipe.json.new", "tensorboard", "wandb", "report.html", "error.txt", "data.json"}
FINISHED = ("done", "stopped")  # stopped: by a gate, as the recipe asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a process left its run. killed: it ended without a word (a signal, no memory); broken: code of the
    user's broke. Both runs can be resumed."""

    status: Status
    reason: str = ""
    seconds: float = 0.0

    @property
    def bad(self) -> bool:
        """Whether it counts as a failure; an interrupted or skipped job does not."""
        return self.status in ("failed", "broken", "killed")


def log_of(run: Path) -> Path:
    """Where the output of a job's process is written: next to its run directory, so that a new run finds it
    empty."""
    return run.with_name(run.name + ".log")


def write_outcome(run: Path, outcome: Outcome) -> None:
    """Write how a job ended next to its run directory; read when the same arms are started again."""
    Store(run.parent).write_json(f"{run.name}.outcome.json", asdict(outcome))


def read_outcome(run: Path) -> Outcome | None:
    """None: no process has left a word about this run."""
    try:
        return Outcome(**Store(run.parent).read_json(f"{run.name}.outcome.json"))
    except (OSError, ValueError, TypeError):  # none there, or cut off: as good as none
        return None


def state_of(job: Job) -> State:
    """begun: can be resumed; failed: holds nothing that counts; changed: holds a run of another recipe."""
    last = read_outcome(job.out)
    if last and last.status == "failed":
        return "failed"
    if not (job.out / "recipe.json").is_file():
        return "failed" if last or job.out.exists() else "new"
    if recipe_differences(job):
        return "changed"
    # a run that broke is stopped too, but not by a gate
    ends = FINISHED if not last or last.status != "broken" else ("done",)
    return "finished" if status_of(job.out, len(job.recipe.stage)) in ends else "begun"


def status_of(run: Path, stages: int) -> str:
    """The status in the summary of a run of so many stages; "" where it has none that can be read.

    A run that is about to be extended has the summary of the shorter one, which is done: that does not make
    it done.
    """
    try:
        summary, _ = Store(run).read_summary()
        status, begun = str(summary["status"]), len(summary["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "running" if status == "done" and begun < stages else status


def recipe_differences(job: Job) -> list[str]:
    """Where the recipe in the job's folder is another one, as "key: there -> here". Names and descriptions
    may differ."""
    try:
        there = to_dict(load(job.out / "recipe.json"))
    except RecipeError as error:
        return [str(error)]
    here = to_dict(job.recipe)
    # a prefix has the layout of whichever arm came first
    unread = {"name", "about", *(["layout"] if job.is_prefix else [])}
    rows = differences([{k: v for k, v in table.items() if k not in unread} for table in (there, here)])
    return [f"{row['key']}: {_short(row['values'][0])} -> {_short(row['values'][1])}" for row in rows]


def refuse_changed(jobs: Iterable[Job], redo: Collection[str]) -> None:
    """UserError for the first job whose folder holds a run of another recipe, unless its arm is to be done
    again, or holds what is not ours: it would be thrown away."""
    for job in jobs:
        if job.out.exists() and (
            strange := [p.name for p in _inside(job.out) if p.name not in OURS and not p.name.startswith(".")]
        ):
            raise UserError(
                f"{job.out} holds {strange[0]}, which is not a part of a run; move it away, or "
                f"choose another --out"
            )
        if job.name not in redo and state_of(job) == "changed":
            found = recipe_differences(job)
            more = f" and {len(found) - 4} more" if len(found) > 4 else ""
            raise UserError(
                f"{job.out} was trained with another recipe ({'; '.join(found[:4])}{more}); choose another "
                f"--out, or train it again with --redo {job.name}"
            )


def refuse_changed_code(todo: Iterable[Job], accepted: bool) -> None:
    """UserError where a run is to go on, or shared stages are to be continued, with other files than they
    were trained with; code of the user's may be `accepted` as it is now, where the run itself goes on."""
    prefixes: set[Path] = set()
    for job in todo:
        if state_of(job) == "begun":
            rundata.refuse_changed(job.out, load(job.out / "recipe.json"), accepted)
        elif job.after is not None and job.after not in prefixes and (job.after / "recipe.json").is_file():
            prefixes.add(job.after)
            rundata.refuse_changed(job.after, load(job.after / "recipe.json"))


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else [folder]


def forget(job: Job) -> None:
    """Remove what a job left: its run directory and the word about it (its log is written anew). UserError
    while somebody writes there."""
    if job.out.is_dir():
        with writing(job.out):
            shutil.rmtree(job.out, ignore_errors=True)
    job.out.with_name(f"{job.out.name}.outcome.json").unlink(missing_ok=True)


def _short(value: object) -> str:
    return cut(json.dumps(value, ensure_ascii=False, default=str))
