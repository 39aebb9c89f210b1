"""Arithmetic on the fake engine's numbers: rows of logits, one per role; a row that is absent is all
zeros."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from forethought.engines import vectors

Rows = dict[str, list[float]]  # role -> one number a choice
Region = dict[str, tuple[int, list[int]]]  # role -> length of its row, indices in it


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities of a row of logits; the largest is subtracted first."""
    top = max(logits)
    e = [math.exp(logit - top) for logit in logits]
    return [x / sum(e) for x in e]


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(p || q) in nats."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def entropy(p: Sequence[float]) -> float:
    """In nats."""
    return -sum(x * math.log(x) for x in p if x > 0)


def pick(
    logits: Sequence[float], temperature: float, top_p: float, top_k: int, min_p: float, seed: str
) -> int:
    """One choice, drawn with `seed`; the first of the best at temperature 0."""
    if temperature == 0:
        return list(logits).index(max(logits))
    p = softmax([logit / temperature for logit in logits])
    order = sorted(range(len(p)), key=lambda k: -p[k])
    if top_k:
        order = order[:top_k]
        top_p *= sum(p[k] for k in order)
    kept = [k for n, k in enumerate(order) if sum(p[j] for j in order[:n]) < top_p]
    kept = [k for k in kept if p[k] >= min_p * p[order[0]]]
    return random.Random(seed).choices(kept, [p[k] for k in kept])[0]


def dot(a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]]) -> float:
    """Scalar product over the rows that both have."""
    return sum(x * y for role in a if role in b for x, y in zip(a[role], b[role], strict=True))


def weighted_sum(parts: Sequence[Rows], factors: Sequence[float]) -> Rows:
    """Sum of `parts`, each times its factor; an absent row is all zeros."""
    total: Rows = {}
    for part, factor in zip(parts, factors, strict=True):
        for role, row in part.items():
            total[role] = [
                t + factor * x for t, x in zip(total.get(role, [0.0] * len(row)), row, strict=True)
            ]
    return total


def same_width(a: Rows, b: Rows) -> tuple[Rows, Rows]:
    """Copies that both have the rows of either."""
    widths = {role: len(row) for role, row in (a | b).items()}
    first, second = (
        {role: list(rows.get(role, [0.0] * n)) for role, n in sorted(widths.items())} for rows in (a, b)
    )
    return first, second


def largest(now: Rows, then: Rows, share: float) -> Region:
    """The share of all numbers that differ most, at least one (none where there are no numbers yet); ties go
    to the earlier."""
    now, then = same_width(now, then)
    gaps = [(-abs(now[role][j] - then[role][j]), role, j) for role in now for j in range(len(now[role]))]
    taken: dict[str, list[int]] = {}
    for _, role, j in sorted(gaps)[: max(1, int(share * len(gaps)))]:
        taken.setdefault(role, []).append(j)
    return {role: (len(now[role]), sorted(indices)) for role, indices in taken.items()}


def draw_region(like: Region, seed: int) -> Region:
    """A random region with as many numbers of each row as `like`."""
    rng = random.Random(seed)
    return {
        role: (size, sorted(rng.sample(range(size), len(indices)))) for role, (size, indices) in like.items()
    }


def overlap(a: Region, b: Region) -> float:
    """Jaccard index of two regions; 0 where both are empty."""
    one, other = ({(role, j) for role, (_, indices) in region.items() for j in indices} for region in (a, b))
    return len(one & other) / len(one | other) if one | other else 0.0


def transplant_rows(dst: Rows, src: Rows, region: Region) -> Rows:
    """`dst` with the numbers of `region` taken from `src`."""
    mine, theirs = same_width({role: [0.0] * size for role, (size, _) in region.items()} | dst, src)
    for role, (_, indices) in region.items():
        for j in indices:
            mine[role][j] = theirs[role][j]
    return mine


def slerp_rows(dst: Rows, src: Rows, weight: float, inside: Region) -> Rows:
    """Each row, without its numbers inside the region, by `weight` along the arc to that of `src`."""
    mine, theirs = same_width(dst, src)
    for role in mine:
        out = [j for j in range(len(mine[role])) if j not in inside.get(role, (0, []))[1]]
        a, b = {"": [mine[role][j] for j in out]}, {"": [theirs[role][j] for j in out]}
        factors = vectors.arc(dot(a, a), dot(b, b), dot(a, b), weight) or (1 - weight, weight)
        for j in out:
            mine[role][j] = factors[0] * mine[role][j] + factors[1] * theirs[role][j]
    return mine


def not_finite(what: str, table: Mapping[str, Rows]) -> str:
    """The first row of the policies' that holds NaN or inf, in words, or ""."""
    return next(
        (
            f"{what} of {role} in policy {policy!r}"
            for policy, rows in table.items()
            for role, row in rows.items()
            if not all(map(math.isfinite, row))
        ),
        "",
    )
