"""The fake engine's tensor: numbers by token that know how they move with the leaves they come from.

What a loss may do with its tokens' numbers (`learn.losses.row`) is what stands here. Slopes are exact and
forward: each number carries {leaf: derivative}, and most carry none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Slope = Mapping[int, float]  # leaf -> derivative by it
NONE: Slope = {}
LARGE = 709.0  # e^x of more is infinite, as a tensor's is, and raises nothing


class Numbers:
    """[N] numbers with their slopes; operations with a plain number or with N others."""

    __slots__ = ("slopes", "values")

    def __init__(self, values: Sequence[float], slopes: Sequence[Slope] | None = None):
        self.values = list(values)
        self.slopes = list(slopes) if slopes is not None else [NONE] * len(self.values)

    def __len__(self) -> int:
        return len(self.values)

    # ---- two numbers

    def __add__(self, other: Numbers | float):
        return self._with(other, lambda a, b: (a + b, 1.0, 1.0))

    def __sub__(self, other: Numbers | float):
        return self._with(other, lambda a, b: (a - b, 1.0, -1.0))

    def __mul__(self, other: Numbers | float):
        return self._with(other, lambda a, b: (a * b, b, a))

    def __truediv__(self, other: Numbers | float):
        return self._with(other, lambda a, b: (_over(a, b), _over(1.0, b), _over(-_over(a, b), b)))

    def __rsub__(self, other: Numbers | float):
        return -self + other

    def __rtruediv__(self, other: Numbers | float):
        return self._like(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def minimum(self, other: Numbers | float):
        """Equal numbers share the slope, as a tensor's do."""
        return self._with(other, lambda a, b: (min(a, b), ((a < b) + (a <= b)) / 2, ((b < a) + (b <= a)) / 2))

    def maximum(self, other: Numbers | float):
        """Equal numbers share the slope, as in `minimum`."""
        return -((-self).minimum(-self._like(other)))

    def __lt__(self, other: Numbers | float):
        return self._with(other, lambda a, b: (float(a < b), 0.0, 0.0))

    def __gt__(self, other: Numbers | float):
        return self._with(other, lambda a, b: (float(a > b), 0.0, 0.0))

    # ---- one number

    def __neg__(self):
        return self._each(lambda x: (-x, -1.0))

    def exp(self):
        """e^x, element by element."""
        return self._each(lambda x: (_exp(x),) * 2)

    def expm1(self):
        """e^x - 1, exact near 0."""
        return self._each(lambda x: (math.expm1(x) if x < LARGE else _exp(x), _exp(x)))

    def log(self):
        """Natural logarithm."""
        return self._each(lambda x: (math.log(x) if x > 0 else math.nan if x else -math.inf, _over(1.0, x)))

    def sigmoid(self):
        """1 / (1 + e^-x)."""
        return self._each(lambda x: (y := 1 / (1 + _exp(-x)), y * (1 - y)))

    def abs(self):
        """|x|; the slope at 0 is 0."""
        return self._each(lambda x: (abs(x), float((x > 0) - (x < 0))))

    def clamp(self, low: float = -math.inf, high: float = math.inf):
        """x cut to [low, high]; outside, the slope is 0."""
        return self._each(lambda x: (min(max(x, low), high), float(low <= x <= high)))

    def detach(self):
        """The same values without slopes."""
        return Numbers(self.values)

    # ---- all of them

    def sum(self):
        """One number whose slopes are summed leaf by leaf."""
        total: dict[int, float] = {}
        for slope in self.slopes:
            for leaf, d in slope.items():
                total[leaf] = total.get(leaf, 0.0) + d
        return Numbers([sum(self.values)], [total])

    def max(self):
        """The largest value, without slopes: it is only measured."""
        return Numbers([max(self.values)])

    def item(self) -> float:
        """The one value as a float. ValueError where there are several."""
        [value] = self.values
        return value

    def __float__(self) -> float:
        return float(self.item())

    def _each(self, f: Callable[[float], tuple[float, float]]) -> Numbers:
        found = [f(x) for x in self.values]
        return Numbers(
            [y for y, _ in found],
            [_times(slope, d) for slope, (_, d) in zip(self.slopes, found, strict=True)],
        )

    def _with(
        self, other: Numbers | float, f: Callable[[float, float], tuple[float, float, float]]
    ) -> Numbers:
        other = self._like(other)
        values, slopes = [], []
        for a, da, b, db in zip(self.values, self.slopes, other.values, other.slopes, strict=True):
            y, by_a, by_b = f(a, b)
            values.append(y)
            slopes.append(_plus(_times(da, by_a), _times(db, by_b)))
        return Numbers(values, slopes)

    def _like(self, other: Numbers | float) -> Numbers:
        return other if isinstance(other, Numbers) else Numbers([float(other)] * len(self))


def _exp(x: float) -> float:
    return math.exp(x) if x < LARGE else x if math.isnan(x) else math.inf


def _over(a: float, b: float) -> float:
    if b:
        return a / b
    return math.copysign(math.inf, a) * math.copysign(1.0, b) if a and not math.isnan(a) else math.nan


def _times(slope: Slope, factor: float) -> Slope:
    return {leaf: d * factor for leaf, d in slope.items()} if slope and factor else NONE


def _plus(a: Slope, b: Slope) -> Slope:
    if not a or not b:
        return a or b
    return {leaf: a.get(leaf, 0.0) + b.get(leaf, 0.0) for leaf in {**a, **b}}
