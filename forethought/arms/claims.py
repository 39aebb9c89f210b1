"""Claims against results: holds, does not hold, or undecided where the 95 % interval over seeds crosses the
bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from forethought.arms.declare import Claim
from forethought.arms.seeds import Runs, paired_ends, possible, seed_interval
from forethought.report.words import join, percent, signed

Verdict = Literal["holds", "does not hold", "undecided"]


def judge(claim: Claim, runs: Mapping[str, Runs]) -> dict[str, Any]:
    """`runs`: arm -> seed -> finished run. Returns {"text", "verdict", "sentence"}, the last with the
    numbers."""
    verdict, sentence = _than(claim, runs) if claim.than else _bounded(claim, runs)
    return {"text": claim.text, "verdict": verdict, "sentence": sentence}


def _bounded(claim: Claim, runs: Mapping[str, Runs]) -> tuple[Verdict, str]:
    """The end, or the change over the last stage, against a number."""
    change = claim.change_at_least is not None or claim.change_at_most is not None
    values = [run["change" if change else "end"].get(claim.metric) for run in runs[claim.arm].values()]
    values = [value for value in values if value is not None]
    least = claim.change_at_least if change else claim.at_least
    most = claim.change_at_most if change else claim.at_most
    bound, is_floor = (least, True) if least is not None else (most, False)
    shown = _format_value(claim.metric, bound, change)
    claimed = f"claimed is at {'least' if is_floor else 'most'} {shown}"
    if not values:
        return "undecided", f"no finished run of {claim.arm} measured {claim.metric}; {claimed}"
    found = (
        f"{'the change of ' if change else ''}{claim.metric} of {claim.arm} is "
        f"{_interval(claim.metric, values, change)}"
    )
    return _against(values, bound, is_floor), f"{found}; {claimed}"


def _than(claim: Claim, runs: Mapping[str, Runs]) -> tuple[Verdict, str]:
    """No worse than the better of several arms is no worse than each of them, so no arm has to be called the
    better one first."""
    verdicts: list[Verdict] = []
    parts = []
    for other in claim.than:
        values = paired_ends(runs[claim.arm], runs[other], claim.metric)
        verdicts.append(_against(values, -claim.margin, True) if values else "undecided")
        said = _interval(claim.metric, values, True) if values else "unknown (no seed has both)"
        parts.append(f"the difference from {other} is {said}")
    worst = min(verdicts, key=["does not hold", "undecided", "holds"].index)
    claimed = f"claimed is at least {_format_value(claim.metric, -claim.margin, True)}"
    return worst, f"{claim.metric} of {claim.arm}: {join(parts)}; {claimed}"


def _against(values: list[float], bound: float, is_floor: bool) -> Verdict:
    """Whether the interval lies wholly on one side of the bound; a value on it keeps the claim."""
    _, low, high = seed_interval(values)
    if low is None or high is None:
        return "undecided"
    kept, broken = (low >= bound, high < bound) if is_floor else (high <= bound, low > bound)
    return "holds" if kept else "does not hold" if broken else "undecided"


def _interval(metric: str, values: list[float], change: bool) -> str:
    mean, low, high = seed_interval(values, possible(metric, change))
    if low is None:
        return f"{_format_value(metric, mean, change)} (one seed, so no interval)"
    ends = f"[{_bare(metric, low, change)}, {_bare(metric, high, change)}]"
    return f"{_format_value(metric, mean, change)} {ends} over {len(values)} seeds"


def _bare(metric: str, value: float, change: bool) -> str:
    if not metric.startswith("eval/"):
        return f"{value:+.4g}" if change else f"{value:.4g}"
    return signed(value) if change else f"{value * 100:.1f}"


def _format_value(metric: str, value: float, change: bool) -> str:
    """Shares in percent and their changes in points; any other metric as a number."""
    if not metric.startswith("eval/"):
        return _bare(metric, value, change)
    return f"{signed(value)} points" if change else percent(value)
