"""The verbs that look at a run or a bare model: eval, sample, swap."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from forethought.cli.arguments import (
    Verbs,
    add_set,
    add_trust,
    from_zero,
    min_p,
    numbers,
    positive,
    temperature,
    top_p,
    verb,
)
from forethought.core.printable import printable
from forethought.display.pace import pace
from forethought.recipe.sampling import SAMPLED, measured_with, refuse_idle

if TYPE_CHECKING:
    from forethought.core.films import Film
    from forethought.look import Source
    from forethought.recipe.schema import TreeSpec

SOURCE = (
    "a run directory, a checkpoint in one (RUN/checkpoints/step-400), or a model: a folder with config.json, "
    "a GGUF file, or a name on the Hugging Face hub (with --task)"
)


def add_eval(verbs: Verbs) -> None:
    """Declare `eval SOURCE`."""
    parser = verb(verbs, "eval", _eval, "measure each role and all together on held-out tasks")
    parser.add_argument("source", metavar="SOURCE", type=Path, help=SOURCE)
    _add_task(parser)
    which = parser.add_mutually_exclusive_group()
    _add_step(which)
    which.add_argument(
        "--all-steps", action="store_true", help="every checkpoint of the run, one row of a table each"
    )
    parser.add_argument(
        "--levels", metavar="L", type=numbers, help="such as 3,4,5 or 3-5 (default: the run's)"
    )
    parser.add_argument(
        "--tasks",
        metavar="N",
        type=positive,
        help="tasks of each level (default: the run's; of --problems: all)",
    )
    _add_problems(parser)
    parser.add_argument(
        "--samples",
        metavar="K",
        type=positive,
        default=1,
        help="samples of each problem, for avg@K, pass@k and maj@K (default: one, greedy)",
    )
    parser.add_argument(
        "--temperature",
        metavar="T",
        type=temperature,
        help=f"default: 0; with --samples {SAMPLED['temperature']}",
    )
    parser.add_argument(
        "--top-p", metavar="P", type=top_p, help=f"default: 1; with --samples {SAMPLED['top_p']}"
    )
    _add_narrower(parser)
    parser.add_argument(
        "--latency",
        metavar="N",
        type=from_zero,
        default=0,
        help="also play N tasks one by one, and say how long an episode takes (default: none)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def add_sample(verbs: Verbs) -> None:
    """Declare `sample SOURCE`."""
    parser = verb(verbs, "sample", _sample, "look at what every role says, with what the verifiers say")
    parser.add_argument("source", metavar="SOURCE", type=Path, help=SOURCE)
    _add_task(parser)
    _add_step(parser)
    parser.add_argument(
        "--n", metavar="N", type=positive, default=4, help="tasks to show (default: %(default)s)"
    )
    parser.add_argument("--level", metavar="L", type=int, help="only tasks of this level")
    _add_problems(parser)
    parser.add_argument(
        "--temperature", metavar="T", type=temperature, default=1.0, help="0 is greedy (default: %(default)s)"
    )
    parser.add_argument("--top-p", metavar="P", type=top_p, default=1.0, help="default: %(default)s")
    _add_narrower(parser)
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="default: %(default)s")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object per task instead of text")
    how.add_argument(
        "--watch",
        metavar="FILE",
        nargs="?",
        type=Path,
        const=Path("watch.html"),
        help="play web pages in Chromium, and show what was planned and done on them: a page, or a picture "
        "where FILE ends with .png (default: watch.html); `window` plays them in a visible browser instead",
    )


def add_swap(verbs: Verbs) -> None:
    """Declare `swap SOURCE SOURCE ...`."""
    parser = verb(
        verbs,
        "swap",
        _swap,
        "measure the planner of every run or model with the actor of every other, on the tasks of each",
    )
    parser.add_argument(
        "sources", metavar="SOURCE", type=Path, nargs="+", help=f"at least two; each {SOURCE}"
    )
    _add_task(parser)
    parser.add_argument(
        "--tasks", metavar="N", type=positive, help="tasks of each level (default: each run's)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="a task family, or a recipe (a .toml file or a "
        "shipped one's name) whose task "
        "is taken (default: the run's own)",
    )
    add_set(parser, 'task.levels=[3] or task.eval=["test.jsonl"]')
    add_trust(parser)


def _add_step(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--step",
        metavar="N",
        type=from_zero,
        help="the run's checkpoint of this step (default: the newest)",
    )


def _add_narrower(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--top-k", metavar="K", type=from_zero, help="draw from the K likeliest tokens (default: 0, all)"
    )
    parser.add_argument(
        "--min-p",
        metavar="P",
        type=min_p,
        help="draw from tokens at least P times as likely as the likeliest (default: 0, all)",
    )


def _add_problems(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--problems", metavar="FILE.jsonl", type=Path, help="take these problems instead of the task's own"
    )


def _eval(args: argparse.Namespace) -> int:
    from forethought import look
    from forethought.display.tables import evaluation_table, steps_table

    tree = measured_with(args.samples, args.temperature, args.top_p, args.top_k, args.min_p)
    with redirect_stdout(sys.stderr):  # whatever a library prints must not end up inside the JSON
        steps = look.steps_of(args.source) if args.all_steps else [args.step]
        results = []
        for step in steps:
            source = look.find(args.source, args.task, args.overrides, step)
            results.append(
                look.evaluate(
                    source,
                    problems=args.problems,
                    tasks=args.tasks,
                    levels=args.levels,
                    tree=tree,
                    samples=args.samples,
                    alone=args.latency,
                    tell=_teller("tasks" if len(steps) == 1 else f"tasks at step {step}"),
                )
            )
            gc.collect()  # a model is full of cycles: it goes before the next one is loaded
    rows = dict(zip(steps, results, strict=True))
    if args.json:
        found = {"steps": [{"step": n, **row} for n, row in rows.items()]} if args.all_steps else results[0]
        print(json.dumps(found, allow_nan=False))
    else:
        table = steps_table(rows) if args.all_steps else evaluation_table(results[0])
        print(printable(table, keep="\n"))
    return 0


def _sample(args: argparse.Namespace) -> int:
    from forethought import look
    from forethought.recipe.schema import TreeSpec

    narrows = {
        "--top-p": args.top_p if args.top_p < 1 else None,
        "--top-k": args.top_k or None,
        "--min-p": args.min_p or None,
    }
    refuse_idle(args.temperature, narrows)
    tree = TreeSpec(
        temperature=args.temperature, top_p=args.top_p, top_k=args.top_k or 0, min_p=args.min_p or 0.0
    )
    if args.watch is not None:
        return _watch(args, tree)
    with redirect_stdout(sys.stderr):
        source = look.find(args.source, args.task, args.overrides, args.step)
        _tell_notes(source)
        rows = look.sample(
            source,
            n=args.n,
            level=args.level,
            tree=tree,
            seed=args.seed,
            problems=args.problems,
            tell=_teller("tasks"),
        )
    if args.json:
        for row in rows:
            print(json.dumps(row, allow_nan=False))
    else:
        from forethought.display.show import samples

        samples(rows, sys.stdout)
    return 0


def _watch(args: argparse.Namespace, tree: TreeSpec) -> int:
    from forethought import look
    from forethought.core.errors import UserError
    from forethought.envs.web.browser import no_window

    out = args.watch
    window = str(out) == "window"
    if window and (why := no_window()):
        raise UserError(f"--watch window: {why}; --watch FILE.html or FILE.png records the episodes")
    if not window and out.suffix not in (".html", ".png"):
        raise UserError(f"--watch: {out} ends with neither .html nor .png, and is not `window`")
    if not window and (out.is_dir() or not out.parent.is_dir()):
        raise UserError(f"--watch: {out} is a folder" if out.is_dir() else f"--watch: no folder {out.parent}")
    if args.problems is not None:
        raise UserError("--watch plays tasks of the taskset's own, and no --problems")
    with redirect_stdout(sys.stderr):
        source = look.find(args.source, args.task, args.overrides, args.step)
        _tell_notes(source)
        films = look.watch(
            source,
            n=args.n,
            level=args.level,
            tree=tree,
            seed=args.seed,
            tell=_teller("tasks"),
            window=window,
        )
    if not window:
        _write_films(films, source, out)
    wrong = {"words": "wrong plan", "element": "wrong element", "page": "page refused", "": "failed"}
    for film in films:
        ended = "success" if film.success else wrong[film.wrong]
        print(printable(f"{ended:14} {film.name}  {film.reason}".rstrip()))
    if not window:
        print(f"written: {out}")
    return 0


def _write_films(films: Sequence[Film], source: Source, out: Path) -> None:
    """As a page, or as a picture of it."""
    from forethought.report import page

    title = f"{source.recipe.name}, {'1 episode' if len(films) == 1 else f'{len(films)} episodes'}"
    if out.suffix == ".html":
        page.watch(films, title, out)
        return
    from forethought.envs.web.still import still

    with TemporaryDirectory() as folder:
        written = page.watch(films, title, Path(folder) / "page.html")
        still(written, out, source.recipe.task.options.get("browser", ""))


def _swap(args: argparse.Namespace) -> int:
    from forethought import look

    with redirect_stdout(sys.stderr):
        sources = look.find_all(args.sources, args.task, args.overrides)
        _tell_notes(*sources)
        tables = look.swap(
            sources,
            tasks=args.tasks,
            tell=_teller("visits of a model"),
        )
    if args.json:
        print(json.dumps({"tables": tables}, allow_nan=False))
    else:
        from forethought.display.tables import swap_tables

        print(printable(swap_tables(tables), keep="\n"))
    return 0


def _tell_notes(*sources: Source) -> None:
    """What of a run is not as it was written; the results of `eval` hold it."""
    for source in sources:
        for note in source.notes:
            print(printable(f"note: {source.path}: {note}"), file=sys.stderr)


def _teller(what: str) -> Callable[[int, int], None]:
    """Says on the terminal how far the work is, how fast it goes and about how long the rest takes; nothing
    where stderr is a file or a pipe."""
    first: tuple[int, float] | None = (
        None  # what was done before the clock began: a model was loaded in between
    )

    def tell(done: int, n: int) -> None:
        nonlocal first
        now = time.monotonic()
        before, began = first = first or (done, now)
        if sys.stderr.isatty():
            text = pace(done, n, what, now - began, before)
            print(f"\r{text}\x1b[K", end="" if done < n else "\n", file=sys.stderr, flush=True)

    return tell
