"""`forethought report`, `compare` and `recipes`: pages of runs that are there, and the recipes that ship."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forethought.cli.arguments import Verbs, need_run, verb
from forethought.core.errors import UserError
from forethought.core.printable import printable


def add_report(verbs: Verbs) -> None:
    """The verb and its options."""
    own = verb(verbs, "report", _report, "write DIR/report.html from what a run recorded")
    own.add_argument("dir", metavar="DIR", type=Path, help="a run directory")


def add_compare(verbs: Verbs) -> None:
    """The verb and its options."""
    own = verb(verbs, "compare", _compare, "one page with several runs side by side")
    own.add_argument("dirs", metavar="DIR", type=Path, nargs="+", help="run directories, at least two")
    own.add_argument(
        "--out", metavar="FILE.html", type=Path, default=Path("compare.html"), help="default: %(default)s"
    )


def add_recipes(verbs: Verbs) -> None:
    """The verb and its options."""
    own = verb(verbs, "recipes", _recipes, "list the shipped recipes, or print one")
    own.add_argument("name", metavar="NAME", nargs="?", help="print this recipe's TOML")


def _report(args: argparse.Namespace) -> int:
    from forethought import report

    need_run(args.dir)
    _print_path(report.write(args.dir))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from forethought import report

    if len(args.dirs) < 2:
        raise UserError("compare needs at least two run directories")
    for path in args.dirs:
        need_run(path)
    _print_path(report.compare(args.dirs, args.out))
    return 0


def _print_path(path: Path) -> None:
    """As it is for a pipe, which takes it as a name; a terminal is shown it without what its name could do
    there."""
    print(printable(path) if sys.stdout.isatty() else path)


def _recipes(args: argparse.Namespace) -> int:
    import shutil
    import textwrap

    from forethought.core.errors import unknown
    from forethought.recipe.load import read_tables, shipped, shipped_arms

    recipes = shipped()
    arms = [(name, path, str(read_tables(path).get("about", ""))) for name, path in shipped_arms().items()]
    if args.name is None:
        # a pipe gets one line each
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
        for name, _, about in recipes:
            print(textwrap.fill(about, width, initial_indent=f"{name:14} ", subsequent_indent=" " * 15))
        for name, _, about in arms:
            start = f"{name}: for `forethought arms {name}`. "
            print(textwrap.fill(about, width, initial_indent=start, subsequent_indent=" " * 15))
        return 0
    files = {name: path for name, path, _ in recipes + arms}
    if args.name not in files:
        raise UserError(unknown("recipe", args.name, files))
    print(files[args.name].read_text(encoding="utf-8"), end="")
    return 0
