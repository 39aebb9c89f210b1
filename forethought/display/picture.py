"""Rows of text that picture a run: pure functions of what has been seen, a width and a height in cells."""

from __future__ import annotations

from rich.text import Text

from forethought.display.pace import clock_text
from forethought.display.seen import Seen, StageSeen, evaluation, step_cells

FANCY = {"full": "━", "rest": "─", "done": "✓", "now": "▶", "wait": "·", "up": "▲", "down": "▼", "to": "→"}
ASCII = {"full": "#", "rest": "-", "done": "x", "now": ">", "wait": ".", "up": "^", "down": "v", "to": "->"}
OUTCOMES = {
    "pass": "green",
    "advance": "green",
    "share": "green",
    "roll_back": "bold red",
    "stop": "bold red",
    "warn": "yellow",
    "vacuous": "yellow",
    "trained nothing": "bold yellow",
    "refuse": "yellow",
    "isolate": "yellow",
    "retry": "yellow",
}
ROUTINE = ("pass", "start", "resume", "fork", "advance", "end")  # decisions that a summary need not repeat
MOST_STAGES = 5


def picture(seen: Seen, now: float, width: int, height: int, signs: dict[str, str] = FANCY) -> list[Text]:
    """At most `height` rows of at most `width` cells. What does not fit goes by importance: notes, levels,
    decisions, values, and last of all the three numbers and the stages."""
    first, second = _values(seen, width)
    sections = [  # (importance, rows)
        (0, [_header(seen, now, width)]),
        (1, _stages(seen, width, signs)),
        (2, _factors(seen, width, signs)),
        (2.5, _busy(seen, now)),
        (5, _levels(seen)),
        (3, first),
        (5.5, second),
        (4, _decisions(seen)),
        (6, _notes(seen)),
    ]
    while len(sections) > 1 and sum(len(rows) for _, rows in sections) > height:
        sections.remove(max(sections, key=lambda section: section[0]))
    rows = [row for _, rows in sections for row in rows][:height]
    for row in rows:
        row.truncate(width, overflow="ellipsis")
    return rows


def summary(seen: Seen, now: float, signs: dict[str, str] = FANCY) -> list[Text]:
    """What stays when the run is over: each stage with the three numbers at its start and end, and what was
    decided."""
    rows = [
        Text("forethought ", style="bold")
        .append(seen.where)
        .append(f"  {clock_text(seen.elapsed(now))}", style="dim")
    ]
    for i, stage in enumerate(seen.stages[: seen.current + 1]):
        rows.append(
            _stage_name(i, stage, seen, signs).append(
                f"  {stage.done}/{stage.steps} steps" if stage.steps else ""
            )
        )
        first, last = (evaluation(values, seen.roles)[0] for values in (stage.first, stage.last))
        pairs = [
            f"{name} {_number(first.get(name))} {signs['to']} {last[name]:.3f}"
            for name in (*seen.factors(), *(name for name in last if name.startswith("reward/")))
            if name in last
        ]
        if pairs:
            rows.append(Text("    " + "   ".join(pairs)))
    rows += [_decision(outcome, text) for outcome, text in seen.decisions if outcome not in ROUTINE][-8:]
    if seen.ended:
        rows.append(Text(f"  {seen.ended}"))
    return rows


def _header(seen: Seen, now: float, width: int) -> Text:
    left = seen.left()
    clock = clock_text(seen.elapsed(now)) + (f", about {clock_text(left)} left" if left is not None else "")
    row = Text("forethought ", style="bold").append(_one_line(seen.where), style="not bold")
    row.truncate(max(width - len(clock) - 2, 0), overflow="ellipsis")
    return row.append(" " * max(width - row.cell_len - len(clock), 1)).append(clock, style="dim")


def _stages(seen: Seen, width: int, signs: dict[str, str]) -> list[Text]:
    first = max(0, min(seen.current - 1, len(seen.stages) - MOST_STAGES))
    rows = []
    for i, stage in list(enumerate(seen.stages))[first : first + MOST_STAGES]:
        row = _stage_name(i, stage, seen, signs)
        count = f" {stage.done}/{stage.steps}" if stage.steps else ""
        bar = max(10, min(30, width - 50))
        row.truncate(max(width - bar - len(count), 10), overflow="ellipsis", pad=True)
        if i == seen.current and stage.steps:
            row.append_text(_bar(stage.done / stage.steps, bar, "cyan", signs))
        else:
            row.append(" " * bar)
        rows.append(row.append(count, style="dim"))
    return rows


def _stage_name(i: int, stage: StageSeen, seen: Seen, signs: dict[str, str]) -> Text:
    done = i < seen.current or (0 < stage.steps <= stage.done)
    sign, style = (
        ("done", "green")
        if done
        else ("now", "cyan")
        if i == seen.current and seen.ended is None
        else ("wait", "dim")
    )
    row = (
        Text("  ").append(signs[sign], style=style).append(f" stage {i + 1}/{len(seen.stages)} ", style="dim")
    )
    return row.append(
        _one_line(stage.text) or ("to come" if i > seen.current else ""),
        style="" if i == seen.current else "dim",
    )


def _factors(seen: Seen, width: int, signs: dict[str, str]) -> list[Text]:
    values, _ = evaluation(seen.evals, seen.roles)
    if not values:
        waits = [] if seen.busy else [Text("  waiting for the first evaluation", style="dim")]
        return [Text(""), *waits]
    first, _ = evaluation(seen.stages[seen.current].first, seen.roles)
    rows = [Text("")]
    for name, value in values.items():
        row = Text(f"  {name:11}", style="bold" if name in seen.factors() else "").append(
            f"{value:6.3f} ", style="not bold"
        )
        if not name.startswith("reward/"):  # which has no ends
            style = "green" if name in seen.factors() else "blue"
            row.append_text(_bar(value, max(10, min(40, width - 52)), style, signs))
        rows.append(row.append_text(_change(value, first.get(name), signs)))
    rows[-1].append("  since the stage began", style="dim")
    return rows


def _busy(seen: Seen, now: float) -> list[Text]:
    if seen.busy is None:
        return []
    if said := seen.doing():
        return [Text(f"  {said}", style="cyan")]
    what, since = seen.busy
    last = seen.took.get(what)
    of = f" of about {clock_text(last)}" if last else ""
    return [Text(f"  {what}: {clock_text(now - since)}{of}", style="cyan")]


def _change(value: float, first: float | None, signs: dict[str, str]) -> Text:
    if first is None:
        return Text("")
    change = value - first
    if abs(change) < 0.0005:
        return Text(" = 0.000", style="dim")
    sign, style = (signs["up"], "green") if change > 0 else (signs["down"], "red")
    return Text(f" {sign} {change:+.3f}", style=style)


def _levels(seen: Seen) -> list[Text]:
    by_level = evaluation(seen.evals, seen.roles)[1]
    levels = sorted({level for values in by_level.values() for level in values})
    if not levels:
        return []
    rows = [Text(""), Text(f"  {'level':11}" + "".join(f"{level:6}" for level in levels), style="dim")]
    for name, values in by_level.items():
        row = Text(f"  {name:11}")
        for level in levels:
            value = values.get(level)
            style = "" if value is None else "green" if value >= 0.9 else "yellow" if value >= 0.5 else "dim"
            row.append(f"{'-' if value is None else f'{value:.2f}':>6}", style=style)
        rows.append(row)
    return rows


def _values(seen: Seen, width: int) -> tuple[list[Text], list[Text]]:
    """Rates and what a person follows of a step: the first row, and the second where one is too short."""
    cells, rows = seen.rates() + step_cells(seen.values), []
    while cells and len(rows) < 2:
        row = "  " + cells.pop(0)
        while cells and len(row) + 2 + len(cells[0]) <= width:
            row += "  " + cells.pop(0)
        rows.append(Text(row))
    return ([Text("")] if rows else []) + rows[:1], rows[1:]


def _decisions(seen: Seen) -> list[Text]:
    return (
        [Text(""), *(_decision(outcome, text) for outcome, text in seen.decisions[-3:])]
        if seen.decisions
        else []
    )


def _decision(outcome: str, text: str) -> Text:
    return (
        Text("  ")
        .append(outcome, style=OUTCOMES.get(outcome, "cyan"))
        .append(f": {_one_line(text.removeprefix(f'{outcome}: '))}")
    )


def _notes(seen: Seen) -> list[Text]:
    return [Text(f"  note: {_one_line(text)}", style="dim") for text in seen.notes[-2:]]


def _bar(share: float, cells: int, style: str, signs: dict[str, str]) -> Text:
    full = round(min(max(share, 0.0), 1.0) * cells) if share == share else 0  # NaN draws an empty bar
    return Text(signs["full"] * full, style=style).append(signs["rest"] * (cells - full), style="dim")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"
