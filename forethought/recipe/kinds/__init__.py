"""Kinds of stages: what each can say, what it refuses, what a step of it costs. What a step does stands on
the same name in `forethought/stages/` (`stages.kinds.STEPS`): a recipe is read without an engine.

A kind of your own is a class below `Imitate`, `Reinforce` or `TrainingSpec` with a method `step`, and the
recipe names it: `kind = "mine.py:BestOf"` (docs/stages.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from forethought.core.errors import ForethoughtError, RecipeError, unknown
from forethought.core.named import is_named, load_named
from forethought.core.places import said_of
from forethought.recipe.kinds.distill import Distill
from forethought.recipe.kinds.imitate import Imitate
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.kinds.webrl import WebRL
from forethought.recipe.schema import StageSpec, TrainingSpec

KINDS: dict[str, type[StageSpec]] = {
    "imitate": Imitate,
    "reinforce": Reinforce,
    "webrl": WebRL,
    "distill": Distill,
}
DEFAULT = "imitate"


def kind_of(name: Any, where: str) -> type[StageSpec]:
    """The record of a stage whose kind is called `name`; RecipeError at the address `where` for one that
    does not exist."""
    if isinstance(name, str) and is_named(name):
        return _own(name, where)
    if not isinstance(name, str) or name not in KINDS:
        raise RecipeError(where, unknown("kind of stage", name, KINDS))
    return KINDS[name]


def _own(name: str, where: str) -> type[StageSpec]:
    found = load_named(name, Path.cwd(), where)
    if not (isinstance(found, type) and issubclass(found, TrainingSpec) and is_dataclass(found)):
        raise RecipeError(where, f"{name} is no kind of stage: a dataclass below TrainingSpec is one")
    if not callable(getattr(found, "step", None)):
        raise RecipeError(where, f"{name} has no step; define step(self, stage, k, conflict) in it")
    return found


@contextmanager
def mended_by_user(stage: StageSpec, where: str) -> Iterator[None]:
    """What the record of a kind of one's own raises inside is a RecipeError with its line."""
    try:
        yield
    except ForethoughtError:
        raise
    except Exception as error:
        if stage.kind in KINDS:
            raise
        raise RecipeError(f"{where}.kind", said_of(stage.kind, error)) from error


def readers(key: str) -> list[str]:
    """The kinds that read a key."""
    return [name for name, kind in KINDS.items() if any(f.name == key for f in fields(kind))]


def learns_from(name: str) -> str:
    """Of the kind that a run's records name, without its code: one that is not ours learns from trees, as far
    as who reads the records is concerned."""
    return KINDS[name].learns_from if name in KINDS else "trees"
