"""All runs in a folder, a row each: for the terminal, and as index.html, whose columns sort by a click."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from forethought.core.errors import UserError
from forethought.recipe.roles import roles_in
from forethought.report.effects import TOGETHER, first_and_last
from forethought.report.load import Run, load
from forethought.report.page import _asset, _safe_text, write_page

DEPTH = 2  # folders below the one that is asked for in which runs are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A run as the list shows it. `numbers`: measurement -> its newest value; `note`: what keeps it from
    being read."""

    path: Path
    recipe: str = ""
    status: str = ""
    step: int = 0
    seconds: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)
    note: str = ""


def rows_in(folder: Path) -> list[Row]:
    """A row for each run up to two folders below `folder`, by path. UserError where it is no folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give one with runs in it")
    found = {
        path.parent for depth in range(1, DEPTH + 1) for path in folder.glob("*/" * depth + "recipe.json")
    }
    return [_row(path) for path in sorted(found)]


def _row(path: Path) -> Row:
    try:
        run = load(path)
    except UserError as error:
        waits = not (path / "metrics.jsonl").exists()
        return Row(path=path, status="begun" if waits else "unreadable", note="" if waits else str(error))
    start, end = first_and_last(run)
    shown = {name: point.value for name, point in (end or start).items() if "@" not in name}
    order = [*roles_in(run.recipe), TOGETHER]
    return Row(
        path=path,
        recipe=str(run.recipe.get("name", "")),
        status=run.status + (", a stage trained nothing" if _idle(run) else ""),
        step=run.lines[-1]["step"] if run.lines else 0,
        seconds=max((line.get("seconds") or 0.0 for line in run.lines), default=0.0),
        numbers={name: shown[name] for name in [*order, *sorted({*shown} - {*order})] if name in shown},
    )


def _idle(run: Run) -> bool:
    stages = run.summary.get("stages", [])
    return isinstance(stages, list) and any(
        isinstance(stage, dict) and stage.get("trained_nothing") for stage in stages
    )


def columns(rows: Sequence[Row]) -> list[str]:
    """The measurements of all rows, all roles together last."""
    names = list(dict.fromkeys(name for row in rows for name in row.numbers))
    return [name for name in names if name != TOGETHER] + [TOGETHER] * (TOGETHER in names)


def ordered(rows: Sequence[Row], by: str) -> list[Row]:
    """By a measurement (best first, those without it last), or by name, step or time. UserError for what is
    none of them."""
    keys = {
        "name": lambda row: str(row.path),
        "step": lambda row: -row.step,
        "time": lambda row: -row.seconds,
    }
    if by in keys:
        return sorted(rows, key=keys[by])
    if by not in (known := columns(rows)):
        raise UserError(f"--sort {by}: no run measured it; sort by {', '.join([*keys, *known])}")
    return sorted(rows, key=lambda row: -row.numbers.get(by, -1.0))


def table(rows: Sequence[Row], folder: Path) -> str:
    """For a terminal."""
    names = columns(rows)
    head = ["run", "recipe", "status", "step", "seconds", *names]
    body = [
        [
            row.path.relative_to(folder).as_posix(),
            row.recipe,
            row.status,
            str(row.step),
            f"{row.seconds:.0f}",
            *(f"{row.numbers[name]:.3f}" if name in row.numbers else "-" for name in names),
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *body]
    )


def write_index(rows: Sequence[Row], folder: Path) -> Path:
    """`folder`/index.html, which links every report that is there."""
    names = columns(rows)
    heads = ["run", "recipe", "status", "step", "seconds", *names]
    cells = []
    for row in rows:
        where = row.path.relative_to(folder).as_posix()
        shown = html.escape(_safe_text(where))
        link = f'<a href="{quote(where)}/report.html">{shown}</a>'
        values = [row.step, row.seconds, *(row.numbers.get(name) for name in names)]
        texts = [
            f"{row.step:,}",
            f"{row.seconds:,.0f}",
            *("" if row.numbers.get(name) is None else f"{row.numbers[name]:.3f}" for name in names),
        ]
        title = f' title="{html.escape(_safe_text(row.note), quote=True)}"' if row.note else ""
        cells.append(
            f"<tr><td>{link if (row.path / 'report.html').exists() else shown}</td>"
            f"<td>{html.escape(_safe_text(row.recipe))}</td><td{title}>{html.escape(row.status)}</td>"
            + "".join(
                f'<td class="n" data-v="{"" if value is None else repr(float(value))}">{text}</td>'
                for value, text in zip(values, texts, strict=True)
            )
            + "</tr>"
        )
    page = _asset("index.html")
    for key, text in (
        (
            "{{HEADS}}",
            "".join(f"<th><button>{html.escape(_safe_text(head))}</button></th>" for head in heads),
        ),
        ("{{TITLE}}", html.escape(_safe_text(str(folder)))),
        ("{{COUNT}}", f"{len(rows):,} run{'' if len(rows) == 1 else 's'}"),
        ("{{ROWS}}", "\n".join(cells)),  # last: a run's text may hold a placeholder
    ):
        page = page.replace(key, text)
    return write_page(folder / "index.html", page)
