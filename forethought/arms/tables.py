"""The results as Markdown, for a document: each group's claims with their verdicts, a table a metric, and
what the arms cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forethought.report.words import count, signed

Interval = Mapping[str, Any] | None


def markdown(results: Mapping[str, Any]) -> str:
    """The whole of arms.md from what arms.json holds."""
    lines = [f"# {results['name']}", ""]
    lines += [results["about"], ""] if results["about"] else []
    lines += [
        f"{count(len(results['seeds']), 'seed')} an arm. Means over seeds with 95 % t intervals; "
        f"changes run from the start to the "
        "end of the last stage; differences are paired by seed. Only finished runs count.",
        "",
    ]
    for group in results["groups"]:
        lines += _group(group)
    if results["notes"]:
        lines += ["## Notes", "", *(f"- {note}" for note in results["notes"]), ""]
    return "\n".join(lines)


def _group(group: Mapping[str, Any]) -> list[str]:
    lines = [f"## {group['name']}", ""]
    lines += [group["about"], ""] if group["about"] else []
    lines += [f"- **{claim['verdict']}**: {claim['text']} ({claim['sentence']})" for claim in group["claims"]]
    lines += [""] if group["claims"] else []
    lines += _glance(group)
    against = f"difference from {group['baseline']}" if group["baseline"] else ""
    for metric in group["metrics"]:
        rows = [
            [arm["name"], *_cells(metric, arm["metrics"][metric], bool(against))] for arm in group["arms"]
        ]
        lines += [
            f"### {metric}",
            "",
            *table(["arm", "start", "end", "change", *([against] if against else [])], rows),
            "",
        ]
    costs = ("tokens_sampled", "tokens_trained", "seconds", "run_seconds")
    rows = [
        [
            arm["name"],
            str(arm["finished"]),
            str(arm["failed"]),
            *(_whole(arm["costs"][key]) for key in costs),
            arm["about"],
        ]
        for arm in group["arms"]
    ]
    header = [
        "arm",
        "seeds",
        "failed",
        "tokens sampled",
        "tokens trained",
        "seconds",
        "seconds of the run",
        "what it is",
    ]
    return [*lines, f"### Cost of the last stage of {group['name']}", "", *table(header, rows), ""]


def _glance(group: Mapping[str, Any]) -> list[str]:
    """One row an arm: where each metric ended, and what that cost. The start is the first finished arm's:
    arms of a group begin alike."""
    metrics, arms = group["metrics"], group["arms"]
    first = next((arm for arm in arms if arm["finished"]), arms[0])
    rows = [
        [
            f"*start of the stage* ({first['name']})",
            *(format_interval(m, first["metrics"][m]["start"]) for m in metrics),
            "",
            "",
        ]
    ]
    for arm in arms:
        cost = [_thousands(arm["costs"][key]) for key in ("tokens_sampled", "tokens_trained")]
        rows.append(
            [
                arm["name"],
                *(format_interval(m, arm["metrics"][m]["end"]) for m in metrics),
                " / ".join(cost),
                _whole(arm["costs"]["seconds"]),
            ]
        )
    return [
        "### The end at a glance",
        "",
        *table(["arm", *metrics, "tokens sampled / trained", "seconds"], rows),
        "",
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a bar or a line end inside a cell cannot break it."""
    clean = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in clean]
    return [lines[0], "|" + " --- |" * len(header), *lines[1:]]


def _cells(metric: str, found: Mapping[str, Interval], compared: bool) -> list[str]:
    cells = [
        format_interval(metric, found["start"]),
        format_interval(metric, found["end"]),
        format_interval(metric, found["change"], change=True),
    ]
    return [*cells, format_interval(metric, found["difference"], change=True)] if compared else cells


def format_interval(metric: str, found: Interval, change: bool = False) -> str:
    """Mean with its interval: shares in percent, their changes in points; "—" for what nobody measured. An
    interval of two seeds says so: it spans most of what is possible."""
    if found is None or found["mean"] is None:
        return "—"
    share = metric.startswith("eval/")

    def one(value: float) -> str:
        if share:
            return signed(value) if change else f"{value * 100:.1f}"
        return f"{value:+.4g}" if change else f"{value:.4g}"

    around = (
        ""
        if found["low"] is None
        else f" [{one(found['low'])}, {one(found['high'])}]{' (2 seeds)' * (found.get('n') == 2)}"
    )
    return f"{one(found['mean'])}{' %' if share and not change else ''}{around}"


def _thousands(found: Interval) -> str:
    return "—" if found is None or found["mean"] is None else f"{found['mean'] / 1e3:,.0f}k"


def _whole(found: Interval) -> str:
    return "—" if found is None or found["mean"] is None else f"{found['mean']:,.0f}"
