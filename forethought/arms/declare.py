"""The file that declares arms, read strictly: an unknown key or a name that leads nowhere is a RecipeError
with its address.

    name = "interference"
    seeds = [0, 1, 2]

    [group.desk]
    recipe = "desk-shared"            # a shipped recipe, or a path from this file
    baseline = "shared"

    [[arm]]
    group = "desk"
    name = "shared"

    [[claim]]
    group = "desk"
    text = "Shared weights with the plan reward lose acting"
    arm = "shared"
    metric = "eval/act@5"
    at_most = 0.3
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from forethought.core.errors import RecipeError, unknown
from forethought.estimate.for_model import for_model
from forethought.recipe.check import check, eval_levels, measurements
from forethought.recipe.convert import to_record
from forethought.recipe.load import load, read_tables, shipped, shipped_arms, written_in
from forethought.recipe.schema import Recipe
from forethought.tasks import families

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # names are folders
BOUNDS = ("at_least", "at_most", "change_at_least", "change_at_most", "than")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Arms that are compared with each other: the same table, the same metrics, one baseline."""

    about: str = ""
    recipe: str = ""
    set: tuple[str, ...] = ()  # overrides for all arms of the group, as --set takes them
    baseline: str = ""  # the arm that the others are compared with, seed by seed; empty: none
    metrics: tuple[str, ...] = ("eval/plan", "eval/act", "eval/e2e")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    group: str = ""
    name: str = ""
    about: str = ""
    set: tuple[str, ...] = ()  # on top of the group's
    recipe: str = ""  # instead of the group's


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence that the results can contradict. Exactly one of the bounds; a change is the last stage's end
    minus its start."""

    group: str = ""
    text: str = ""
    arm: str = ""
    metric: str = ""
    at_least: float | None = None
    at_most: float | None = None
    change_at_least: float | None = None
    change_at_most: float | None = None
    than: tuple[str, ...] = ()  # no worse than each of these arms, paired by seed,
    margin: float = 0.0  # by more than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a file of arms says."""

    name: str = ""
    about: str = ""
    seeds: tuple[int, ...] = (0,)
    group: dict[str, Group] = field(default_factory=dict)
    arm: tuple[Arm, ...] = ()
    claim: tuple[Claim, ...] = ()

    def arms(self, group: str) -> list[Arm]:
        """Arms of one group, in the order of the file."""
        return [arm for arm in self.arm if arm.group == group]


Recipes = dict[tuple[str, str, int], Recipe]
"""(group, arm, seed) -> the resolved recipe of that run, in the order of the file."""


def read(path: Path, model: str | None = None) -> tuple[Declared, Recipes]:
    """The declaration in the TOML file `path` (or shipped under that name) and every recipe that it asks for,
    all of them checked. `model`: the folder or name of a model that all of them train, as with
    `train --model`."""
    path = path if path.is_file() else shipped_arms().get(str(path), path)
    if not path.is_file():
        raise RecipeError(
            str(path),
            f"{'is a folder' if path.is_dir() else 'no such file'}; a file of arms is a TOML file with "
            f"seeds, [group.NAME] and [[arm]] (shipped: {', '.join(shipped_arms())})",
        )
    declared = to_record(Declared, read_tables(path), "")
    _check_names(declared)
    recipes = {
        (arm.group, arm.name, seed): _resolve(declared, i, arm, seed, path, model)
        for i, arm in enumerate(declared.arm)
        for seed in declared.seeds
    }
    for name, group in declared.group.items():
        _check_metrics(declared, name, group, recipes)
    for i, claim in enumerate(declared.claim):
        _check_claim(f"claim.{i}", claim, declared, recipes)
    return declared, recipes


def _check_names(declared: Declared) -> None:
    _need_name("name", declared.name)
    if not declared.seeds or len(set(declared.seeds)) < len(declared.seeds) or min(declared.seeds) < 0:
        raise RecipeError(
            "seeds", f"expected at least one seed, each from 0 and once, found {list(declared.seeds)}"
        )
    if not declared.arm:
        raise RecipeError("arm", 'no arm is declared; write [[arm]] with group = "..." and name = "..."')
    seen: set[tuple[str, str]] = set()
    for i, arm in enumerate(declared.arm):
        _need_one(f"arm.{i}.group", "group", arm.group, declared.group)
        _need_name(f"arm.{i}.name", arm.name)
        if (arm.group, arm.name) in seen:
            raise RecipeError(f"arm.{i}.name", f"group {arm.group!r} has two arms called {arm.name!r}")
        seen.add((arm.group, arm.name))
    for name, group in declared.group.items():
        _need_name(f"group.{name}", name)
        if name == "prefix":
            raise RecipeError(
                "group.prefix", "the folder `prefix` holds the stages that arms share; choose another name"
            )
        if not declared.arms(name):
            raise RecipeError(
                f"group.{name}",
                f"no arm belongs to it; give an [[arm]] group = {name!r} or take the group out",
            )
        if group.baseline:
            _need_one(
                f"group.{name}.baseline", "arm", group.baseline, [arm.name for arm in declared.arms(name)]
            )


def _need_name(where: str, name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise RecipeError(where, f"{name!r} names a folder: use letters, digits, '.', '_' and '-'")


def _need_one(where: str, kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise RecipeError(where, unknown(kind, name, known))


def _resolve(declared: Declared, i: int, arm: Arm, seed: int, path: Path, model: str | None) -> Recipe:
    """The arm's recipe for one seed. Every run computes on one thread: the cores are shared out among
    runs."""
    group = declared.group[arm.group]
    source = arm.recipe or group.recipe
    if not source:
        raise RecipeError(f"arm.{i}.recipe", f"neither the arm nor group.{arm.group} names a recipe")
    for text in [*group.set, *arm.set]:
        key = text.partition("=")[0].strip()
        if key in ("seed", "engine.threads"):
            own = (
                "the file's seeds say which seeds run"
                if key == "seed"
                else ("every run has one thread, one worker per core")
            )
            raise RecipeError(f"arm.{i} ({arm.group}/{arm.name})", f"{text!r} cannot be set here: {own}")
    if source not in {name for name, _, _ in shipped()}:
        source = path.parent / source
    said = [*group.set, *arm.set, f"seed={seed}", "engine.threads=1"]
    try:
        recipe = load(source, said, None if path in shipped_arms().values() else path.parent)
        if model is not None:
            recipe, _ = for_model(recipe, model, written_in(source, said) - {"model.path"})
        check(recipe)
        families.build(recipe.task)
    except RecipeError as error:
        raise RecipeError(f"arm.{i} ({arm.group}/{arm.name})", str(error)) from None
    return recipe


def _check_metrics(declared: Declared, name: str, group: Group, recipes: Recipes) -> None:
    if not group.metrics:
        raise RecipeError(f"group.{name}.metrics", "expected at least one metric, such as eval/plan")
    for i, metric in enumerate(group.metrics):
        for arm in declared.arms(name):
            _check_metric(f"group.{name}.metrics.{i}", metric, recipes[name, arm.name, declared.seeds[0]])


def _check_metric(where: str, metric: str, recipe: Recipe) -> None:
    """Any metric of an evaluation's line; what an evaluation measures is known, and at which levels."""
    family, slash, rest = metric.partition("/")
    if not family or not slash or not rest:
        raise RecipeError(
            where,
            f"{metric!r} is not a metric; they are written family/name, such as eval/plan or eval/act@5",
        )
    if family != "eval":
        return
    name, at, level = rest.partition("@")
    _need_one(where, "measurement", name, measurements(recipe))
    levels = [str(known) for known in eval_levels(recipe)]
    if at and levels and level not in levels:
        raise RecipeError(
            where, f"{metric!r}: level {level or 'nothing'} is not evaluated (levels: {', '.join(levels)})"
        )


def _check_claim(where: str, claim: Claim, declared: Declared, recipes: Recipes) -> None:
    _need_one(f"{where}.group", "group", claim.group, declared.group)
    arms = [arm.name for arm in declared.arms(claim.group)]
    _need_one(f"{where}.arm", "arm", claim.arm, arms)
    for i, other in enumerate(claim.than):
        _need_one(f"{where}.than.{i}", "arm", other, arms)
        if other == claim.arm:
            raise RecipeError(f"{where}.than.{i}", f"{other!r} would be compared with itself")
    for name in (claim.arm, *claim.than):
        _check_metric(f"{where}.metric", claim.metric, recipes[claim.group, name, declared.seeds[0]])
    if not claim.text:
        raise RecipeError(f"{where}.text", "a claim is a sentence; say what should hold")
    given = [name for name in BOUNDS if getattr(claim, name) not in (None, ())]
    if len(given) != 1:
        raise RecipeError(
            where, f"a claim has exactly one of {', '.join(BOUNDS)}; found {' and '.join(given) or 'none'}"
        )
    if claim.margin < 0 or (claim.margin and not claim.than):
        raise RecipeError(f"{where}.margin", f"is for `than` and at least 0, found {claim.margin}")
