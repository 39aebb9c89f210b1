"""Which episodes train and which are measured: by seed, by layout, or by whole task.

seed     the same tasks, other seeds: other names, values and orders
layout   first pages of a structure that was never trained: the roles of their lines, and the names that
         are words of the vocabulary. One layout of five is held out; a task that has one only trains
task     tasks that were never trained: the hardest
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal
from zlib import crc32

from forethought.core.errors import RecipeError, unknown
from forethought.tasks.base import Split
from forethought.tasks.web.demonstrations import Shown
from forethought.tasks.web.words import Vocabulary, pieces

Kind = Literal["seed", "layout", "task"]
FIRST = 100_000  # seeds from here on train, those below are measured
SHARE = 5  # of so many layouts of a task one is held out, and at least one


def divided(
    found: Iterable[Shown], kind: Kind, held_out: Sequence[str], vocabulary: Vocabulary
) -> tuple[list[tuple[Shown, Split]], list[str]]:
    """(the episodes that are used, each with its split; what a run says of it). RecipeError for tasks to hold
    out that are not there, or are all."""
    every = list(found)
    if kind == "seed":
        return [(one, _by_seed(one)) for one in every], []
    if kind == "task":
        return _by_task(every, held_out)
    return _by_layout(every, vocabulary)


def layout(shown: Shown, vocabulary: Vocabulary) -> str:
    """The structure of the first page."""

    def known(name: str) -> str:
        return name if all(p in vocabulary.pieces for p, _ in pieces(name)) else ""

    return " ".join(f"{line.role}:{known(line.name)}" for line in shown.pages[0].lines)


def _by_seed(one: Shown) -> Split:
    return "train" if one.seed >= FIRST else "eval"


def _by_task(every: list[Shown], held_out: Sequence[str]) -> tuple[list[tuple[Shown, Split]], list[str]]:
    there = sorted({one.task for one in every})
    for name in held_out:
        if name not in there:
            raise RecipeError("task.held_out", unknown("task of this run", name, there))
    if not held_out or set(held_out) == set(there):
        raise RecipeError("task.held_out", "some tasks are held out, and others train")
    used: list[tuple[Shown, Split]] = []
    for one in every:
        split = _by_seed(one)
        if (one.task in held_out) == (split == "eval"):
            used.append((one, split))
    return used, [f"never trained, and alone measured: {', '.join(held_out)}"]


def _by_layout(every: list[Shown], vocabulary: Vocabulary) -> tuple[list[tuple[Shown, Split]], list[str]]:
    known_of: dict[str, set[str]] = {}
    for one in every:
        known_of.setdefault(one.task, set()).add(layout(one, vocabulary))
    held = {
        (task, name)
        for task, names in known_of.items()
        if len(names) > 1
        for name in sorted(names, key=lambda name: (crc32(name.encode()), name))[
            : max(1, len(names) // SHARE)
        ]
    }
    single = sorted(task for task, names in known_of.items() if len(names) == 1)
    notes = [f"of one layout, so they train and are not measured: {', '.join(single)}"] if single else []
    return [(one, "eval" if (one.task, layout(one, vocabulary)) in held else "train") for one in every], notes
