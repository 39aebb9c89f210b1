"""The verbs about strategic grams: grams mine, grams show."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forethought.cli.arguments import Verbs, numbers, positive, verb
from forethought.core.printable import Shown

SOURCE = "a run, a distilled data set, or a .jsonl file of solutions"


def add_grams(verbs: Verbs) -> None:
    """Declare `grams` with its verbs `mine` and `show`."""
    parser = verbs.add_parser(
        "grams",
        help="mine and look at the phrases by which planning is recognised (HICRA)",
        description="The phrases by which text is recognised as planning, for credit.grams of a recipe.",
    )
    below = parser.add_subparsers(required=True, metavar="VERB", title="verbs")
    _add_mine(below)
    _add_show(below)


def _add_mine(verbs: Verbs) -> None:
    parser = verb(
        verbs, "mine", _mine, "list the n-grams whose clusters stand in most solutions that were right"
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help=SOURCE)
    parser.add_argument(
        "--embed",
        metavar="MODEL",
        required=True,
        help="a Hugging Face model, such as sentence-transformers/all-MiniLM-L6-v2, or "
        '"words": no model, hashed words',
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="the list: a text file to edit"
    )
    parser.add_argument(
        "--n", metavar="N", type=numbers, help="words of an n-gram, such as 3-5 (the default)"
    )
    parser.add_argument("--clusters", metavar="N", type=positive, help="clusters of k-means (default: 100)")
    parser.add_argument(
        "--top", metavar="SHARE", type=float, help="share of the clusters to keep (default: 0.2)"
    )
    parser.add_argument(
        "--least", metavar="N", type=positive, help="least solutions in which an n-gram occurs (default: 2)"
    )
    parser.add_argument(
        "--most", metavar="N", type=positive, help="n-grams to embed, the most widespread (default: 50000)"
    )
    parser.add_argument(
        "--solutions",
        metavar="N",
        type=positive,
        help="solutions to read; of more, this many are drawn (default: 10000)",
    )
    parser.add_argument("--seed", metavar="S", type=int, help="default: 0")
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default="auto",
        help="for the model: auto, cpu or cuda (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite FILE")


def _add_show(verbs: Verbs) -> None:
    parser = verb(verbs, "show", _show, "what a list holds, and what it finds")
    parser.add_argument("file", metavar="FILE", type=Path, help="a list of grams")
    parser.add_argument("--on", metavar="SOURCE", type=Path, help=f"count them here: {SOURCE}")
    parser.add_argument(
        "--tokenizer", metavar="MODEL", default="", help="count this model's tokens instead of words"
    )
    parser.add_argument(
        "--examples", metavar="N", type=positive, default=3, help="excerpts to show (default: %(default)s)"
    )


def _mine(args: argparse.Namespace) -> int:
    from forethought.grams.command import MineOptions, mine

    given = {name: getattr(args, name) for name in ("clusters", "top", "least", "most", "solutions", "seed")}
    if args.n is not None:
        given |= {"shortest": min(args.n), "longest": max(args.n)}
    return mine(
        MineOptions(
            source=args.source,
            embed=args.embed,
            out=args.out,
            device=args.device,
            force=args.force,
            settings={name: value for name, value in given.items() if value is not None},
        ),
        Shown(sys.stdout),
    )


def _show(args: argparse.Namespace) -> int:
    from forethought.grams.show import show

    return show(args.file, args.on, args.tokenizer, args.examples, Shown(sys.stdout))
