"""The phases of a stage of kind `webrl`: what tasks each had, by how often they were made into others, and
what became of them. Read from the metric lines of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forethought.report.effects import lost_lines
from forethought.report.load import Run, finite

PHASE, TASKS, SUCCESS = "webrl/phase", "generation/tasks@", "generation/success@"
ONCE = {
    "in_band": "curriculum/in_band",
    "filled": "curriculum/filled",
    "expected": "curriculum/expected_kept",
    "replay_in_band": "replay/in_band",
}  # said where a phase begins
EACH = {
    "auc": "critic/auc",
    "replayed": "replay/used",
    "outcome_accuracy": "outcome/accuracy",
    "outcome_auc": "outcome/auc",
    "outcome_false_positive": "outcome/false_positive",
    "outcome_said": "outcome/said",
    "outcome_exact": "outcome/exact",
}  # said at each step; the mean over the steps that say it


def phases(run: Run) -> list[dict[str, Any]]:
    """A row for each phase: {"stage", "phase", "steps", "generations": [{"generation", "tasks", "success"}]},
    and what of `ONCE` and `EACH` was measured. Steps that a gate has taken back are not in it."""
    lost, _ = lost_lines(run)
    groups: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for line, gone in zip(run.lines, lost, strict=True):
        if not gone and finite(line.get(PHASE)):
            groups.setdefault((int(line["stage"]), int(line[PHASE])), []).append(line)
    return [_row(stage, phase, lines) for (stage, phase), lines in sorted(groups.items())]


def _row(stage: int, phase: int, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    numbers = sorted(
        {int(key.removeprefix(TASKS)) for line in lines for key in line if key.startswith(TASKS)}
    )
    found: dict[str, Any] = {"stage": stage, "phase": phase, "steps": len(lines), "generations": []}
    for g in numbers:
        own = [(line[f"{TASKS}{g}"], line[f"{SUCCESS}{g}"]) for line in lines if line.get(f"{TASKS}{g}")]
        tasks = sum(n for n, _ in own)
        success = sum(n * share for n, share in own) / tasks
        found["generations"].append({"generation": g, "tasks": tasks, "success": success})
    for name, key in (ONCE | EACH).items():
        values = [line[key] for line in lines if finite(line.get(key))]
        if values:
            found[name] = sum(values) / len(values)
    return found
