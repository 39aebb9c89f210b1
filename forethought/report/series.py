"""Metrics as columns for drawing: each series thinned to what an eye can see, its peaks kept, with three x
axes next to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from forethought.report.effects import lost_lines
from forethought.report.load import Run, finite

MOST_POINTS = 2000  # per series
NO_SERIES = {"step", "stage", "stage_name", "kind", "stage_step", "seconds", "rolled_back_to"}
BESIDE = ("eval_low/", "eval_high/", "eval_n/", "interference_low/", "interference_high/")
# ride on the series that they are bounds of
# shown as tables, marks or sentences
TOLD = (
    "eval_change",
    "eval_overlong/",
    "eval_failed/",
    "phase/",
    "seconds_probe/",
    "seconds_part/",
    "memory/",
)


def columns(run: Run) -> dict[str, Any]:
    """{"axis": {step, seconds, tokens, stage, lost, begun: one entry per kept line}, "series": {name: {i, v,
    lo?, hi?, m?}}, "not_finite"}.

    `i` indexes the axis columns; `begun` counts the starts of stages, each attempt at one. `m`, of a thinned
    series: the mean of all values around each kept one, since peaks alone mislead. `tokens` are sampled
    tokens, accumulated before any thinning. Values that are NaN or infinite are no points; `not_finite`
    counts them by series.
    """
    lost, _ = lost_lines(run)
    chosen, every_point, bad = {}, {}, {}
    for name in dict.fromkeys(
        key
        for line in run.lines
        for key in line
        if key not in NO_SERIES and not key.startswith((*BESIDE, *TOLD))
    ):
        at = [i for i, line in enumerate(run.lines) if line.get(name) is not None]
        good = [i for i in at if math.isfinite(run.lines[i][name])]
        if len(good) < len(at):
            bad[name] = len(at) - len(good)
        if good:
            every_point[name] = good
            chosen[name] = [good[k] for k in thin([run.lines[i][name] for i in good], MOST_POINTS)]
    ends = [
        i
        for i, line in enumerate(run.lines)
        if i in (0, len(run.lines) - 1) or line["stage"] != run.lines[i - 1]["stage"]
    ]
    kept = sorted({i for indices in chosen.values() for i in indices}.union(ends))
    place = {i: k for k, i in enumerate(kept)}
    every = clocks(run)
    axis = {name: [short(every[name][i]) for i in kept] for name in every}
    axis["stage"] = [run.lines[i]["stage"] for i in kept]
    axis["lost"] = [int(lost[i]) for i in kept]
    begun = list(
        accumulate(
            int(i == 0 or line["stage"] != run.lines[i - 1]["stage"] or line.get("stage_step") == 0)
            for i, line in enumerate(run.lines)
        )
    )
    axis["begun"] = [begun[i] for i in kept]
    series = {
        name: {"i": [place[i] for i in indices]} | _values(run, name, indices, every_point[name])
        for name, indices in chosen.items()
    }
    return {"axis": axis, "series": series, "not_finite": bad}


def clocks(run: Run) -> dict[str, list[float]]:
    """Step, seconds of training, and sampled tokens so far, at each metric line. A line without a value
    repeats the value before it."""
    out: dict[str, list[float]] = {"step": [], "seconds": [], "tokens": []}
    seconds = tokens = 0.0
    for line in run.lines:
        seconds = max(seconds, line.get("seconds") or 0.0)
        tokens += line.get("tokens/sampled") or 0
        for name, value in (("step", line["step"]), ("seconds", seconds), ("tokens", tokens)):
            out[name].append(value)
    return out


def thin(values: Sequence[float], most: int) -> list[int]:
    """Positions of at most `most` values (at least 4): both ends, and the lowest and highest of each bucket,
    so that no spike is lost."""
    n = len(values)
    if n <= most:
        return list(range(n))
    buckets = (most - 2) // 2
    keep = {0, n - 1}
    for b in range(buckets):
        span = range(1 + b * (n - 2) // buckets, 1 + (b + 1) * (n - 2) // buckets)
        keep.update((min(span, key=values.__getitem__), max(span, key=values.__getitem__)))
    return sorted(keep)


def short(value: float) -> float:
    """Six significant digits are more than a screen shows."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def local_means(values: Sequence[float], kept: Sequence[int]) -> list[float]:
    """For each kept position the mean of the values around it, as many as make one bucket of `thin`."""
    sums = [0.0, *accumulate(values)]
    half = math.ceil(len(values) / len(kept))
    spans = [(max(k - half, 0), min(k + half + 1, len(values))) for k in kept]
    return [(sums[b] - sums[a]) / (b - a) for a, b in spans]


def _values(run: Run, name: str, indices: Sequence[int], good: Sequence[int]) -> dict[str, list[float]]:
    lines = [run.lines[i] for i in indices]
    out = {"v": [short(line[name]) for line in lines]}
    if len(indices) < len(good):
        at = {i: k for k, i in enumerate(good)}
        out["m"] = [
            short(mean) for mean in local_means([run.lines[i][name] for i in good], [at[i] for i in indices])
        ]
    family, _, key = name.partition("/")
    if all(finite(line.get(f"{family}_{bound}/{key}")) for line in lines for bound in ("low", "high")):
        out["lo"] = [short(line[f"{family}_low/{key}"]) for line in lines]
        out["hi"] = [short(line[f"{family}_high/{key}"]) for line in lines]
    return out
