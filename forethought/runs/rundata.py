"""Which data a run began with: size and SHA-256 of every file that its recipe reads, in the run's data.json.

A run that is resumed with other problems would show one question with another's solution, for ids are often
line numbers. It is refused. The record holds its own digest, so a damaged one is refused too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forethought.core import consent
from forethought.core.datafiles import read_object
from forethought.core.errors import UserError
from forethought.core.textfile import open_bytes
from forethought.grams.kept import FOLDER
from forethought.recipe.code import code_in, files_in
from forethought.recipe.paths import files, splits
from forethought.recipe.schema import Recipe
from forethought.store import Store
from forethought.store.files import digest_of

NAME = "data.json"


def record(recipe: Recipe, out: Path) -> None:
    """Write down the files as they are now, where there are any. UserError for one that cannot be read."""
    if found := {
        where: {"file": str(path)} | _facts(_read(out, where, path)) for where, path in files(recipe).items()
    }:
        Store(out).write_json(NAME, {**found, "digest": digest_of(found)})


def unwatched(run: Path, recipe: Recipe) -> list[str]:
    """A sentence where the recipe reads files and nothing says what they were when the run began."""
    if (run / NAME).exists() or not (read := files(recipe)):
        return []
    first = next(iter(read))
    return [f"{NAME} is missing: whether {first} is the file that the run began with is not known"]


def unheld(recipe: Recipe) -> list[str]:
    """A sentence where the recipe reads what no digest can hold to what it was."""
    if not (found := splits(recipe)):
        return []
    where, split = next(iter(found.items()))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [f"{where}{more}: {split} has no digest here; a resume reads what the hub gives then"]


def refuse_strange_code(run: Path, tables: Mapping[str, Any]) -> None:
    """UserError where the code that the recipe of a run names has changed since the run began, or has never
    run here and nobody has consented to it. Loads none of it."""
    named = code_in(tables)
    refuse_changed(run, files_in(named))
    consent.need(named, run)


def refuse_changed(run: Path, read: Recipe | Mapping[str, Path]) -> None:
    """UserError, with the key, the file and what to do, for the first file that is not what the run in `run`
    began with. `read`: its recipe, or address -> file."""
    if found := changed(run, read):
        raise UserError(f"{run} cannot go on: {found[0]}. Put the file back as it was, or start a new run")


def changed(run: Path, read: Recipe | Mapping[str, Path]) -> list[str]:
    """A sentence for each file of the recipe (or of a table address -> file) that is not what the run began
    with; none for a run that wrote nothing down."""
    if not (run / NAME).exists():
        return []
    way = "it says which data the run began with; put it back, or start a new run"
    begun = read_object(run / NAME, way)
    if begun.pop("digest", None) not in (None, digest_of(begun)):  # older runs wrote none
        raise UserError(f"{run / NAME} is not what was written; {way}")
    said = []
    for where, path in (files(read) if isinstance(read, Recipe) else read).items():
        then = begun.get(where)
        if not isinstance(then, dict):
            continue  # a key that the command line has added
        path = _read(run, where, path)
        try:
            now = _facts(path)
        except UserError as error:
            said.append(f"{where}: {error} (the run began with it)")
            continue
        if any(then.get(key) != value for key, value in now.items()):
            sizes = f"{then.get('bytes')} bytes then, {now['bytes']} now, with other content"
            said.append(f"{where}: {path} has changed since the run began ({sizes})")
    return said


def _read(run: Path, where: str, path: Path) -> Path:
    """What the run reads: of a list of phrases the copy that it has kept."""
    return run / FOLDER / f"stage-{where.split('.')[1]}.txt" if where.endswith(".credit.grams") else path


def _facts(path: Path) -> dict[str, object]:
    with open_bytes(path) as file:
        digest, size = hashlib.sha256(), 0
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}
