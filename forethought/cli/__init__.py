"""The command line: one verb per thing to do. Heavy imports happen inside the verbs, so `--help` answers at
once.

Exit codes: 0 done; the others are those of faults.py.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from forethought import __version__
from forethought.cli.arguments import Parser, Verbs
from forethought.cli.arguments import add_set as _add_set
from forethought.cli.arguments import add_trust as _add_trust
from forethought.cli.arguments import numbers as _numbers
from forethought.cli.arguments import positive as _positive
from forethought.cli.arguments import verb as _verb
from forethought.cli.arguments import words as _words
from forethought.cli.check import add_check
from forethought.cli.explain import add_explain
from forethought.cli.export import add_export
from forethought.cli.faults import explain
from forethought.cli.grams import add_grams
from forethought.cli.look import add_eval, add_sample, add_swap
from forethought.cli.new import add_new
from forethought.cli.runs import add_runs, add_watch
from forethought.cli.traces import add_traces
from forethought.core.consent import trusting
from forethought.core.errors import UserError, quoted
from forethought.core.printable import Shown, printable

if TYPE_CHECKING:
    from forethought.recipe.schema import Recipe


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code (argparse itself exits with 2 for a wrong command line)."""
    for stream in (sys.stdout, sys.stderr):
        # a terminal that knows ASCII or cp1252 alone is shown codes, and no text ends the program
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    args = argparse.Namespace(run_dir=None)
    # set by the verb that writes into one: where a traceback is kept, and what can be resumed
    # else Python looks for garbage in all of torch before it ends, longer than a step takes
    atexit.register(gc.freeze)
    try:
        _parser().parse_args(argv, args)
        with trusting(getattr(args, "trust_code", False)):
            code = args.do(args)
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        with _heard(error):
            return explain(error, args.run_dir)


@contextmanager
def _heard(error: BaseException) -> Iterator[None]:
    """While a Ctrl-C is answered, a second one changes nothing: it would only put a traceback in place of the
    hint."""
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="forethought",
        description="Staged post-training of models that plan before they act.",
        epilog="Start with `forethought train`: it trains a small model on this machine.",
    )
    parser.add_argument("--version", action="version", version=f"forethought {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB", title="verbs")
    _add_train(verbs)
    add_eval(verbs)
    add_sample(verbs)
    add_swap(verbs)
    add_export(verbs)
    add_traces(verbs)
    add_watch(verbs)
    add_runs(verbs)
    _add_arms(verbs)
    add_grams(verbs)
    add_new(verbs)
    add_check(verbs)
    add_explain(verbs)

    verb = _verb(verbs, "report", _report, "write DIR/report.html from what a run recorded")
    verb.add_argument("dir", metavar="DIR", type=Path, help="a run directory")

    verb = _verb(verbs, "compare", _compare, "one page with several runs side by side")
    verb.add_argument("dirs", metavar="DIR", type=Path, nargs="+", help="run directories, at least two")
    verb.add_argument(
        "--out", metavar="FILE.html", type=Path, default=Path("compare.html"), help="default: %(default)s"
    )

    verb = _verb(verbs, "recipes", _recipes, "list the shipped recipes, or print one")
    verb.add_argument("name", metavar="NAME", nargs="?", help="print this recipe's TOML")
    return parser


def _add_train(verbs: Verbs) -> None:
    verb = _verb(verbs, "train", _train, "train a recipe, stage by stage")
    verb.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help="a .toml file, a shipped recipe's name (default: desk), or a run",
    )
    _add_set(verb)
    verb.add_argument(
        "--model",
        metavar="PATH",
        help="start from this model: a directory, or a name on the Hugging Face hub",
    )
    verb.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="the run directory (default: runs/<recipe>-<n>, the first free n)",
    )
    verb.add_argument(
        "--resume",
        metavar="DIR",
        type=Path,
        help="continue the run in DIR from its newest checkpoint; --set changes what touches nothing done",
    )
    verb.add_argument(
        "--changed-code",
        action="store_true",
        help="for --resume: go on with code of the recipe's that has changed since the run began",
    )
    verb.add_argument("--seed", metavar="N", type=int, help="the recipe's seed")
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="print the whole recipe, then what would run and what it would take, and stop",
    )
    verb.add_argument(
        "--hardware",
        metavar="NAME",
        help="for --dry-run: h200, h100, a100, 4090 or cpu (default: this machine)",
    )
    verb.add_argument(
        "--assume",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="for --dry-run: change an assumption it prints",
    )
    verb.add_argument("--plain", action="store_true", help="plain lines instead of the live display")
    verb.add_argument("--no-gates", action="store_true", help="train without the recipe's gates")
    _add_trust(verb)


def _add_arms(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "arms",
        _arms,
        "train a declared set of recipes x seeds in parallel, and lay every arm side by side",
    )
    verb.add_argument(
        "file", metavar="FILE.toml", type=Path, help="the arms: seeds, [group.NAME], [[arm]] and [[claim]]"
    )
    verb.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where the runs and the page go (default: arms/<name>); finished runs stay",
    )
    verb.add_argument(
        "--workers", metavar="N", type=_positive, default=0, help="runs at a time (default: one per core)"
    )
    verb.add_argument(
        "--only", metavar="ARM,ARM", type=_words, default=(), help="only these arms, as ARM or GROUP/ARM"
    )
    verb.add_argument(
        "--seeds",
        metavar="S",
        type=_numbers,
        default=(),
        help="only these seeds of the file, such as 0,1 or 0-4",
    )
    verb.add_argument(
        "--redo",
        metavar="ARM,ARM",
        type=_words,
        default=(),
        help="delete the runs of these arms and train them again",
    )
    verb.add_argument("--dry-run", action="store_true", help="list what would be trained, and stop")
    verb.add_argument(
        "--page", action="store_true", help="only write the page and the tables of the existing runs"
    )
    _add_trust(verb)


# Verbs: each returns an exit code ---------------------------------------------------------------------------


def _train(args: argparse.Namespace) -> int:
    recipe = _recipe_to_train(args)
    if args.dry_run:
        from forethought.display.show import outline
        from forethought.recipe.convert import to_toml
        from forethought.recipe.doubts import doubts

        estimated = _estimate(recipe, args)  # its mistakes come before anything is printed
        print(to_toml(recipe), "", outline(recipe), sep="\n")  # what a terminal shows is the end
        print(*(f"# {line}" for line in estimated + doubts(recipe)), sep="\n")
        return 0
    if args.hardware or args.assume:
        raise UserError(
            "--hardware and --assume are for --dry-run, which tells what a run would take; a run "
            "uses the machine it is on"
        )
    from forethought.store import free_directory, is_new

    args.run_dir = args.resume or args.out or free_directory(recipe.name)
    if not args.resume and args.run_dir.exists() and not args.run_dir.is_dir():
        raise UserError(f"--out: {args.run_dir} is not a folder; give one that is new or empty")
    if not args.resume and not is_new(args.run_dir):
        begun = (args.run_dir / "recipe.json").is_file()
        way = (
            f"continue that run with --resume {quoted(args.run_dir)}, or choose another --out"
            if begun
            else "choose another --out"
        )
        raise UserError(f"{args.run_dir} is not empty; {way}")

    from forethought import display

    # which takes seconds, before there is a run to tell of
    display.opening(sys.stdout, args.plain, f"{recipe.name}: loading PyTorch")
    from forethought.runs import run

    with display.choose(sys.stdout, args.plain) as observe:
        changes = {"overrides": args.overrides} if args.overrides else {}
        changes |= {"changed_code": True} if args.changed_code else {}
        result = (
            run.resume(args.run_dir, observe, **changes)
            if args.resume
            else run.train(recipe, args.run_dir, observe)
        )
    return result.exit_code


def _estimate(recipe: Recipe, args: argparse.Namespace) -> list[str]:
    from forethought.core.errors import unknown
    from forethought.estimate import HARDWARE, Assumptions, cpu, estimate, lines, this_machine

    known = {**HARDWARE, "cpu": cpu()}
    if args.hardware is not None and args.hardware.lower() not in known:
        raise UserError(f"--hardware: {unknown('hardware', args.hardware, known)}")
    hardware = (
        known[args.hardware.lower()]
        if args.hardware
        else cpu()
        if recipe.engine.device == "cpu"
        else this_machine()
    )
    return lines(estimate(recipe, hardware, Assumptions.said(args.assume)))


def _recipe_to_train(args: argparse.Namespace) -> Recipe:
    """The recipe with the command line's changes, checked. A run to resume keeps the recipe it began with,
    but for what `runs.changes` allows."""
    from dataclasses import replace

    from forethought.recipe.load import load

    if args.resume:
        named = {
            "RECIPE": args.recipe,
            "--model": args.model,
            "--out": args.out,
            "--seed": args.seed is not None,
            "--no-gates": args.no_gates,
        }
        extra = [name for name, given in named.items() if given]
        if extra:
            raise UserError(
                f"--resume continues a run with the recipe it began with, so it takes no {', '.join(extra)}"
            )
    if args.resume:
        if not (args.resume / "recipe.json").is_file():
            raise UserError(f"--resume {args.resume}: no run there (a run directory has a recipe.json)")
        return _recipe_of_run(args.resume, args.changed_code)
    if args.changed_code:
        raise UserError("--changed-code is for --resume: a new run begins with the code as it is")
    recipe = load(args.recipe or "desk", args.overrides)
    if args.model is not None:
        recipe = replace(recipe, model=replace(recipe.model, path=args.model))
        if args.trust_code:
            recipe = replace(recipe, model=replace(recipe.model, trust_remote_code=True))
    if args.seed is not None:
        recipe = replace(recipe, seed=args.seed)
    if args.no_gates:
        stages = (replace(stage, gates=()) if stage.gates else stage for stage in recipe.stage)
        recipe = replace(recipe, stage=tuple(stages))
    return _checked(recipe)


def _checked(recipe: Recipe) -> Recipe:
    from forethought.recipe.check import check

    check(recipe)
    if any(stage.kind == "distill" for stage in recipe.stage):
        from forethought.stages.distill.check import check_endpoints

        check_endpoints(recipe)
    return recipe


def _recipe_of_run(run: Path, changed_code: bool) -> Recipe:
    """What recipe.json of a run holds. A mistake in it is damage to the run: the message names the file. So
    is code that has changed, unless `changed_code` accepts it."""
    from forethought.core.errors import RecipeError
    from forethought.recipe.load import load, read_tables
    from forethought.runs.rundata import refuse_strange_code

    try:
        refuse_strange_code(run, read_tables(run / "recipe.json"), changed_code)
        recipe = load(run, ())
    except RecipeError as error:
        raise UserError(
            f"{run / 'recipe.json'} does not hold the run's recipe ({error}): put it back as it "
            f"was; state.json of every "
            'checkpoint holds it under "recipe"'
        ) from None
    try:
        return _checked(recipe)
    except RecipeError as error:  # of a whole recipe: damage, or what this machine or version lacks
        raise UserError(f"{run / 'recipe.json'}: {error}") from None


def _arms(args: argparse.Namespace) -> int:
    from forethought.arms.command import Options, arms

    return arms(
        Options(
            file=args.file,
            out=args.out,
            workers=args.workers,
            only=args.only,
            seeds=args.seeds,
            redo=args.redo,
            dry_run=args.dry_run,
            page=args.page,
        ),
        Shown(sys.stdout),
    )


def _report(args: argparse.Namespace) -> int:
    from forethought import report

    _need_runs([args.dir])
    _print_path(report.write(args.dir))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from forethought import report

    if len(args.dirs) < 2:
        raise UserError("compare needs at least two run directories")
    _need_runs(args.dirs)
    _print_path(report.compare(args.dirs, args.out))
    return 0


def _print_path(path: Path) -> None:
    """As it is for a pipe, which takes it as a name; a terminal is shown it without what its name could do
    there."""
    print(printable(path) if sys.stdout.isatty() else path)


def _need_runs(dirs: list[Path]) -> None:
    for path in dirs:
        if not (path / "recipe.json").is_file():
            raise UserError(f"{path}: no run here (a run directory has a recipe.json)")


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
