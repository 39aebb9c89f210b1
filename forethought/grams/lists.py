"""The lists of grams that a run's stages name: checked before it begins, and kept in its directory."""

from __future__ import annotations

from pathlib import Path

from forethought.core.errors import RecipeError, UserError
from forethought.grams.listing import read
from forethought.grams.planning import Planning
from forethought.grams.tokens import Decode
from forethought.recipe.schema import Recipe
from forethought.store.files import write_whole

FOLDER = "grams"  # of a run: stage-N.txt is the list of stage N, as it was when the run began


def check_lists(recipe: Recipe, begun: Path | None = None) -> None:
    """RecipeError, with the address of the value, for a stage whose list cannot be read; before a model is
    loaded. `begun`: a run that has kept the lists of its own stages."""
    for i, stage in enumerate(recipe.stage):
        if stage.grams and not (begun and _kept(begun, i).exists()):
            _read(Path(stage.grams).expanduser(), i)


def copy_lists(recipe: Recipe, out: Path) -> None:
    """Copy every stage's list into the run `out`, where there is none yet: who resumes it goes on with the
    same one, whatever has become of the file."""
    for i, stage in enumerate(recipe.stage):
        if stage.grams and not (kept := _kept(out, i)).exists():
            kept.parent.mkdir(exist_ok=True)
            write_whole(kept, Path(stage.grams).expanduser().read_bytes())


def planning_of(out: Path, stage: int, grams: str, decode: Decode) -> Planning | None:
    """What finds planning tokens in a stage of the run `out`; None where its credit names no list
    (`grams`)."""
    return Planning(_read(_kept(out, stage), stage), decode) if grams else None


def _kept(out: Path, stage: int) -> Path:
    return out / FOLDER / f"stage-{stage}.txt"


def _read(path: Path, stage: int) -> list[str]:
    try:
        return [gram.text for gram in read(path).grams]
    except UserError as error:
        raise RecipeError(f"stage.{stage}.credit.grams", str(error)) from error
