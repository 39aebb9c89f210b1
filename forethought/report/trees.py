"""The trees that the page holds: all that a run saved while they are few, else a choice that shows all of
training and every sign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.report import images
from forethought.store import Store
from forethought.traces.files import read_trees, saved_steps
from forethought.traces.judged import DISAGREEMENTS, MEASURES, SIGNS, judge

MOST_TREES = 400
MOST_CHARACTERS = 6_000_000  # of the page's JSON
MOST_NAMED = 5  # damaged files that are named one by one
NODE = 300  # characters of a node's JSON beside its text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A tree on disk, without its text: enough to choose by."""

    file: int
    place: int  # in its file
    size: int  # characters, nearly
    signs: tuple[str, ...]


def load_trees(
    run_dir: Path, notes: list[str], most: int = MOST_TREES, room: int = MOST_CHARACTERS
) -> dict[str, Any]:
    """{"items": judged trees by step and place, "images": name -> data URI, of those that they show while
    there is room, "left_out": how many are on disk alone, "counts": sign ->
    trees on disk, "disagreements", "measures"}.

    Files are read twice, one at a time, so that a run may have more trees than fit into memory. One that was
    cut off in writing is read as far as it goes, one that is malformed, or is not what the run has on record,
    is left out; each is noted.
    """
    files = list(saved_steps(run_dir).values())
    strange = _strange(run_dir, notes)
    rows = [
        row
        for number, path in enumerate(files)
        if path not in strange
        for row in _readable(number, path, notes)
    ]
    chosen: dict[int, set[int]] = {}
    for row in _choose(rows, most, room):
        chosen.setdefault(row.file, set()).add(row.place)
    items = [
        _slim(judge(tree), place)
        for number in sorted(chosen)
        for place, tree in zip(
            sorted(chosen[number]), read_trees(files[number], [], chosen[number]), strict=True
        )
    ]
    return {
        "items": items,
        "images": images.of_run(
            run_dir, (name for tree in items for node in tree["nodes"] for name in node.get("images", ()))
        ),
        "left_out": len(rows) - len(items),
        "counts": Counter(sign for row in rows for sign in row.signs),
        "disagreements": DISAGREEMENTS,
        "measures": MEASURES,
    }


def _strange(run_dir: Path, notes: list[str]) -> set[Path]:
    """Files that differ from the run's record of what it has written. Older runs have no record."""
    wrong = Store(run_dir).damaged_trees()
    notes += [f"{name} {what}: it is left out." for name, what in list(wrong.items())[:MOST_NAMED]]
    if len(wrong) > MOST_NAMED:
        notes.append(f"{len(wrong) - MOST_NAMED:,} more files of trees are left out for such reasons.")
    return {run_dir / name for name in wrong}


def _readable(number: int, path: Path, notes: list[str]) -> list[_Row]:
    try:
        return list(_rows(number, path, notes))
    except UserError as error:
        notes.append(f"Trees are left out: {error}.")
        return []


def _rows(number: int, path: Path, notes: list[str]) -> Iterator[_Row]:
    for place, tree in enumerate(map(judge, read_trees(path, notes))):
        said = (
            str(text or "")
            for text in (
                tree.get("context"),
                tree.get("prompt"),
                *(node.get("text") for node in tree["nodes"][1:]),
            )
        )
        yield _Row(
            file=number,
            place=place,
            size=sum(map(len, said)) + NODE * len(tree["nodes"]),
            signs=tuple(tree["signs"]),
        )


def _choose(rows: Sequence[_Row], most: int, room: int) -> list[_Row]:
    """At most `most` rows of `room` characters together: in turn one for the course of training (the first
    tree of a step, when all are in then any) and one for a sign, the signs in turn; each spread over the
    run."""
    first = [row for row in rows if row.place == 0]
    course = spread(first) + sorted((row for row in rows if row.place), key=lambda row: (row.place, row.file))
    by_sign = zip_longest(*(spread([row for row in rows if sign in row.signs]) for sign in SIGNS))
    signs = [row for group in by_sign for row in group if row]
    kept: dict[tuple[int, int], _Row] = {}
    for row in (row for pair in zip_longest(course, signs) for row in pair if row):
        if (row.file, row.place) in kept:
            continue
        room -= row.size
        if len(kept) >= most or room < 0:
            break
        kept[row.file, row.place] = row
    return list(kept.values())


def spread(rows: Sequence[_Row]) -> list[_Row]:
    """Reordered so that every beginning of it is spread over the whole, the last one first (van der Corput's
    order)."""
    bits = max(len(rows) - 1, 1).bit_length()
    order = sorted(range(len(rows)), key=lambda i: f"{i:0{bits}b}"[::-1])
    return [rows[len(rows) - 1 - i] for i in order]


def _slim(tree: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Without what the page says already: the root's text is that of the context and the prompt."""
    nodes = [
        node | {"text": ""} if node.get("parent") is None and node.get("role") is None else node
        for node in tree["nodes"]
    ]
    return dict(tree) | {"nodes": nodes, "place": place}
