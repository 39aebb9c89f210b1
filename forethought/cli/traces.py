"""The verb that finds saved trees again: traces."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forethought.cli.arguments import Verbs, from_zero, positive, shares, verb
from forethought.core.errors import UserError
from forethought.core.printable import printable

MOST_NAMED = 10  # damaged files


def add_traces(verbs: Verbs) -> None:
    """Declare `traces DIR` with its filters."""
    parser = verb(
        verbs,
        "traces",
        _traces,
        "find saved trees: every turn, with verdict, reward and credit",
    )
    parser.add_argument(
        "dir",
        metavar="DIR",
        type=Path,
        help="a run directory, or a checkpoint in one for the trees of its step",
    )
    parser.add_argument("--step", metavar="N", type=int, help="only this step")
    parser.add_argument(
        "--stage", metavar="N", type=positive, help="only this stage, from 1 as the report counts them"
    )
    parser.add_argument("--level", metavar="L", type=int, help="only tasks of this level")
    parser.add_argument(
        "--task", metavar="TEXT", default="", help="only tasks with this in their id or prompt"
    )
    for sign, about in (
        ("refused", "a turn was refused"),
        ("truncated", "a turn ran out of its tokens"),
        ("disagree", "a plan was right and its executions failed, or the reverse"),
    ):
        parser.add_argument(
            f"--{sign}",
            action="append_const",
            const=sign,
            dest="signs",
            default=[],
            help=f"only where {about}",
        )
    parser.add_argument(
        "--sign",
        metavar="NAME",
        action="append",
        dest="signs",
        help="any sign of the report, such as split or lone",
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="only where a reason contains this")
    parser.add_argument(
        "--quality",
        "--plan-quality",
        metavar="A-B",
        type=shares,
        help="only with a plan of this quality, such as 0.2-0.8",
    )
    parser.add_argument(
        "--measure",
        metavar="NAME",
        default="outcome",
        help="what --quality reads: outcome (the share of executions that succeed), valid or analytic "
        "(default: %(default)s)",
    )
    solved = parser.add_mutually_exclusive_group()
    solved.add_argument(
        "--solved", action="store_true", default=None, help="only where an execution succeeded"
    )
    solved.add_argument(
        "--failed", action="store_false", default=None, dest="solved", help="only where none did"
    )
    parser.add_argument(
        "--n", metavar="N", type=from_zero, default=10, help="trees to show; 0: all (default: %(default)s)"
    )
    parser.add_argument("--full", action="store_true", help="print long texts in full, and the context")
    parser.add_argument("--json", action="store_true", help="print one JSON object per tree instead of text")


def _traces(args: argparse.Namespace) -> int:
    from forethought.display.trees import print_found
    from forethought.store import run_at
    from forethought.traces.find import Filter, find, roles_of_run

    if (at := run_at(args.dir, args.step)) is None:
        raise UserError(f"{args.dir}: no run here (a run directory has a recipe.json)")
    run, step = at
    wanted = Filter(
        step=step,
        stage=args.stage and args.stage - 1,
        level=args.level,
        task=args.task,
        reason=args.reason,
        signs=tuple(args.signs),
        solved=args.solved,
        quality=args.quality,
        measure=args.measure,
    )
    notes = _damage(run, step)
    found, roles = find(run, wanted, notes), roles_of_run(run)
    print_found(found, args.n, sys.stdout, full=args.full, as_json=args.json, roles=roles)
    for note in notes:
        print(printable(note), file=sys.stderr)
    return 0


def _damage(run_dir: Path, step: int | None) -> list[str]:
    """A sentence for each file of trees (of this step) that is not as the run wrote it; whoever looks for
    trees should not trust it."""
    from forethought.store import Store

    wrong = Store(run_dir).damaged_trees()
    concerned = [name for name in wrong if step is None or name == f"trees/step-{step:06d}.jsonl.gz"]
    more = len(concerned) - MOST_NAMED
    said = [f"{run_dir / name} {wrong[name]}." for name in concerned[:MOST_NAMED]]
    return said + [f"{more:,} more files of trees are not as the run wrote them."] * (more > 0)
