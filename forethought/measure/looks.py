"""How sure a gate has to be, and whether it could be: how 1 - confidence is split over the evaluations of a
stage, and gates that cannot fail.

Each look at a stage is a chance to see a fall where there is none. `share` splits the allowed chance over the
planned looks (alpha spending); that their sum bounds the chance over the whole stage needs nothing about how
the looks hang together (Bonferroni). `benchmarks/gate_looks.py` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from forethought.core.paired import sign_test
from forethought.recipe.schema import GateSpec, Recipe, TrainingSpec

Rule = Literal["late", "even", "each"]
# families of metrics that are shares, and others that are never below 0
SHARES = ("eval", "failed", "truncated", "refused", "overlong", "format")
POSITIVE = ("entropy", "kl", "grad", "probe")


def planned(recipe: Recipe, spec: TrainingSpec) -> int:
    """Evaluations of a stage after its start, if it does not end early: each is a look."""
    every = recipe.eval.every or spec.steps
    return max(-(-spec.steps // every), 1) + (spec.isolation.core == "core")  # fused weights are judged too


def share(rule: Rule, look: int, looks: int) -> float:
    """What look `look` (from 1) of `looks` may spend of 1 - confidence. `even`: the same at each. `late`: as
    the square of the time grows, (2 look - 1) / looks**2, since the last looks say what a stage leaves
    behind. `each`: all of it at every look, not corrected. A look that nobody planned has what the last
    has."""
    if rule == "each":
        return 1.0
    return 1 / looks if rule == "even" else (2 * min(look, looks) - 1) / looks**2


def bounds(metric: str) -> tuple[float, float]:
    """Between what the values of a metric lie, as far as its family says."""
    family = metric.split("/")[0]
    return 0.0 if family in (*SHARES, *POSITIVE) else -math.inf, 1.0 if family in SHARES else math.inf


def cannot_fail(gate: GateSpec, start: float, scores: Sequence[float | None], looks: int) -> str:
    """Why a gate on a change from `start` passes whatever happens, or "". `scores`: of the tasks at the
    start, where there are any."""
    low, high = bounds(gate.metric)
    falls = gate.max_drop is not None
    room, most = (start - low, gate.max_drop) if falls else (high - start, gate.max_rise)
    if room <= (most or 0.0):
        where = f"{'fall' if falls else 'rise'} by more than {most} from {start:.3f}"
        return f"it cannot {where}, so this gate guards nothing"
    known = [score for score in scores if score is not None]
    if not gate.confidence or not known or any(score not in (0, 1) for score in known):
        return ""
    n = sum(score == (1 if falls else 0) for score in known)
    if sign_test(0, n) < (1 - gate.confidence) * share(gate.looks, looks, looks):
        return ""
    return (
        f"only {n} of {len(known)} tasks could be {'lost' if falls else 'gained'}, too few to tell from "
        f"chance, so this gate guards nothing"
    )
