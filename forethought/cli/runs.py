"""The verbs that look at runs as they go: watch, runs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from forethought.cli.arguments import Verbs, need_run, positive, verb
from forethought.core.errors import UserError
from forethought.core.printable import printable

STATUS = ("metrics.jsonl", "decisions.jsonl", "summary.json")  # whose change is a reason to draw anew


def add_watch(verbs: Verbs) -> None:
    """Declare `watch DIR`."""
    parser = verb(
        verbs, "watch", _watch, "keep DIR/report.html up to date while a run goes on; the open page follows"
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="a run directory")
    parser.add_argument(
        "--every",
        metavar="S",
        type=positive,
        default=5,
        help="seconds between two looks (default: %(default)s)",
    )


def add_runs(verbs: Verbs) -> None:
    """Declare `runs [DIR]`."""
    parser = verb(verbs, "runs", _runs, "list all runs in a folder, and write DIR/index.html")
    parser.add_argument(
        "dir", metavar="DIR", type=Path, nargs="?", default=Path("runs"), help="default: %(default)s"
    )
    parser.add_argument(
        "--sort", metavar="BY", default="name", help="name, step, time, or a measurement such as plan or e2e"
    )


def _watch(args: argparse.Namespace) -> int:
    from forethought import report

    need_run(args.dir)
    page, seen = args.dir / "report.html", None
    print(
        printable(f"open {page.resolve().as_uri()} in a browser; Ctrl-C ends the watch, not the run"),
        flush=True,
    )
    while True:
        now = _marks(args.dir)
        over = _over(args.dir)
        if now != seen and (args.dir / "metrics.jsonl").is_file():
            report.write(args.dir, refresh=0 if over else args.every)
            seen = now
        if over:
            print(printable(f"the run is over ({over}); {page} stays as it is"))
            return 0
        time.sleep(args.every)


def _marks(run: Path) -> list[tuple[int, int]]:
    return [
        (stat.st_mtime_ns, stat.st_size)
        for name in STATUS
        if (run / name).exists() and (stat := (run / name).stat())
    ]


def _over(run: Path) -> str:
    """How a run has ended, "" while it goes on (or was killed: it may be resumed)."""
    from forethought.store import Store

    status = Store(run).read_summary()[0].get("status", "running")
    return "" if status == "running" else str(status)


def _runs(args: argparse.Namespace) -> int:
    from forethought.report.runs import ordered, rows_in, table, write_index

    rows = rows_in(args.dir)
    if not rows:
        raise UserError(f"{args.dir}: no runs here (a run directory has a recipe.json)")
    rows = ordered(rows, args.sort)
    print(printable(table(rows, args.dir), keep="\n"))
    for row in rows:
        if row.note:
            print(printable(f"note: {row.path}: {row.note}"), file=sys.stderr)
    page = write_index(rows, args.dir)
    print(printable(f"\n{page}", keep="\n"))
    return 0
