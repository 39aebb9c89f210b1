"""Reads a run directory. Tolerant of what a run may lack, strict about what is malformed.

A run that is still going, or was cut off in the middle of a line, is read as far as it goes; `Run.notes` says
so, and also where a log is not what the newest checkpoint knows of it, or the summary is unreadable. Anything
else that is not what a run writes is a `UserError` with the file and the line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.core.jsonl import MOST_NESTED, number, parse_lines, shallow
from forethought.recipe.load import CHANGES
from forethought.store import Store
from forethought.store.checkpoints import STATE
from forethought.store.files import read_object

REQUIRED = ("recipe.json", "metrics.jsonl")
OF_METRICS = ("stage_name", "kind")  # texts of a line of metrics.jsonl; all else is numbers
OF_DECISION = (*OF_METRICS, "name", "outcome", "reason", "numbers")
MOST_STAGES = 1000  # of a run whose recipe names none
STATUSES = ("done", "stopped", "interrupted", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run directory says, in the order it was written."""

    path: Path
    recipe: dict[str, Any]
    lines: list[dict[str, Any]]  # metrics.jsonl; steps never fall
    decisions: list[dict[str, Any]]
    summary: dict[str, Any]  # empty while the run has written none
    notes: list[str]  # sentences that a reader must know before trusting the page

    @property
    def name(self) -> str:
        """From the summary, the recipe, or the folder, whichever has one."""
        return str(self.summary.get("name") or self.recipe.get("name") or self.path.name)

    @property
    def status(self) -> str:
        """done | stopped | interrupted | running; running also stands for "was cut off", which a directory
        cannot tell apart."""
        return self.summary.get("status", "running")


def load(path: Path) -> Run:
    """The run in directory `path`. `UserError`: it is not a run (says what is missing), or a file of it is
    malformed."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a directory: give the directory of a run, where recipe.json lies")
    missing = [name for name in REQUIRED if not (path / name).is_file()]
    if missing:
        raise UserError(f"{path} is not a run directory: it has no {' and no '.join(missing)}")
    notes: list[str] = []
    recipe = _object(path / "recipe.json")
    recipe.pop(CHANGES, None)  # decisions tell of them
    _require(isinstance(recipe.get("stage", []), list), path / "recipe.json", "`stage` must be a list")
    for index, stage in enumerate(recipe.get("stage", [])):
        _require(isinstance(stage, dict), path / "recipe.json", f"`stage.{index}` must be a table")
        roles = stage.get("roles", [])
        _require(
            isinstance(roles, list) and all(isinstance(role, str) for role in roles),
            path / "recipe.json",
            f"`stage.{index}.roles` must be a list of texts",
        )
    known = len(recipe.get("stage", [])) or MOST_STAGES
    lines = _newest(
        _rows(path / "metrics.jsonl", lambda row: _check_metrics(row, known), OF_METRICS, notes), notes
    )
    decisions = (
        _rows(path / "decisions.jsonl", _check_decision, OF_DECISION, notes)
        if (path / "decisions.jsonl").is_file()
        else []
    )
    summary = _summary(path, notes)
    _state_notes(summary.get("status", "running"), lines, notes)
    notes += _damage(path)
    return Run(path=path, recipe=recipe, lines=lines, decisions=decisions, summary=summary, notes=notes)


def finite(value: Any) -> bool:
    """Whether a metric can be drawn and compared."""
    return isinstance(value, int | float) and math.isfinite(value)


def _rows(
    path: Path, check: Callable[[Any], str], texts: Container[str], notes: list[str]
) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        rows, cut = parse_lines(file, path, check)
    rows = [{key: number(value) if key not in texts else value for key, value in row.items()} for row in rows]
    if cut:
        notes.append(
            f"The last line of {path.name} is cut off: the run was writing it, or was killed. It is left out."
        )
    return rows


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    _require(isinstance(value, dict), path, "must be a JSON object")
    _require(shallow(value), path, f"is nested deeper than {MOST_NESTED}: no run writes that")
    return value


def _summary(path: Path, notes: list[str]) -> dict[str, Any]:
    """What the run says about itself; nothing else depends on it, so an unreadable summary is left out."""
    summary, wrong = Store(path).read_summary()
    if not wrong and summary.get("status", "running") not in STATUSES:
        wrong = (
            f"summary.json has the status {str(summary['status'])[:40]!r}, which is none of "
            f"{', '.join(STATUSES)}"
        )
    if not wrong and not isinstance(summary.get("machine", {}), dict):
        wrong = "summary.json has a machine that is not a JSON object"
    if not wrong and not shallow(summary):
        wrong = f"summary.json is nested deeper than {MOST_NESTED}"
    if wrong:
        notes.append(f"The summary is left out: {wrong}.")
    return {} if wrong else summary


def _damage(path: Path) -> list[str]:
    """Where the logs are not what the newest checkpoint knows of them."""
    store = Store(path)
    found = [f"{said}."] if (said := store.passed_over()) else []
    for step in store.steps()[-1:]:
        try:
            wrong = store.damaged_logs(read_object(store.folder(step) / STATE))
        except (ValueError, KeyError, AttributeError, TypeError, OSError):
            return [*found, f"The checkpoint of step {step:,} cannot be read, so the logs are not checked."]
        found += [
            f"{name} is damaged: it {what} when step {step:,} was saved." for name, what in wrong.items()
        ]
    return found


def _require(ok: bool, source: Path, message: str) -> None:
    if not ok:
        raise UserError(
            f"{source} {message}" if message.startswith(("line", "must", "is ")) else f"{source}: {message}"
        )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, float | bool) or _is_int(value)


def _check_metrics(row: dict[str, Any], stages: int) -> str:
    """`stages`: how many there are; a page has a place for each up to the largest."""
    for key in ("step", "stage"):
        if not _is_int(row.get(key)) or row[key] < 0:
            return f"{key!r} must be a whole number from 0, not {row.get(key)!r}"
    if row["stage"] >= stages:
        return f"'stage' must be a whole number below {stages:,}, the number of stages, not {row['stage']!r}"
    if not _is_int(row.get("stage_step", 0)):
        return f"'stage_step' must be a whole number, not {row['stage_step']!r}"
    for key, value in row.items():
        if key in OF_METRICS:
            if not isinstance(value, str):
                return f"{key!r} must be text, not {value!r}"
        elif value is not None and not _is_number(number(value)):
            return f"{key!r} must be a number, not {repr(value)[:60]}"
    return ""


def _check_decision(row: dict[str, Any]) -> str:
    for key in ("step", "stage"):
        if not _is_int(row.get(key)):
            return f"{key!r} must be a whole number, not {row.get(key)!r}"
    for key in ("kind", "name", "outcome", "reason"):
        if not isinstance(row.get(key), str):
            return f"{key!r} must be text, not {row.get(key)!r}"
    if not shallow(row):
        return f"is nested deeper than {MOST_NESTED}"
    return "" if isinstance(row.get("numbers", {}), dict) else "'numbers' must be an object"


def _newest(lines: list[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """A run that was killed and resumed from an older checkpoint may write steps twice: the later lines are
    used."""

    # a stage's opening evaluation has the step of the line before it
    def place(line: dict[str, Any]) -> tuple[int, int, float]:
        return line["step"], line["stage"], line.get("stage_step") or 0

    kept: list[dict[str, Any]] = []
    for line in lines:
        if kept and kept[-1]["step"] > line["step"]:
            while kept and place(kept[-1]) >= place(line):
                kept.pop()
        kept.append(line)
    if len(kept) < len(lines):
        notes.append(
            f"{len(lines) - len(kept):,} metric lines were written again after a resume; the later "
            f"ones are shown."
        )
    return kept


def _state_notes(status: str, lines: list[dict[str, Any]], notes: list[str]) -> None:
    at = f"step {lines[-1]['step']:,}" if lines else "its start"
    if status == "running":
        notes.insert(0, f"The run is still going or was cut off: this page is its state at {at}.")
    elif status == "interrupted":
        notes.insert(0, f"The run was interrupted at {at} and can be resumed.")
    if not lines:
        notes.append("Nothing was measured yet.")
