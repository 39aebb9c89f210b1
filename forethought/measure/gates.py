"""Written conditions on metrics. A gate reads numbers and says pass or fail; what follows a fail is the
recipe's `on_fail`. A gate that would pass whatever is measured is vacuous (`looks.py`): it guards nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from forethought.core.films import Film
from forethought.core.paired import paired
from forethought.measure.looks import bounds, cannot_fail, share
from forethought.recipe.schema import GateSpec

UNMEASURED = (
    "no update since the last look compared it: none trained, or it read what sampling left "
    '(engine.reuse_forward = "off" compares each)'
)
ROUNDING = 1e-9  # 0.95 - 0.94 is a little more than 0.01, and a change of exactly the bound passes


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation: flat metrics, and per metric the score of every task (same tasks, same order, each
    time)."""

    metrics: Mapping[str, float]
    # "eval/act" and "eval/act@5" -> one score per task, None where it failed
    scores: Mapping[str, Sequence[float | None]]
    films: Sequence[Film] = ()  # to look at


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    passed: bool
    reason: str
    numbers: Mapping[str, float]
    vacuous: bool = False  # it passed, as it would have whatever had been measured

    @property
    def outcome(self) -> str:
        """In a decision: pass, vacuous or fail."""
        return "vacuous" if self.vacuous else "pass" if self.passed else "fail"


def judge(gate: GateSpec, evaluations: Sequence[Evaluation], looks: int = 1) -> Judgement:
    """Check a gate on a stage's evaluations, from the stage's start to the newest; after the start, `looks`
    are planned. A metric that is missing from the newest evaluation fails the gate, and so does a number that
    is not finite, in the newest evaluation or in the one it is compared with: what cannot be measured does
    not pass."""
    value = evaluations[-1].metrics.get(gate.metric)
    if value is None:
        if tried := len(evaluations[-1].scores.get(gate.metric, ())):
            return Judgement(
                passed=False, reason=f"{gate.metric} was not measured: all {tried} tasks failed", numbers={}
            )
        known = ", ".join(sorted(evaluations[-1].metrics)) or "none"
        why = UNMEASURED if gate.metric.startswith("gap/") else f"measured: {known}"
        return Judgement(passed=False, reason=f"{gate.metric} was not measured ({why})", numbers={})
    if not math.isfinite(value):
        return Judgement(
            passed=False, reason=f"{gate.metric} is not a finite number: {value}", numbers={"value": value}
        )
    if gate.at_least is not None:
        return _bound(gate, value, value >= gate.at_least, f"at least {gate.at_least}", gate.at_least)
    if gate.at_most is not None:
        return _bound(gate, value, value <= gate.at_most, f"at most {gate.at_most}", gate.at_most)
    if gate.max_slope_down is not None:
        return _trend(gate, evaluations)
    # A step's own numbers (entropy, reward) have none at the stage's start: the first evaluation that has one
    # is the start.
    start = next(e for e in evaluations if gate.metric in e.metrics)
    judged = _change(gate, start, evaluations[-1], max(len(evaluations) - 1, 1), looks)
    if not judged.passed:
        return judged
    why = cannot_fail(gate, start.metrics[gate.metric], start.scores.get(gate.metric, ()), looks)
    return replace(judged, vacuous=True, reason=f"{judged.reason}; {why}") if why else judged


def _bound(gate: GateSpec, value: float, passed: bool, words: str, bound: float) -> Judgement:
    low, high = bounds(gate.metric)
    vacuous = bound <= low if gate.at_most is None else bound >= high
    verb = "is" if passed else "is not"
    return Judgement(
        passed=passed,
        reason=f"{gate.metric} {verb} {words}: {value:.3f}{', as it always is' if vacuous else ''}",
        numbers={"value": value, "bound": bound},
        vacuous=vacuous and passed,
    )


def _change(gate: GateSpec, start: Evaluation, now: Evaluation, look: int, looks: int) -> Judgement:
    """A change counts when it is larger than the bound and its paired test excludes chance at this look."""
    before, value = start.metrics[gate.metric], now.metrics[gate.metric]
    if not math.isfinite(before):
        return Judgement(
            passed=False,
            reason=f"{gate.metric} was not a finite number at the start: {before}",
            numbers={"start": before},
        )
    change, sure, interval = value - before, True, ""
    numbers = {"start": before, "value": value, "change": change}
    if gate.metric in start.scores and gate.metric in now.scores:
        confidence = 1 - (1 - gate.confidence) * share(gate.looks, look, looks)
        found = paired(start.scores[gate.metric], now.scores[gate.metric], confidence or 0.95)
        if not found.n:
            return Judgement(
                passed=False,
                reason=f"{gate.metric}: no task was measured both at the start and now",
                numbers={},
            )
        if None in (*start.scores[gate.metric], *now.scores[gate.metric]):  # on the tasks that both have
            numbers["change"] = change = found.value
        if gate.confidence:
            sure = found.p < 1 - confidence
            numbers |= {"low": found.low, "high": found.high, "confidence": confidence, "p": found.p}
            at = f" at {confidence:.2%} (look {look} of {max(look, looks)})" if looks > 1 else ""
            interval = f" [{found.low:+.3f}, {found.high:+.3f}]{at}"
    if gate.max_drop is not None:
        bound, words, past = gate.max_drop, "fell", "fallen"
        failed = -change > bound + ROUNDING and sure
    else:
        bound, words, past = gate.max_rise or 0.0, "rose", "risen"
        failed = change > bound + ROUNDING and sure
    words = words if failed else f"has not {past}"
    return Judgement(
        passed=not failed,
        reason=f"{gate.metric} {words} by more than {bound}: {before:.3f} -> {value:.3f}, "
        f"change {change:+.3f}{interval}",
        numbers=numbers | {"bound": bound},
    )


def _trend(gate: GateSpec, evaluations: Sequence[Evaluation]) -> Judgement:
    """Least-squares slope per evaluation over the last `window`; with fewer the gate passes and says so."""
    values = [e.metrics[gate.metric] for e in evaluations[-gate.window :] if gate.metric in e.metrics]
    n, most = len(values), gate.max_slope_down or 0.0
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
    passed = slope >= -most - ROUNDING
    floor = all(value <= bounds(gate.metric)[0] for value in values)
    words = "moves" if passed else "falls too fast: it moves"
    return Judgement(
        passed=passed,
        reason=f"{gate.metric} {words} {slope:+.4f} per evaluation over {n}, bound {-most}"
        f"{'; it is as low as it can be, so this gate guards nothing' if floor else ''}",
        vacuous=floor,
        numbers={"slope": slope, "bound": -most, "n": n},
    )
