"""Written conditions on metrics. A gate reads numbers and says pass or fail; what follows a fail is the
recipe's `on_fail`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from forethought.core.metrics import paired_difference
from forethought.recipe.schema import GateSpec

ROUNDING = 1e-9  # 0.95 - 0.94 is a little more than 0.01, and a change of exactly the bound passes


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation: flat metrics, and per metric the score of every task (same tasks, same order, each
    time)."""

    metrics: Mapping[str, float]
    # "eval/act" and "eval/act@5" -> one score per task, None where it failed
    scores: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    passed: bool
    reason: str
    numbers: Mapping[str, float]


def judge(gate: GateSpec, evaluations: Sequence[Evaluation]) -> Judgement:
    """Check a gate on a stage's evaluations, from the stage's start to the newest. A metric that is missing
    from the newest evaluation fails the gate, and so does a number that is not finite, in the newest
    evaluation or in the one it is compared with: what cannot be measured does not pass."""
    value = evaluations[-1].metrics.get(gate.metric)
    if value is None:
        if tried := len(evaluations[-1].scores.get(gate.metric, ())):
            return Judgement(
                passed=False, reason=f"{gate.metric} was not measured: all {tried} tasks failed", numbers={}
            )
        known = ", ".join(sorted(evaluations[-1].metrics)) or "none"
        return Judgement(
            passed=False, reason=f"{gate.metric} was not measured (measured: {known})", numbers={}
        )
    if not math.isfinite(value):
        return Judgement(
            passed=False, reason=f"{gate.metric} is not a finite number: {value}", numbers={"value": value}
        )
    if gate.at_least is not None:
        return _bound(gate.metric, value, value >= gate.at_least, f"at least {gate.at_least}", gate.at_least)
    if gate.at_most is not None:
        return _bound(gate.metric, value, value <= gate.at_most, f"at most {gate.at_most}", gate.at_most)
    if gate.max_slope_down is not None:
        return _trend(gate, evaluations)
    # A step's own numbers (entropy, reward) have none at the stage's start: the first evaluation that has one
    # is the start.
    return _change(gate, next(e for e in evaluations if gate.metric in e.metrics), evaluations[-1])


def _bound(metric: str, value: float, passed: bool, words: str, bound: float) -> Judgement:
    verb = "is" if passed else "is not"
    return Judgement(
        passed=passed,
        reason=f"{metric} {verb} {words}: {value:.3f}",
        numbers={"value": value, "bound": bound},
    )


def _change(gate: GateSpec, start: Evaluation, now: Evaluation) -> Judgement:
    """A change counts when it is larger than the bound and its paired interval excludes no change."""
    before, value = start.metrics[gate.metric], now.metrics[gate.metric]
    if not math.isfinite(before):
        return Judgement(
            passed=False,
            reason=f"{gate.metric} was not a finite number at the start: {before}",
            numbers={"start": before},
        )
    change = value - before
    if _some_failed(gate.metric, start, now):  # on the tasks that both have
        pairs = zip(start.scores[gate.metric], now.scores[gate.metric], strict=True)
        if all(None in pair for pair in pairs):
            return Judgement(
                passed=False,
                reason=f"{gate.metric}: no task was measured both at the start and now",
                numbers={},
            )
        change, _, _ = paired_difference(start.scores[gate.metric], now.scores[gate.metric])
    numbers = {"start": before, "value": value, "change": change}
    low = high = change
    if gate.confidence and gate.metric in start.scores and gate.metric in now.scores:
        z = NormalDist().inv_cdf(0.5 + gate.confidence / 2)
        _, low, high = paired_difference(list(start.scores[gate.metric]), list(now.scores[gate.metric]), z)
        numbers |= {"low": low, "high": high, "confidence": gate.confidence}
    if gate.max_drop is not None:
        bound, words = gate.max_drop, f"fell by more than {gate.max_drop}"
        failed = -change > gate.max_drop + ROUNDING and (high < 0 or not gate.confidence)
    else:
        bound, words = gate.max_rise, f"rose by more than {gate.max_rise}"
        failed = change > gate.max_rise + ROUNDING and (low > 0 or not gate.confidence)
    interval = f" [{low:+.3f}, {high:+.3f}]" if "low" in numbers else ""
    if not failed:
        words = f"has not {words.replace('fell', 'fallen').replace('rose', 'risen')}"
    reason = f"{gate.metric} {words}"
    return Judgement(
        passed=not failed,
        reason=f"{reason}: {before:.3f} -> {value:.3f}, change {change:+.3f}{interval}",
        numbers=numbers | {"bound": bound},
    )


def _some_failed(metric: str, *evaluations: Evaluation) -> bool:
    return all(metric in e.scores for e in evaluations) and any(None in e.scores[metric] for e in evaluations)


def _trend(gate: GateSpec, evaluations: Sequence[Evaluation]) -> Judgement:
    """Least-squares slope per evaluation over the last `window`; with fewer the gate passes and says so."""
    values = [e.metrics[gate.metric] for e in evaluations[-gate.window :] if gate.metric in e.metrics]
    n = len(values)
    if not all(map(math.isfinite, values)):
        return Judgement(
            passed=False,
            reason=f"{gate.metric} was not a finite number in the last {n} evaluations",
            numbers={"n": n},
        )
    if n < gate.window:
        return Judgement(
            passed=True,
            reason=f"{gate.metric}: {n} of {gate.window} evaluations for a trend",
            numbers={"n": n},
        )
    mean_x, mean_y = (n - 1) / 2, sum(values) / n
    slope = sum((i - mean_x) * (v - mean_y) for i, v in enumerate(values)) / sum(
        (i - mean_x) ** 2 for i in range(n)
    )
    passed = slope >= -gate.max_slope_down - ROUNDING
    words = "moves" if passed else "falls too fast: it moves"
    return Judgement(
        passed=passed,
        reason=f"{gate.metric} {words} {slope:+.4f} per evaluation over {n}, bound {-gate.max_slope_down}",
        numbers={"slope": slope, "bound": -gate.max_slope_down, "n": n},
    )
