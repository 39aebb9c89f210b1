"""What gradients and weights need nothing but their inner products for: PCGrad, cosines, arcs. No tensors, so
every engine uses it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from forethought.core.metrics import Mean, Metric

SMALL_SINE = 1e-3  # of an angle: below it an arc is a straight line

Gram = Sequence[Sequence[float]]  # gram[i][j] = g_i . g_j
Gradient = TypeVar("Gradient")


def cosine(dot: float, square_a: float, square_b: float) -> float | None:
    """a . b / (|a| |b|), held to [-1, 1] against rounding; None where either is zero, NaN where one is not
    finite."""
    if square_a == 0 or square_b == 0:
        return None
    value = dot / math.sqrt(square_a) / math.sqrt(square_b)
    return value if math.isnan(value) else max(-1.0, min(1.0, value))


def rest(dot: float, square_a: float, square_b: float) -> tuple[float, float, float]:
    """The inner products of (a, b), as those of (a - b, b)."""
    return dot - square_b, max(square_a - 2 * dot + square_b, 0.0), square_b


def pcgrad(gram: Gram, seed: int) -> tuple[list[float], int]:
    """PCGrad (Yu et al. 2020, arXiv 2001.06782, algorithm 1): the factors w of the update sum_k w_k g_k, and
    the number of projections.

    Each g_i passes the others in random order and loses its component along every g_j that it points against:
    g_i -= (g_i . g_j) / |g_j|^2 g_j, with g_i as it is by then and g_j as it was given. Whatever comes of g_i
    is a combination of the given gradients, so their inner products suffice. Without a conflict (and for a
    single gradient) this is the plain sum.
    """
    rng, n, projections = random.Random(seed), len(gram), 0
    total = [0.0] * n
    for i in range(n):
        own = [float(k == i) for k in range(n)]  # g_i as a combination of the given gradients
        others = [j for j in range(n) if j != i]
        rng.shuffle(others)
        for j in others:
            dot = sum(c * row[j] for c, row in zip(own, gram, strict=True))
            if dot < 0 and gram[j][j] > 0:  # rounding can leave a dot with a zero gradient below zero
                own[j] -= dot / gram[j][j]
                projections += 1
        total = [t + c for t, c in zip(total, own, strict=True)]
    return total, projections


def need_free(aside: Mapping[str, Gradient], policy: str, name: str) -> None:
    """ValueError where a gradient of that name is set aside already: one of the two would be lost."""
    if name in aside:
        raise ValueError(
            f"a gradient {name!r} of policy {policy!r} is set aside already; combine or forget it first"
        )


def taken(aside: Mapping[str, Gradient], policy: str, names: Sequence[str]) -> list[Gradient]:
    """The gradients of these names. ValueError for one that was not set aside."""
    if lost := [name for name in names if name not in aside]:
        raise ValueError(
            f"no gradient {lost[0]!r} of policy {policy!r} was set aside; there are {sorted(aside)}"
        )
    return [aside[name] for name in names]


def combination(
    names: Sequence[str], method: str, gram_of: Callable[[], Gram], seed: int
) -> tuple[list[float], dict[str, Metric]]:
    """(the factors with which gradients are added up, metrics of PCGrad). ValueError for a name that is there
    twice, and for an unknown method."""
    if len(set(names)) != len(names):
        raise ValueError(f"combine needs different names of gradients, not {list(names)}")
    if method not in ("sum", "pcgrad"):
        raise ValueError(f"no way {method!r} to combine gradients; there are sum and pcgrad")
    if method == "sum":
        return [1.0] * len(names), {}
    gram = gram_of()
    factors, projections = pcgrad(gram, seed)
    return factors, report(gram, projections)


def report(gram: Gram, projections: int) -> dict[str, Metric]:
    """surgery/cosine: mean over pairs (of gradients that are not zero); surgery/projected: projections per
    ordered pair."""
    n = len(gram)
    cosines = [cosine(gram[i][j], gram[i][i], gram[j][j]) for i in range(n) for j in range(i)]
    known = [c for c in cosines if c is not None]
    return {
        "surgery/cosine": Mean(sum(known), len(known)),
        "surgery/projected": Mean(projections, n * (n - 1)),
    }


def arc(square_a: float, square_b: float, dot: float, weight: float) -> tuple[float, float] | None:
    """Spherical interpolation (Shoemake 1985): the factors of a and b in sin((1 - w) t) / sin t a + sin(w t)
    / sin t b, t their angle.

    None where the straight line takes its place: a vector is zero, or the angle is so near 0 or pi that its
    sine cannot be divided by.
    """
    turned = cosine(dot, square_a, square_b)
    if turned is None or math.sin(angle := math.acos(turned)) < SMALL_SINE:
        return None
    return math.sin((1 - weight) * angle) / math.sin(angle), math.sin(weight * angle) / math.sin(angle)
