"""`forethought train`: a new run, a run that goes on, or an estimate of one."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forethought.cli.arguments import Verbs, add_set, add_trust, verb
from forethought.core.errors import UserError, quoted

if TYPE_CHECKING:
    from forethought.estimate.account import Account
    from forethought.recipe.schema import Recipe


def add_train(verbs: Verbs) -> None:
    """The verb and its options."""
    own = verb(verbs, "train", _train, "train a recipe, stage by stage")
    own.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help="a .toml file, a shipped recipe's name (default: desk), or a run",
    )
    add_set(own)
    own.add_argument(
        "--model",
        metavar="PATH",
        help="start from this model: a directory, a GGUF file, or a name on the Hugging Face hub",
    )
    own.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="the run directory (default: runs/<recipe>-<n>, the first free n)",
    )
    own.add_argument(
        "--resume",
        metavar="DIR",
        type=Path,
        help="continue the run in DIR from its newest checkpoint; --set may change what no finished step "
        "depends on",
    )
    own.add_argument(
        "--changed-code",
        action="store_true",
        help="for --resume: go on with code of the recipe's that has changed since the run began",
    )
    own.add_argument("--seed", metavar="N", type=int, help="the recipe's seed")
    own.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would run and what it would take, and stop",
    )
    own.add_argument(
        "--print-recipe",
        action="store_true",
        help="print the whole recipe as TOML, and stop (with --dry-run, its summary follows as comments)",
    )
    own.add_argument(
        "--hardware",
        metavar="NAME",
        help="for --dry-run: h200, h100, a100, 4090 or cpu (default: this machine)",
    )
    own.add_argument(
        "--assume",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="for --dry-run: change an assumption it prints",
    )
    own.add_argument(
        "--json",
        action="store_true",
        help="for --dry-run: print one JSON object with seconds and bytes by part",
    )
    own.add_argument("--plain", action="store_true", help="plain lines instead of the live display")
    own.add_argument("--no-gates", action="store_true", help="train without the recipe's gates")
    own.add_argument(
        "--as-written",
        action="store_true",
        help="with --model: keep the rates and sizes of a recipe that was written for a model from scratch",
    )
    add_trust(own)


def _train(args: argparse.Namespace) -> int:
    recipe, told = _recipe_to_train(args)
    if args.dry_run or args.print_recipe:
        return _print_only(recipe, told, args)
    if args.hardware or args.assume or args.json:
        raise UserError(
            "--hardware, --assume and --json are for --dry-run, which tells what a run would take; a run "
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
            else "choose another --out, or clear it (it holds no run that could go on)"
        )
        raise UserError(f"{args.run_dir} is not empty; {way}")

    from forethought import display
    from forethought.display.spent import spent

    # which takes seconds, before there is a run to tell of
    display.opening(sys.stdout, args.plain, f"{recipe.name}: loading PyTorch")
    from forethought.runs import run

    with display.choose(sys.stdout, args.plain) as observe:
        changes = {"overrides": args.overrides} if args.overrides else {}
        changes |= {"changed_code": True} if args.changed_code else {}
        result = (
            run.resume(args.run_dir, observe, **changes)
            if args.resume
            else run.train(recipe, args.run_dir, observe, **({"notes": [told]} if told else {}))
        )
    for line in spent(_metric_lines(args.run_dir)):
        print(line)
    return result.exit_code


def _metric_lines(run: Path) -> list[dict[str, Any]]:
    """Of a run that has just ended."""
    import json

    if not (run / "metrics.jsonl").is_file():
        return []
    with open(run / "metrics.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _print_only(recipe: Recipe, note: str, args: argparse.Namespace) -> int:
    from forethought.display.show import outline
    from forethought.recipe.convert import to_toml
    from forethought.recipe.doubts import doubts

    told: list[str] = []
    if args.dry_run:
        from forethought.estimate import as_json, lines

        account = _estimate(recipe, args)  # its mistakes come before anything is printed
        if args.json:
            import json

            print(json.dumps(as_json(account) | ({"changed": note} if note else {})))
            return 0
        estimated = lines(account)
        told = [
            outline(recipe),
            *(f"# {line}" for line in [*filter(None, [note]), *estimated, *doubts(recipe)]),
        ]
    if args.print_recipe:
        told = [to_toml(recipe), *([""] if told else []), *told]  # what a terminal shows is the end
    print(*told, sep="\n")
    return 0


def _estimate(recipe: Recipe, args: argparse.Namespace) -> Account:
    from forethought.core.errors import unknown
    from forethought.estimate import HARDWARE, Assumptions, cpu, estimate, this_machine

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
    tell = partial(print, file=sys.stderr, flush=True)
    return estimate(recipe, hardware, Assumptions.said(args.assume), timing=True, tell=tell)


def _recipe_to_train(args: argparse.Namespace) -> tuple[Recipe, str]:
    """(the recipe with the command line's changes, checked; what its model has changed in it). A run to
    resume keeps the recipe it began with, but for what `runs.changes` allows."""
    from dataclasses import replace

    from forethought.estimate.for_model import for_model
    from forethought.recipe.load import load, written_in

    if args.resume:
        named = {
            "RECIPE": args.recipe,
            "--model": args.model,
            "--out": args.out,
            "--seed": args.seed is not None,
            "--no-gates": args.no_gates,
            "--as-written": args.as_written,
        }
        extra = [name for name, given in named.items() if given]
        if extra:
            raise UserError(
                f"--resume continues a run with the recipe it began with, so it takes no {', '.join(extra)}"
            )
    if args.resume:
        if not (args.resume / "recipe.json").is_file():
            raise UserError(f"--resume {args.resume}: no run there (a run directory has a recipe.json)")
        return _recipe_of_run(args.resume, args.changed_code), ""
    if args.changed_code:
        raise UserError("--changed-code is for --resume: a new run begins with the code as it is")
    if args.as_written and args.model is None:
        raise UserError(
            "--as-written keeps what a recipe says where --model gives it another model: add --model"
        )
    source, told = args.recipe or "desk", ""
    recipe = load(source, args.overrides)
    if args.model is not None:
        given = ["model.path"] if args.as_written else written_in(source, args.overrides)
        recipe, told = for_model(recipe, args.model, given)
        if args.trust_code:
            recipe = replace(recipe, model=replace(recipe.model, trust_remote_code=True))
    if args.seed is not None:
        recipe = replace(recipe, seed=args.seed)
    if args.no_gates:
        stages = (replace(stage, gates=()) if stage.gates else stage for stage in recipe.stage)
        recipe = replace(recipe, stage=tuple(stages))
    return _checked(recipe), told


def _checked(recipe: Recipe) -> Recipe:
    from forethought.tasks.families import check_recipe

    check_recipe(recipe)
    if any(stage.kind == "distill" for stage in recipe.stage):
        from forethought.stages.distill.check import check_endpoints

        check_endpoints(recipe)
    if any(stage.kind == "webrl" for stage in recipe.stage):
        from forethought.stages.webrl.writing import check_webrl

        check_webrl(recipe)
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
            f"{run / 'recipe.json'} does not hold the run's recipe ({error}): put it back as it was; "
            'state.json of every checkpoint holds it under "recipe"'
        ) from None
    try:
        return _checked(recipe)
    except RecipeError as error:  # of a whole recipe: damage, or what this machine or version lacks
        raise UserError(f"{run / 'recipe.json'}: {error}") from None
