"""What the page needs to know, as plain data: `of_run` for a report, `of_runs` for a comparison."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from forethought.recipe.roles import roles_in
from forethought.report import probes, words
from forethought.report.effects import (
    TOGETHER,
    Change,
    Effect,
    Point,
    change,
    effects,
    first_and_last,
    levels,
    lost_lines,
    measured_names,
)
from forethought.report.films import load_films
from forethought.report.load import Run
from forethought.report.phases import phases
from forethought.report.series import clocks, columns, short
from forethought.report.settings import changed, differences
from forethought.report.trees import load_trees
from forethought.traces.judged import signs_of

MACHINE = {
    "threads/why": "threads, why",
    "threads/kernels": "threads of the kernels",
    "precision/why": "precision, why",
    "layers": "layers computed by",
    "sampling": "rows sampled by",
    "sampling/why": "rows sampled by, why",
    "products": "instructions of products",
    "products/why": "instructions of products, why",
    "pack_tokens": "tokens of a pack",
    "sample_rows": "rows sampled together",
}  # of the facts of a run, those whose names say too little


def of_run(run: Run) -> dict[str, Any]:
    """Everything report.html shows. `UserError` where a file of trees is malformed."""
    notes: list[str] = []
    trees = load_trees(run.path, notes)
    films = load_films(run.path, notes)
    base = _base(run)
    start, end = first_and_last(run)
    notes += words.no_room(run.lines) + words.broke(run.lines)
    if not films["items"]:
        notes += words.no_picture(run.recipe, run.lines)
    bad = [f"{words.count(n, 'value')} of {name}" for name, n in base["not_finite"].items()]
    if bad:
        notes.append(f"Not finite, and so not drawn: {words.join(bad)}.")
    stages = effects(run)
    return base | {
        "notes": base["notes"] + notes,
        "headline": words.headline(run.status, stages, start, end, run.decisions),
        "sentences": [words.stage_sentence(effect, run.decisions) for effect in stages],
        "big": {side: _move(side, start, end) for side in measured_names(run)},
        "trees": trees | {"signs": [[sign, *said] for sign, said in signs_of(base["roles"]).items()]},
        "films": films,
        "phases": phases(run),
        "recipe": run.recipe,
        "changed": changed(run.recipe),
    }


def of_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the compare page shows. Runs with the same name are told apart by their directories."""
    names = Counter(run.name for run in runs)
    labels = [run.name if names[run.name] == 1 else f"{run.name} ({run.path.resolve().name})" for run in runs]
    for i, label in enumerate(labels):  # same name and same directory name: only the whole path is left
        if labels.count(label) > 1:
            labels[i] = f"{runs[i].name} ({runs[i].path})"
    every = list(dict.fromkeys(side for run in runs for side in measured_names(run)[:-1])) + [TOGETHER]
    ends = {
        label: (first_and_last(run)[1] or first_and_last(run)[0])
        for label, run in zip(labels, runs, strict=True)
    }
    notes = [f"{label}: {note}" for label, run in zip(labels, runs, strict=True) for note in run.notes]
    measured_by = [
        row["key"] for row in differences([{k: run.recipe.get(k) for k in ("task", "eval")} for run in runs])
    ]
    if measured_by:
        notes.insert(
            0,
            f"The runs were not measured in the same way ({words.join(measured_by)} differ), so "
            f"their numbers may not compare.",
        )
    return {
        "runs": [
            _base(run) | {"label": label, "end": {key: asdict(p) for key, p in ends[label].items()}}
            for label, run in zip(labels, runs, strict=True)
        ],
        "levels": list(dict.fromkeys(level for run in runs for level in levels(run))),
        "sentences": [
            words.ranking(side, {label: end[side] for label, end in ends.items() if side in end})
            for side in every
        ],
        "roles": list(dict.fromkeys(role for run in runs for role in roles_in(run.recipe))),
        "sides": every,
        "differences": differences([run.recipe for run in runs]),
        "notes": notes,
    }


def _base(run: Run) -> dict[str, Any]:
    """What both pages show of one run."""
    times, measured = clocks(run), levels(run)
    roles = roles_in(run.recipe)
    return columns(run) | {
        "name": run.name,
        "roles": roles,
        "sides": measured_names(run),
        "about": run.recipe.get("about", ""),
        "seed": run.summary.get("seed", run.recipe.get("seed")),
        "status": run.status,
        "notes": run.notes,
        "levels": measured,
        "stages": [_stage(run, effect, times, roles, measured) for effect in effects(run)],
        "decisions": [_decision(run, decision, times) for decision in run.decisions],
        "rolled_back": [
            {"stage": stage, "from": _at(run, to, times), "to": _at(run, at, times)}
            for stage, to, at in lost_lines(run)[1]
        ],
        "probes": _probes(run, times),
        "cost": _cost(run, times),
        "machine": _machine(run.summary.get("machine", {})),
    }


def _machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a run computed on and with, by names for a reader; empty entries are left out."""
    return {MACHINE.get(key, key.replace("/", " of ")): value for key, value in facts.items() if value != ""}


def _stage(
    run: Run, effect: Effect, times: Mapping[str, list[float]], roles: Sequence[str], measured: Sequence[str]
) -> dict[str, Any]:
    """One stage: who trains, where it lies on each axis, and its row for all levels (level null) and for each
    level."""
    rows = [
        {
            "level": level,
            "sides": {
                side: _effect(effect, side if level is None else f"{side}@{level}")
                for side in measured_names(run)
            },
        }
        for level in (None, *measured)
    ]
    out = {
        "index": effect.index,
        "name": effect.name,
        "kind": effect.kind,
        "roles": list(effect.roles),
        "steps": effect.steps,
        "frozen": [role for role in roles if role not in effect.roles] if effect.roles else [],
        "rolled_back_to": effect.rolled_back_to,
        "attempts": effect.attempts,
        "rows": rows,
        "span": None,
    }
    if effect.first is None or effect.last is None:
        return out
    first = max(effect.first - 1, 0)  # a stage lasts from the last line of the one before it
    span = {axis: [column[first], column[effect.last]] for axis, column in times.items()}
    trained = sum(line.get("tokens/trained") or 0 for line in run.lines[effect.first : effect.last + 1])
    cost = {
        "seconds": span["seconds"][1] - span["seconds"][0],
        "tokens_sampled": span["tokens"][1] - span["tokens"][0],
        "tokens_trained": trained,
    }
    rounded = {axis: [short(a), short(b)] for axis, (a, b) in span.items()}
    return out | {"span": rounded, "cost": cost}


def _effect(effect: Effect, key: str) -> dict[str, Any]:
    kept = effect.kept.get(key)
    undone = kept is not None and effect.kept != effect.after
    return _move(key, effect.before, effect.after, effect.changes.get(key)) | {
        "kept": asdict(kept) if undone else None
    }


def _move(
    key: str, before: Mapping[str, Point], after: Mapping[str, Point], known: Change | None = None
) -> dict[str, Any]:
    """{"before": Point or null, "after": ..., "change": {value, low, high, paired, clear} or null}."""
    a, b = before.get(key), after.get(key)
    diff = known or (change(a, b) if a and b else None)
    return {
        "before": asdict(a) if a else None,
        "after": asdict(b) if b else None,
        "change": asdict(diff) | {"clear": diff.clear} if diff else None,
    }


def _decision(run: Run, decision: Mapping[str, Any], times: Mapping[str, list[float]]) -> dict[str, Any]:
    keys = ("step", "stage", "kind", "name", "outcome", "reason")
    return {key: decision[key] for key in keys} | {
        "numbers": decision.get("numbers", {}),
        "at": _at(run, decision["step"], times),
    }


def _probes(run: Run, times: Mapping[str, list[float]]) -> dict[str, Any] | None:
    found = probes.summary(run)
    spans = [
        phase | {end: _at(run, phase[end], times) for end in ("from", "to")}
        for phase in found.get("phases", [])
    ]
    return found | {"phases": spans} if found else None


def _at(run: Run, step: int, times: Mapping[str, list[float]]) -> dict[str, float]:
    """A step on every axis, read off the last line that is not after it."""
    i = max(bisect_right(times["step"], step) - 1, 0)
    return {axis: short(column[i]) if column else 0 for axis, column in times.items()} | {"step": step}


def _cost(run: Run, times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Totals from the metric lines; the seconds of the summary are preferred, since they count to the very
    end."""
    last = {axis: column[-1] if column else 0 for axis, column in times.items()}
    trained = sum(line.get("tokens/trained") or 0 for line in run.lines)
    return {
        "steps": last["step"],
        "seconds": run.summary.get("seconds", last["seconds"]),
        "tokens_sampled": last["tokens"],
        "tokens_trained": trained,
    }
