"""Numbers that know how to merge: a rate is a sum over a sum, never an average of averages.

    step = {"reward/plan": Mean(3.0, 4), "tokens/sampled": Sum(128), "lr": Last(3e-4)}
    flat = reduce(merge([step_of_micro_batch_1, step_of_micro_batch_2]))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mean:
    """total / weight. Merging adds both, so a mean over micro-batches is the mean over tokens."""

    total: float
    weight: float = 1.0

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.weight + other.weight)

    def value(self) -> float:
        return self.total / self.weight if self.weight else math.nan


@dataclass(frozen=True, slots=True)
class Sum:
    total: float

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.total + other.total)

    def value(self) -> float:
        return self.total


@dataclass(frozen=True, slots=True)
class Max:
    largest: float

    def __add__(self, other: Max) -> Max:
        return Max(max(self.largest, other.largest))

    def value(self) -> float:
        return self.largest


@dataclass(frozen=True, slots=True)
class Last:
    """A setting or a state: the newest one counts."""

    current: float

    def __add__(self, other: Last) -> Last:
        return other

    def value(self) -> float:
        return self.current


Metric = Mean | Sum | Max | Last


def merge(parts: Iterable[Mapping[str, Metric]]) -> dict[str, Metric]:
    """Join metric dictionaries; the same name must have the same type everywhere (TypeError otherwise)."""
    out: dict[str, Metric] = {}
    for part in parts:
        for name, metric in part.items():
            if name not in out:
                out[name] = metric
            elif type(out[name]) is not type(metric):
                raise TypeError(f"metric {name!r} is a {type(out[name]).__name__} here and a {type(metric).__name__} there")
            else:
                out[name] = out[name] + metric
    return out


def reduce(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Plain numbers for one log line. Means over nothing are left out: a missing number is honest, a 0 is not."""
    flat = {name: metric.value() for name, metric in metrics.items()}
    return {name: value for name, value in flat.items() if not math.isnan(value)}


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a proportion (95 % for z = 1.96). n = 0 gives (0, 1): nothing is known."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(before: list[float], after: list[float], z: float = 1.96) -> tuple[float, float, float]:
    """Mean of after - before over the same tasks, with its interval: (mean, low, high).

    The interval is the normal one over the differences; where no task changed, it is a point. Both lists must have the same
    length and order (ValueError says both lengths).
    """
    if len(before) != len(after):
        raise ValueError(f"paired values must match: {len(before)} before, {len(after)} after")
    n = len(before)
    if n == 0:
        return 0.0, -1.0, 1.0
    d = [b - a for a, b in zip(before, after, strict=True)]
    mean = sum(d) / n
    var = sum((x - mean) ** 2 for x in d) / max(n - 1, 1)
    half = z * math.sqrt(var / n)
    return mean, mean - half, mean + half
