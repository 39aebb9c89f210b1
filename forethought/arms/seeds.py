"""Statistics over the seeds of an arm. A run is a mapping with `end`: metric -> value at its end, or None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forethought.core.metrics import mean_interval

Runs = Mapping[int, Mapping[str, Any]]
"""Seed -> finished run of one arm."""


def interval(values: Sequence[float | None], most: tuple[float, float] | None = None) -> dict[str, Any]:
    """{"mean", "low", "high", "n"} of the values that are known, with the 95 % t interval; an unknown number
    is None. `most`: what the values lie between, where that is known; no interval says more."""
    known = [value for value in values if value is not None]
    mean, low, high = seed_interval(known, most) if known else (None, None, None)
    return {"mean": mean, "low": low, "high": high, "n": len(known)}


def seed_interval(
    values: Sequence[float], most: tuple[float, float] | None = None
) -> tuple[float, float | None, float | None]:
    """`mean_interval` of one value a seed, within what is possible: t of two seeds reaches far beyond."""
    mean, low, high = mean_interval(values)
    if most is None or low is None or high is None:
        return mean, low, high
    return mean, max(low, most[0]), min(high, most[1])


def possible(metric: str, change: bool = False) -> tuple[float, float] | None:
    """What the values of a metric (`change`: their differences) lie between; None: not known."""
    return (-1.0 if change else 0.0, 1.0) if metric.startswith("eval/") else None


def paired_ends(ours: Runs, theirs: Runs, metric: str) -> list[float]:
    """End of ours minus end of theirs, one number for each seed that both have measured."""
    pairs = [
        (ours[seed]["end"].get(metric), theirs[seed]["end"].get(metric)) for seed in ours if seed in theirs
    ]
    return [a - b for a, b in pairs if a is not None and b is not None]


def curve(
    runs: Sequence[Sequence[Sequence[float]]], most: tuple[float, float] | None = None
) -> dict[str, list]:
    """Columns step, mean, low, high from the [step, value] points of each run, at every step where one of
    them was measured.

    A run that ended earlier than the others keeps its last value, which is what it left behind: a mean over
    the ones that happened to go on would compare different seeds at different steps.
    """
    runs = [points for points in runs if points]
    columns: dict[str, list] = {"step": [], "mean": [], "low": [], "high": []}
    for step in sorted({step for points in runs for step, _ in points}):
        found = interval(
            [next((value for at, value in reversed(points) if at <= step), None) for points in runs], most
        )
        columns["step"].append(step)
        for key in ("mean", "low", "high"):
            columns[key].append(found[key])
    return columns
