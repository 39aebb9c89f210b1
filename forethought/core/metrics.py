"""Numbers that know how to merge: a rate is a sum over a sum, never an average of averages.

step = {"reward/plan": Mean(3.0, 4), "tokens/sampled": Sum(128), "lr": Last(3e-4)}
flat = reduce(merge([step_of_micro_batch_1, step_of_micro_batch_2]))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mean:
    """total / weight. Merging adds both, so a mean over micro-batches is the mean over tokens."""

    total: float
    weight: float = 1.0

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.weight + other.weight)

    def value(self) -> float:
        """total / weight; NaN where nothing was counted."""
        return self.total / self.weight if self.weight else math.nan


@dataclass(frozen=True, slots=True)
class Sum:
    total: float

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.total + other.total)

    def value(self) -> float:
        """The total."""
        return self.total


@dataclass(frozen=True, slots=True)
class Max:
    largest: float

    def __add__(self, other: Max) -> Max:
        return Max(max(self.largest, other.largest))

    def value(self) -> float:
        """The largest value seen."""
        return self.largest


@dataclass(frozen=True, slots=True)
class Last:
    """A setting or a state: the newest one counts."""

    current: float

    def __add__(self, other: Last) -> Last:
        return other

    def value(self) -> float:
        """The newest value."""
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
                raise TypeError(
                    f"metric {name!r} is a {type(out[name]).__name__} here and a "
                    f"{type(metric).__name__} there"
                )
            else:
                out[name] = out[name] + metric  # type: ignore[operator]  # of one type, as seen above
    return out


def reduce(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Plain numbers for one log line. Means over nothing are left out: a missing number is honest, a 0 is
    not. A number that is not finite stays: it is what was found."""
    return {
        name: metric.value()
        for name, metric in metrics.items()
        if not isinstance(metric, Mean) or metric.weight
    }


def wilson(successes: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a proportion (95 % for z = 1.96). n = 0 gives (0, 1): nothing is known."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def share_interval(values: Sequence[float], samples: int = 1) -> tuple[float, float, float]:
    """Mean of one value in [0, 1] per problem, with a 95 % interval over problems: (mean, low, high).

    Wilson's interval with the effective sample size (Korn and Graubard 1998, for clustered proportions): as
    many independent samples as would scatter like the problems do, p (1 - p) / (their variance / n), at least
    n. So samples of one problem never count as problems. For values of 0 and 1 it is `wilson`; unlike the
    mean plus or minus two standard errors it leaves room where every problem has the same value. `samples`:
    independent measurements behind one value; the size is at most n * samples (one problem says nothing of
    how problems scatter: 1). ValueError for no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to take a mean of")
    mean = math.fsum(values) / n
    if all(v in (0, 1) for v in values):
        return mean, *wilson(sum(values), n)
    variance = math.fsum((v - mean) ** 2 for v in values) / max(n - 1, 1)
    size = min(
        max(n, mean * (1 - mean) * n / variance if variance else math.inf), n * samples if n > 1 else 1
    )
    return mean, *wilson(mean * size, size)


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean of independent values (one per seed), with Student's t interval of 95 %: (mean, low, high).

    One value gives (value, None, None): how seeds scatter is then unknown. None at all is a ValueError.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to take a mean of")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, None
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = t_quantile(n - 1, 0.95) * math.sqrt(variance / n)
    return mean, mean - half, mean + half


def entropy(counts: Iterable[float]) -> float:
    """Shannon entropy (nats) of a frequency distribution given by its counts."""
    counts = [c for c in counts if c > 0]
    total = sum(counts)
    return sum(-c / total * math.log(c / total) for c in counts)


def avg_at_k(correct: Sequence[float]) -> float:
    """avg@k of one problem: the mean over its k samples (each 0 or 1). ValueError for none."""
    if not correct:
        raise ValueError("no samples to take a mean of")
    return math.fsum(correct) / len(correct)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate of P(at least one of k samples is right) from n samples of which `correct` were
    (arXiv 2107.03374).

    1 - C(n - correct, k) / C(n, k): the share of k-subsets that hold a right one; for k = n it is whether
    there is any. ValueError unless 1 <= k <= n and 0 <= correct <= n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(
            f"needs 1 <= k <= n and 0 <= correct <= n, found k = {k}, n = {n}, correct = {correct}"
        )
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def maj_at_k(votes: Sequence[str | None], correct: Sequence[float]) -> float:
    """maj@k of one problem (self-consistency, arXiv 2203.11171): whether the answer given most often is
    right.

    `votes` holds one spelling for each answer (None: no answer, which votes for nothing), `correct` what the
    grader says of each. Of answers that are equally frequent each counts the same, so that the order of the
    samples does not matter: 1/2 where one of two is right. Samples that vote alike and are graded differently
    give their mean. Nobody votes: 0. ValueError for unequal lengths or no samples.
    """
    if len(votes) != len(correct) or not votes:
        raise ValueError(
            f"needs a grade for each vote and at least one: {len(votes)} votes, {len(correct)} grades"
        )
    graded: dict[str, list[float]] = {}
    for vote, right in zip(votes, correct, strict=True):
        if vote is not None:
            graded.setdefault(vote, []).append(right)
    most = max(map(len, graded.values()), default=0)
    leading = [avg_at_k(grades) for grades in graded.values() if len(grades) == most]
    return avg_at_k(leading) if leading else 0.0


def t_quantile(df: int, confidence: float = 0.95) -> float:
    """The t with P(|T| <= t) = confidence for Student's t of `df` >= 1 degrees of freedom (12.706 for df = 1,
    4.303 for df = 2).

    By bisection on the exact finite sum for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and
    26.7.4).
    """
    if df < 1 or not 0 < confidence < 1:
        raise ValueError(f"needs df >= 1 and a confidence inside (0, 1), found {df} and {confidence}")
    low, high = 0.0, 1.0
    while t_within(high, df) < confidence:
        low, high = high, 2 * high
    for _ in range(60):  # halves the bracket until it is narrower than a float can tell
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, df) < confidence else (low, middle)
    return (low + high) / 2


def t_within(t: float, df: int) -> float:
    """P(|T| <= t): with theta = atan(t / sqrt(df)), a sum of powers of cos(theta)."""
    theta = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = df % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    # the next power of cos is two higher, its factor (k - 1) / k of the one before
    for k in range(odd + 2, df + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
