"""Scores of the same tasks at two times: how much they changed, between which bounds, and how surely.

Of scores that are 0 or 1 the interval is Tango's score interval (Statistics in Medicine 17, 1998) with
Edwards' continuity correction, and the test is the exact sign test (McNemar's, exact): only tasks that
changed speak. Of other scores both are Student's. No interval leaves what is possible, and none is a point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from forethought.core.metrics import t_quantile, t_within

TOO_SURE = 1e-12  # a confidence nearer to 1 has no quantile in floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """`value`: mean of after - before; `low`, `high`: its interval; `n`: tasks that have both; `p`: how
    often a change at least as large, in either direction, is seen where nothing has changed."""

    value: float
    low: float
    high: float
    n: int
    p: float


def paired(before: Sequence[float | None], after: Sequence[float | None], confidence: float = 0.95) -> Paired:
    """The change over the same tasks. A task that failed (None) on either side is in neither; without any
    that is in both, nothing is known: (0, -1, 1), p = 1.

    Both lists must have the same length and order, and 0 < confidence < 1 (ValueError).
    """
    if len(before) != len(after):
        raise ValueError(f"paired values must match: {len(before)} before, {len(after)} after")
    if not 0 < confidence < 1:
        raise ValueError(f"needs a confidence inside (0, 1), found {confidence}")
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    n, confidence = len(pairs), min(confidence, 1 - TOO_SURE)
    if not n:
        return Paired(value=0.0, low=-1.0, high=1.0, n=0, p=1.0)
    if all(v in (0, 1) for pair in pairs for v in pair):
        gained, lost = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
        low, high, p = *score_interval(gained, lost, n, confidence), sign_test(gained, lost)
        if p >= 1 - confidence:  # the approximation claims no more than the exact test
            low, high = min(low, 0.0), max(high, 0.0)
        return Paired(value=(gained - lost) / n, low=low, high=high, n=n, p=p)
    return _student(pairs, confidence)


def paired_difference(
    before: Sequence[float | None], after: Sequence[float | None], confidence: float = 0.95
) -> tuple[float, float, float]:
    """`paired` as (mean, low, high)."""
    found = paired(before, after, confidence)
    return found.value, found.low, found.high


def sign_test(gained: int, lost: int) -> float:
    """The two-sided p of the exact sign test: of the tasks that changed, half should have been gained.
    Nothing changed: 1."""
    n, few = gained + lost, min(gained, lost)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / 2**n)


def score_interval(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) of the difference of two paired proportions, gained/n - lost/n: the differences that the
    score test does not reject. Inside [-1, 1], never a point."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return -_upper(lost, gained, n, z), _upper(gained, lost, n, z)


def _upper(gained: int, lost: int, n: int, z: float) -> float:
    low, high = (gained - lost) / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        beyond = n * middle - (gained - lost) - 1  # less the correction: what changes, changes by 2
        if beyond > z * _deviation(gained, lost, n, middle):
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _deviation(gained: int, lost: int, n: int, d: float) -> float:
    """Standard deviation of gained - lost where the true difference is `d`, the share of lost tasks being
    what is then most likely."""
    b = (2 * n - gained + lost) * d - gained - lost
    share = (math.sqrt(max(b * b + 8 * n * lost * d * (1 - d), 0.0)) - b) / (4 * n)
    return math.sqrt(max(n * (2 * share + d * (1 - d)), 0.0))


def _student(pairs: Sequence[tuple[float, float]], confidence: float) -> Paired:
    """Scores with a real value. They range from 0 to 1 unless some are beyond, then as far as they were
    seen; no change can be larger. Where all tasks changed alike there is no scatter to read, and the width is
    that of 0/1 scores of which none changed."""
    values = [v for pair in pairs for v in pair]
    most = max(1.0, max(values)) - min(0.0, min(values))
    d, n = [b - a for a, b in pairs], len(pairs)
    mean = math.fsum(d) / n
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in d) / (n - 1)) if n > 1 else 0.0
    if deviation > 1e-12 * most:
        t = abs(mean) / (deviation / math.sqrt(n))
        half, p = t_quantile(n - 1, confidence) * deviation / math.sqrt(n), 1 - t_within(t, n - 1)
    else:
        half, p = most * score_interval(0, 0, n, confidence)[1], 0.0
    p = max(p, sign_test(sum(x != 0 for x in d), 0))  # no exact test of so many changes says less
    return Paired(value=mean, low=max(mean - half, -most), high=min(mean + half, most), n=n, p=p)
