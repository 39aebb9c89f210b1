"""The verb `check`: whether a recipe can train, or a taskset keeps what tasksets promise."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.cli.arguments import Verbs, add_set, add_trust, verb
from forethought.core.errors import RecipeError, UserError
from forethought.core.printable import printable

if TYPE_CHECKING:
    from forethought.recipe.schema import Recipe
    from forethought.tasks.base import Taskset
    from forethought.tasks.conformance import Finding


def add_check(verbs: Verbs) -> None:
    """Declare `check FILE`."""
    about = "try a recipe, or a taskset, without training: loads the code that it names, and asks it"
    parser = verb(verbs, "check", _check, about)
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a recipe (.toml, a shipped one's name, a run), or a taskset (mytask.py, mytask.py:Sums)",
    )
    add_set(parser)
    add_trust(parser)


def _check(args: argparse.Namespace) -> int:
    file = args.file
    if file.endswith(".py") or (".py:" in file and not file.endswith(".toml")):
        if args.overrides:
            raise UserError("--set changes a recipe; of a taskset's file there is nothing to set")
        return _check_taskset(_named(file))
    return _check_recipe(file, args.overrides)


def _check_recipe(file: str, overrides: list[str]) -> int:
    from forethought.display.show import outline
    from forethought.recipe.code import code_in
    from forethought.recipe.convert import to_dict
    from forethought.recipe.load import load
    from forethought.runs.run import check_with
    from forethought.runs.trackers import makers
    from forethought.runs.tried import tried
    from forethought.tasks import families

    recipe = load(file, overrides)
    families.check_recipe(recipe)
    if any(stage.kind == "distill" for stage in recipe.stage):
        from forethought.stages.distill.check import check_endpoints

        check_endpoints(recipe)
    makers(recipe.trackers)
    with closing(families.build(recipe.task, limits=recipe.limits)) as taskset:
        check_with(recipe, taskset)
        print(printable(outline(recipe), keep="\n"))
        for where, text in code_in(to_dict(recipe)).items():
            print(printable(f"loaded    {where.removesuffix(f'.{text}')}: {text}"))
        _check_others(recipe, file)
        return _told(taskset, f"recipe {recipe.name}", tried(recipe, taskset))


def _check_others(recipe: Recipe, file: str) -> None:
    """What it says for other workflows can be set."""
    from forethought.recipe.check import check
    from forethought.recipe.load import load

    for name in recipe.under:
        try:
            check(load(file, [f"workflow={name}"]))
        except RecipeError as error:
            raise RecipeError(f"under.{name}", str(error)) from None
        print(printable(f"ok        --set workflow={name}"))


def _named(file: str) -> str:
    """`file.py:Name` of a file in which one taskset is defined."""
    if not file.endswith(".py"):
        return file
    from forethought.core.named import module_of
    from forethought.tasks.base import Taskset

    module = module_of(Path(file), "")
    own = [
        name
        for name, one in vars(module).items()
        if isinstance(one, type) and issubclass(one, Taskset) and one.__module__ == module.__name__
    ]
    if len(own) != 1:
        if not own:
            raise UserError(
                f"{file} has no class that derives from Taskset. check tries tasksets and recipes; rewards, "
                "environments, workflows and other code it loads with the recipe that names them: "
                "forethought check RECIPE.toml"
            )
        found = f"{len(own)} tasksets ({', '.join(own)})"
        raise UserError(f"{file} has {found}; name the one to check: {file}:NAME")
    return f"{file}:{own[0]}"


def _check_taskset(name: str) -> int:
    from forethought.recipe.schema import TaskSpec
    from forethought.tasks import families

    with closing(families.build(TaskSpec(name=name))) as taskset:
        return _told(taskset, f"taskset {name}")


def _told(taskset: Taskset, what: str, more: Sequence[Finding] = ()) -> int:
    """What the taskset keeps of its promises, and what was found beside it."""
    from forethought.tasks.conformance import conformance

    found = [*conformance(taskset), *more]
    for one in found:
        print(
            printable(f"{'wrong' if one.wrong else 'ok':9} {one.what}{f': {one.wrong}' if one.wrong else ''}")
        )
    wrong = [one for one in found if one.wrong]
    if wrong:
        raise UserError(
            f"{what}: {len(wrong)} of {len(found)} promises are not kept; the lines above say which"
        )
    print(printable(f"{what}: nothing is wrong"))
    return 0
