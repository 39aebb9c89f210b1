"""Which data a run began with: size and SHA-256 of every file that its recipe reads, in the run's data.json.

A run that is resumed with other problems would show one question with another's solution, for ids are often
line numbers. It is refused. Code may have been mended: it is refused too, but whoever resumes can accept it
as it is now (`--changed-code`), and the record says what it was before. The record holds its own digest, so a
damaged one is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.core import consent
from forethought.core.datafiles import read_object
from forethought.core.errors import UserError, quoted
from forethought.core.named import HERE
from forethought.core.textfile import open_bytes
from forethought.grams.lists import FOLDER
from forethought.recipe.code import code_in, files_in
from forethought.recipe.convert import to_dict
from forethought.recipe.paths import files, splits
from forethought.recipe.ranges import listed
from forethought.recipe.schema import Recipe
from forethought.store import Store
from forethought.store.files import digest_of

NAME = "data.json"


def record(recipe: Recipe, out: Path) -> None:
    """Write down the files as they are now, where there are any. UserError for one that cannot be read."""
    known: Mapping[str, Any] = {}
    with suppress(UserError):  # a damaged one is written anew
        known = _begun(out)
    found = {where: _entry(out, where, path, known.get(where)) for where, path in files(recipe).items()}
    if found:
        _write(out, found)


def unwatched(run: Path, recipe: Recipe) -> list[str]:
    """A sentence where the recipe reads files and nothing says what they were when the run began."""
    if (run / NAME).exists() or not (read := files(recipe)):
        return []
    first = next(iter(read))
    return [f"{NAME} is missing: whether {first} is the file that the run began with is not known"]


def unheld(recipe: Recipe) -> list[str]:
    """A sentence where the recipe reads what no digest can hold to what it was."""
    code = code_in(to_dict(recipe)).values()
    here = [text.partition(":")[2] for text in code if text.startswith(f"{HERE}:")]
    said = (
        f"{listed(here)} {'is' if len(here) == 1 else 'are'} known to this Python process alone: another one "
        f"goes on with this run only from Python, ft.train(resume=RUN, functions=[{', '.join(here)}])"
        if here
        else ""
    )
    return [*filter(None, [said]), *_of_hub(recipe)]


def _of_hub(recipe: Recipe) -> list[str]:
    if not (found := splits(recipe)):
        return []
    where, split = next(iter(found.items()))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [f"{where}{more}: {split} has no digest here; a resume reads what the hub gives then"]


# ---- code that was mended


def code_files(recipe: Recipe) -> dict[str, Path]:
    """Address -> file of the code of one's own that the recipe names."""
    code = code_in(to_dict(recipe))
    paths = {path.absolute() for path in files_in(code).values()}
    return {where: path for where, path in files(recipe).items() if where in code or path.absolute() in paths}


def way_on(out: Path, recipe: Recipe) -> str:
    """The command that goes on with a run when what broke is mended."""
    return f"forethought train --resume {quoted(out)}{' --changed-code' if code_files(recipe) else ''}"


def accept(store: Store, recipe: Recipe, step: int) -> None:
    """The code of the recipe as it is now is that of the run from `step` on: its digests go on record, and
    those before them stay there."""
    changed = [one.where for one in _changes(store.out, recipe)]
    if mended := [where for where in code_files(recipe) if where in changed]:
        begun = _begun(store.out)
        for where in mended:
            then, now = begun[where], _facts(Path(files(recipe)[where]))
            before = [*then.get("before", []), {"until": step, "sha256": str(then.get("sha256", ""))}]
            begun[where] = {"file": str(files(recipe)[where]), **now, "before": before}
        _write(store.out, begun)


def accepted(out: Path) -> list[tuple[int, str]]:
    """(step, sentence) for every time that changed code was accepted, a file once."""
    said: dict[tuple[int, str, str, str], str] = {}
    for where, entry in _begun(out).items():
        befores = entry["before"] if isinstance(entry, dict) and "before" in entry else []
        later = [*(one["sha256"] for one in befores[1:]), entry["sha256"]] if befores else []
        for one, now in zip(befores, later, strict=True):
            said.setdefault((one["until"], entry["file"], one["sha256"], now), where)
    return [
        (
            step,
            f"{where}: {file} has changed and was accepted (--changed-code): sha256 {then[:16]} before, "
            f"{now[:16]} from step {step} on",
        )
        for (step, file, then, now), where in said.items()
    ]


# ---- what has changed


def refuse_strange_code(run: Path, tables: Mapping[str, Any], changed_code: bool = False) -> None:
    """UserError where the code that the recipe of a run names has changed since the run began (unless
    `changed_code` accepts that), or has never run here and nobody has consented to it. Loads none of it."""
    named = code_in(tables)
    files = files_in(named)
    recorded = {
        str(entry.get("file")): where for where, entry in _begun(run).items() if isinstance(entry, dict)
    }
    found = _changes(run, {recorded.get(str(path), where): path for where, path in files.items()})
    for one in found:
        if not (changed_code and one.there):
            raise UserError(f"{run} cannot go on: {one.said}. {_WAY_OF_CODE if one.there else _WAY}")
    mended = {one.file for one in found}
    consent.need(named, run, {where for where, path in files.items() if path in mended})


def refuse_changed(run: Path, recipe: Recipe, changed_code: bool | None = None) -> None:
    """UserError, with the key, the file and what to do, for the first file that is not what the run in `run`
    began with. `changed_code`: whether code that has changed is accepted; None where it cannot be."""
    code = code_files(recipe) if changed_code is not None else {}
    for one in _changes(run, recipe):
        mended = one.there and one.where in code
        if not (mended and changed_code):
            raise UserError(f"{run} cannot go on: {one.said}. {_WAY_OF_CODE if mended else _WAY}")


_WAY = "Put the file back as it was, or start a new run"
_WAY_OF_CODE = (
    "Put the file back as it was, or accept it as it is now with --changed-code (in Python: "
    "changed_code=True)"
)


def changed(run: Path, read: Recipe | Mapping[str, Path]) -> list[str]:
    """A sentence for each file of the recipe (or of a table address -> file) that is not what the run began
    with; none for a run that wrote nothing down."""
    return [one.said for one in _changes(run, read)]


@dataclass(frozen=True, slots=True)
class _Changed:
    """A file that is not what the run began with; `there`: it can be read."""

    where: str
    file: Path
    said: str
    there: bool


def _changes(run: Path, read: Recipe | Mapping[str, Path]) -> list[_Changed]:
    begun, found = _begun(run), []
    for where, path in (files(read) if isinstance(read, Recipe) else read).items() if begun else ():
        then = begun.get(where)
        if not isinstance(then, dict):
            continue  # a key that the command line has added
        path = _read(run, where, path)
        try:
            now = _facts(path)
        except UserError as error:
            found.append(_Changed(where, path, f"{where}: {error} (the run began with it)", False))
            continue
        if any(then.get(key) != value for key, value in now.items()):
            sizes = f"{then.get('bytes')} bytes then, {now['bytes']} now, with other content"
            said = f"{where}: {path} has changed since the run began ({sizes})"
            found.append(_Changed(where, path, said, True))
    return found


def _begun(run: Path) -> dict[str, Any]:
    """What data.json says, {} where there is none. UserError for a damaged one."""
    if not (run / NAME).exists():
        return {}
    way = "it says which data the run began with; put it back, or start a new run"
    begun = read_object(run / NAME, way)
    # older runs wrote no digest
    if begun.pop("digest", None) not in (None, digest_of(begun)) or not all(map(_is_entry, begun.values())):
        raise UserError(f"{run / NAME} is not what was written; {way}")
    return begun


def _is_entry(entry: Any) -> bool:
    """What was accepted before is listed as `accept` writes it; the rest is compared as it is."""
    if not isinstance(entry, dict) or "before" not in entry:
        return True
    texts, before = (entry.get("file"), entry.get("sha256")), entry["before"]
    return (
        all(isinstance(text, str) for text in texts)
        and isinstance(before, list)
        and all(
            isinstance(one, dict) and isinstance(one.get("until"), int) and isinstance(one.get("sha256"), str)
            for one in before
        )
    )


def _entry(run: Path, where: str, path: Path, known: Any) -> dict[str, object]:
    """A file as it is now, with what it was before where that is on record."""
    entry = {"file": str(path)} | _facts(_read(run, where, path))
    if isinstance(known, dict) and "before" in known and known.get("sha256") == entry["sha256"]:
        entry["before"] = known["before"]
    return entry


def _write(out: Path, found: Mapping[str, Any]) -> None:
    Store(out).write_json(NAME, {**found, "digest": digest_of(found)})


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
