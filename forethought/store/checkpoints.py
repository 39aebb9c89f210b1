"""Checkpoints: folders `step-N` that are either whole or not there.

One is written next to its place, every file is synced, then the folder is renamed. `manifest.json` lists size
and digest of every file in it: a file that is missing, other, or not listed is damage, so a manifest that
passes can only be the one that was written, or one that says the same. `state.json` is what the loop needs to
go on; it knows its own step and how long the run's logs were.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from forethought.store import files
from forethought.store.files import read_object, remove, whole_number

MANIFEST, STATE = "manifest.json", "state.json"
INTERIM = "interim"  # an empty file in a checkpoint that an uninterrupted run would not have


def place(folder: Path, step: int) -> Path:
    """Folder of one step's checkpoint: `step-000012`."""
    return folder / f"step-{step:06d}"


def write(
    folder: Path,
    step: int,
    state: Mapping[str, object],
    engine: Callable[[Path], None],
    logs: Sequence[Path],
    interim: bool = False,
) -> Path:
    """`interim`: it is written because the run stops here, and goes when the run has a later one. Whatever
    goes wrong (a full disk, an interrupt) leaves no trace of the attempt, and every earlier checkpoint as it
    was."""
    final = place(folder, step)
    beside, old = (folder / f".{final.name}.{kind}" for kind in ("tmp", "old"))
    try:
        remove(beside)
        beside.mkdir(parents=True)
        engine(beside)
        (beside / STATE).write_text(json.dumps({**state, "step": step}), encoding="utf-8")
        if interim and not final.exists():
            (beside / INTERIM).touch()
        listed = {
            str(p.relative_to(beside)): [p.stat().st_size, files.digest(p)]
            for p in sorted(beside.rglob("*"))
            if p.is_file()
        }
        (beside / MANIFEST).write_text(json.dumps(listed, indent=1), encoding="utf-8")
        for path in [*logs, *beside.rglob("*"), beside]:
            files.sync(path)
        # the same step again (a stage that begins where the last one ended): the newer one holds
        if final.exists() or final.is_symlink():
            remove(old)
            os.rename(final, old)
            os.rename(beside, final)
            remove(old)
        else:
            os.rename(beside, final)
        files.sync(folder)
    except BaseException:
        undo(beside, old, final)
        raise
    return final


def undo(beside: Path, old: Path, final: Path) -> None:
    """Back to the state before a save: the unfinished folder goes, the old one returns to its place."""
    remove(beside)
    if old.exists() and not final.exists():
        os.rename(old, final)


def steps(folder: Path) -> list[int]:
    """Steps of all checkpoints, the newest last. Half-written ones have another name, and links are none of
    ours."""
    return sorted(int(p.name.removeprefix("step-")) for p in _named(folder) if _ours(p))


def passed_over(folder: Path) -> list[Path]:
    """Entries that have a checkpoint's name but are not one: a link (its target is not the run's) or a
    file."""
    return sorted(p for p in _named(folder) if not _ours(p))


def _named(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else []
    return [p for p in found if re.fullmatch(r"step-(\d{6}|[1-9]\d{6,17})", p.name)]


def _ours(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def verify(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, in a clause, or ""."""
    try:
        listed = read_object(checkpoint / MANIFEST)
    except ValueError:
        return "its manifest is missing or unreadable"
    for name, entry in listed.items():
        if not (
            isinstance(entry, list)
            and len(entry) == 2
            and whole_number(entry[0])
            and isinstance(entry[1], str)
        ):
            return f"its manifest says no size and digest of {name[:100]}"
    inside = sorted(p for p in checkpoint.rglob("*") if p.is_symlink() or not p.is_dir())
    there = {str(p.relative_to(checkpoint)): p for p in inside}
    if lost := next((name for name in listed if name not in there), None):
        return f"{lost[:100]} is missing"
    for name, path in there.items():
        if path.is_symlink() or not path.is_file():
            return f"{name} is no file"
        if name not in listed and name != MANIFEST:
            return f"{name} is not among what was written"
    for name, (size, known) in listed.items():
        if (found := there[name].stat().st_size) != size:
            return f"{name} has {found} bytes, {size} were written"
        if files.digest(there[name]) != known:
            return f"{name} is not what was written"
    return _wrong_state(checkpoint) if STATE in listed else f"{STATE} is missing"


def _wrong_state(checkpoint: Path) -> str:
    try:
        state = read_object(checkpoint / STATE)
    except ValueError as error:
        return f"{STATE} {error}"
    if not whole_number(step := state.get("step")) or place(checkpoint.parent, step).name != checkpoint.name:
        return f"{STATE} says step {str(step)[:20]}"
    wrong = [key for key in ("progress", "logs") if not isinstance(state.get(key), dict)]
    return f"{STATE} has no {wrong[0]}" if wrong else ""


def mend(folder: Path) -> None:
    """Restore the name of a checkpoint that was being replaced when the run was killed. Only a resuming run
    calls it, never a reader."""
    for old in folder.glob(".step-*.old"):
        if not (final := old.with_name(old.name[1:-4])).exists():
            os.rename(old, final)


def sweep(folder: Path) -> None:
    """What a killed run left of a checkpoint that it was writing."""
    for path in folder.glob(".step-*"):
        remove(path)


def prune(folder: Path, keep: int, spare: Iterable[int]) -> None:
    """Keep the newest `keep` checkpoints and those in `spare`. An interim one stays only while it is the
    newest, and pushes no other out: so an interrupted run ends with the checkpoints of one that was not."""
    found = steps(folder)
    regular = [step for step in found if not (place(folder, step) / INTERIM).exists()]
    for step in set(found) - {*regular[-keep:], *found[-1:], *spare}:
        remove(place(folder, step))
