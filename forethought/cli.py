"""The command line: one verb per thing to do. Heavy imports happen inside the verbs, so `--help` answers at once.

Exit codes: 0 done, 1 our fault or the machine's, 2 the user's mistake, 3 a gate stopped the run, 128 + n stopped by signal n.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from forethought import __version__
from forethought.errors import ForethoughtError, UserError

if TYPE_CHECKING:
    from forethought.recipe.schema import Recipe

_GONE = 141  # 128 + SIGPIPE: the reader of our output went away, as with `| head`


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code (argparse itself exits with 2 for a wrong command line)."""
    args = _parser().parse_args(argv)
    args.run_dir = None  # set by the verb that writes into one: where a traceback is kept, and what can be resumed
    try:
        code = args.do(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _abandon_stdout()
        return _GONE
    except ForethoughtError as error:
        return _say(" ".join(str(error).splitlines()), error.exit_code)
    except KeyboardInterrupt:
        return _say(f"interrupted{_resume_hint(args.run_dir)}", 130)
    except OSError as error:
        return _say(_about_machine(error) + _resume_hint(args.run_dir), 1)
    except Exception as error:  # our fault: keep the traceback, spare the terminal
        return _say(_about_fault(error, args.run_dir), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forethought", description="Staged post-training of models that plan before they act.",
        epilog="Start with `forethought train`: it trains a small model on this machine.",
    )
    parser.add_argument("--version", action="version", version=f"forethought {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB", title="verbs")
    _add_train(verbs)
    _add_eval(verbs)
    _add_sample(verbs)
    _add_arms(verbs)

    verb = _verb(verbs, "report", _report, "write DIR/report.html from what a run recorded")
    verb.add_argument("dir", metavar="DIR", type=Path, help="a run directory")

    verb = _verb(verbs, "compare", _compare, "one page with several runs side by side")
    verb.add_argument("dirs", metavar="DIR", type=Path, nargs="+", help="run directories, at least two")
    verb.add_argument("--out", metavar="FILE.html", type=Path, default=Path("compare.html"), help="default: %(default)s")

    verb = _verb(verbs, "recipes", _recipes, "list the shipped recipes, or print one")
    verb.add_argument("name", metavar="NAME", nargs="?", help="print this recipe's TOML")
    return parser


def _verb(verbs, name: str, do, about: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    verb.set_defaults(do=do)
    return verb


def _add_set(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides",
                      help="change one value of the recipe, such as stage.0.until.steps=50; may be repeated")


def _add_train(verbs) -> None:
    verb = _verb(verbs, "train", _train, "train a recipe, stage by stage")
    verb.add_argument("recipe", metavar="RECIPE", nargs="?", help="a .toml file, a shipped recipe's name (default: desk), or a run")
    _add_set(verb)
    verb.add_argument("--model", metavar="PATH", help="start from this model: a directory, or a name on the Hugging Face hub")
    verb.add_argument("--out", metavar="DIR", type=Path, help="the run directory (default: runs/<recipe>-<n>, the first free n)")
    verb.add_argument("--resume", metavar="DIR", type=Path, help="continue the run in DIR from its newest checkpoint")
    verb.add_argument("--seed", metavar="N", type=int, help="the recipe's seed")
    verb.add_argument("--dry-run", action="store_true", help="print what would run, as a recipe file, and stop")
    verb.add_argument("--plain", action="store_true", help="plain lines instead of the live display")
    verb.add_argument("--no-gates", action="store_true", help="train without the recipe's gates")


def _add_eval(verbs) -> None:
    verb = _verb(verbs, "eval", _eval, "measure planning, acting and both together on held-out tasks")
    verb.add_argument("source", metavar="DIR", type=Path, help="a run directory")
    verb.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    verb.add_argument("--levels", metavar="L", type=_numbers, help="such as 3,4,5 or 3-5 (default: the run's)")
    verb.add_argument("--tasks", metavar="N", type=_positive, help="tasks per level (default: the run's)")
    verb.add_argument("--problems", metavar="FILE.jsonl", type=Path, help="evaluate on these problems instead of generated ones")
    _add_set(verb)


def _add_sample(verbs) -> None:
    verb = _verb(verbs, "sample", _sample, "look at plans and actions, with what the verifiers say")
    verb.add_argument("dir", metavar="DIR", type=Path, help="a run directory")
    verb.add_argument("--n", metavar="N", type=_positive, default=4, help="tasks to show (default: %(default)s)")
    verb.add_argument("--level", metavar="L", type=int, help="only tasks of this level")
    verb.add_argument("--temperature", metavar="T", type=float, default=1.0, help="0 is greedy (default: %(default)s)")
    verb.add_argument("--seed", metavar="S", type=int, default=0, help="default: %(default)s")


def _add_arms(verbs) -> None:
    verb = _verb(verbs, "arms", _arms, "train a declared set of recipes x seeds in parallel, and lay every arm side by side")
    verb.add_argument("file", metavar="FILE.toml", type=Path, help="the arms: seeds, [group.NAME], [[arm]] and [[claim]]")
    verb.add_argument("--out", metavar="DIR", type=Path, help="where the runs and the page go (default: arms/<name>); finished runs stay")
    verb.add_argument("--workers", metavar="N", type=_positive, default=0, help="runs at a time (default: one a core)")
    verb.add_argument("--only", metavar="ARM,ARM", type=_words, default=(), help="only these arms, as ARM or GROUP/ARM")
    verb.add_argument("--seeds", metavar="S", type=_numbers, default=(), help="only these seeds of the file, such as 0,1 or 0-4")
    verb.add_argument("--redo", metavar="ARM,ARM", type=_words, default=(), help="throw the runs of these arms away and train them again")
    verb.add_argument("--dry-run", action="store_true", help="list what would be trained, and stop")
    verb.add_argument("--page", action="store_true", help="only write the page and the tables of what is there")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise argparse.ArgumentTypeError(f"expected numbers such as 3,4,5 or 3-5, found {text!r}")
        numbers += range(int(low), int(high or low) + 1)
    return tuple(numbers)


# Verbs: each returns an exit code ---------------------------------------------------------------------------------------


def _train(args: argparse.Namespace) -> int:
    recipe = _recipe_to_train(args)
    if args.dry_run:
        from forethought.display.show import outline
        from forethought.recipe.convert import to_toml

        print(outline(recipe), end="\n\n")
        print(to_toml(recipe), end="")
        return 0
    args.run_dir = args.resume or args.out or _free_directory(recipe.name)
    if not args.resume and args.run_dir.exists() and (not args.run_dir.is_dir() or any(args.run_dir.iterdir())):
        raise UserError(f"{args.run_dir} is not empty; continue that run with --resume {args.run_dir}, or choose another --out")

    from forethought import display, run

    with display.choose(sys.stdout, args.plain) as observe:
        result = run.resume(args.run_dir, observe) if args.resume else run.train(recipe, args.run_dir, observe)
    return result.exit_code


def _recipe_to_train(args: argparse.Namespace) -> Recipe:
    """The recipe with the command line's changes, checked. A run to resume keeps the recipe it began with."""
    from dataclasses import replace

    from forethought.recipe.check import check
    from forethought.recipe.load import load

    if args.resume:
        named = {"RECIPE": args.recipe, "--set": args.overrides, "--model": args.model, "--out": args.out,
                 "--seed": args.seed is not None, "--no-gates": args.no_gates}
        extra = [name for name, given in named.items() if given]
        if extra:
            raise UserError(f"--resume continues a run with the recipe it began with, so it takes no {', '.join(extra)}")
    recipe = load(args.resume or args.recipe or "desk", args.overrides)
    if args.model is not None:
        recipe = replace(recipe, model=replace(recipe.model, path=args.model))
    if args.seed is not None:
        recipe = replace(recipe, seed=args.seed)
    if args.no_gates:
        recipe = replace(recipe, stage=tuple(replace(stage, gates=()) for stage in recipe.stage))
    check(recipe)
    return recipe


def _free_directory(name: str) -> Path:
    n = 1
    while (path := Path("runs") / f"{name}-{n}").exists():
        n += 1
    return path


def _eval(args: argparse.Namespace) -> int:
    import json
    from contextlib import redirect_stdout

    from forethought import look

    if args.problems is not None and not args.problems.is_file():
        raise UserError(f"--problems {args.problems}: no such file")
    with redirect_stdout(sys.stderr):  # whatever a library prints must not end up inside the JSON
        result = look.evaluate(args.source, args.overrides, args.problems, args.tasks, args.levels)
    if args.json:
        print(json.dumps(result, allow_nan=False))
    else:
        from forethought.display.show import evaluation_table

        print(evaluation_table(result))
    return 0


def _sample(args: argparse.Namespace) -> int:
    from forethought import look
    from forethought.display.show import samples

    samples(look.sample(args.dir, args.n, args.level, args.temperature, args.seed), sys.stdout)
    return 0


def _arms(args: argparse.Namespace) -> int:
    from forethought.arms.command import Options, arms

    return arms(Options(file=args.file, out=args.out, workers=args.workers, only=args.only, seeds=args.seeds, redo=args.redo,
                        dry_run=args.dry_run, page=args.page), sys.stdout)


def _report(args: argparse.Namespace) -> int:
    from forethought import report

    _need_runs([args.dir])
    print(report.write(args.dir))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from forethought import report

    if len(args.dirs) < 2:
        raise UserError("compare needs at least two run directories")
    _need_runs(args.dirs)
    print(report.compare(args.dirs, args.out))
    return 0


def _need_runs(dirs: list[Path]) -> None:
    for path in dirs:
        if not (path / "recipe.json").is_file():
            raise UserError(f"{path}: no run here (a run directory has a recipe.json)")


def _recipes(args: argparse.Namespace) -> int:
    import shutil
    import textwrap

    from forethought.errors import unknown
    from forethought.recipe.load import shipped

    recipes = shipped()
    if args.name is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize  # a pipe gets one line each
        for name, _, about in recipes:
            print(textwrap.fill(about, width, initial_indent=f"{name:14} ", subsequent_indent=" " * 15))
        return 0
    files = {name: path for name, path, _ in recipes}
    if args.name not in files:
        raise UserError(unknown("recipe", args.name, files))
    print(files[args.name].read_text(encoding="utf-8"), end="")
    return 0


# What went wrong ---------------------------------------------------------------------------------------------------------


def _say(message: str, code: int) -> int:
    print(f"forethought: {message}", file=sys.stderr)
    return code


def _about_machine(error: OSError) -> str:
    import errno

    reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    advice = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.EACCES: "check the permissions",
              errno.EPERM: "check the permissions", errno.EROFS: "choose a place that can be written"}.get(error.errno)
    return f"{reason}; {advice}" if advice else reason


def _resume_hint(run_dir: Path | None) -> str:
    if run_dir is None or not (run_dir / "checkpoints").is_dir():
        return ""
    return f"; continue with: forethought train --resume {run_dir}"


def _about_fault(error: Exception, run_dir: Path | None) -> str:
    import traceback

    first = f"unexpected {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    details = "".join(traceback.format_exception(error))
    if run_dir is not None and run_dir.is_dir():
        try:
            with open(run_dir / "error.txt", "a", encoding="utf-8") as file:
                file.write(details)
            return f"{first}\nThis is a bug: please report it with {run_dir / 'error.txt'}{_resume_hint(run_dir)}"
        except OSError:
            pass  # the disk may be what failed; the terminal still works
    return f"{details}{first}\nThis is a bug: please report it with the lines above"


def _abandon_stdout() -> None:
    """Python flushes stdout once more at exit; give it somewhere to go."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # stdout is no real file (a test's)


if __name__ == "__main__":
    raise SystemExit(main())
