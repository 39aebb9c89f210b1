"""`forethought arms`: recipes x seeds side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forethought.cli.arguments import Verbs, add_trust, numbers, positive, verb, words
from forethought.core.printable import Shown


def add_arms(verbs: Verbs) -> None:
    """The verb and its options."""
    own = verb(
        verbs,
        "arms",
        _arms,
        "train a declared set of recipes x seeds in parallel, and lay every arm side by side",
    )
    own.add_argument(
        "file", metavar="FILE.toml", type=Path, help="the arms: seeds, [group.NAME], [[arm]] and [[claim]]"
    )
    own.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where the runs and the page go (default: arms/<name>); finished runs stay",
    )
    own.add_argument(
        "--model",
        metavar="PATH",
        help="train this model in every arm, as `train --model` does: a folder, a GGUF file, or a name on "
        "the Hugging Face hub",
    )
    own.add_argument(
        "--workers", metavar="N", type=positive, default=0, help="runs at a time (default: one per core)"
    )
    own.add_argument(
        "--only", metavar="ARM,ARM", type=words, default=(), help="only these arms, as ARM or GROUP/ARM"
    )
    own.add_argument(
        "--seeds",
        metavar="S",
        type=numbers,
        default=(),
        help="only these seeds of the file, such as 0,1 or 0-4",
    )
    own.add_argument(
        "--redo",
        metavar="ARM,ARM",
        type=words,
        default=(),
        help="delete the runs of these arms and train them again",
    )
    own.add_argument(
        "--changed-code",
        action="store_true",
        help="runs that broke go on with code of their recipes that has changed since they began",
    )
    own.add_argument("--dry-run", action="store_true", help="list what would be trained, and stop")
    own.add_argument(
        "--page", action="store_true", help="only write the page and the tables of the existing runs"
    )
    add_trust(own)


def _arms(args: argparse.Namespace) -> int:
    from forethought.arms.command import Options, arms

    return arms(
        Options(
            file=args.file,
            out=args.out,
            model=args.model,
            workers=args.workers,
            only=args.only,
            seeds=args.seeds,
            redo=args.redo,
            changed_code=args.changed_code,
            dry_run=args.dry_run,
            page=args.page,
        ),
        Shown(sys.stdout),
    )
