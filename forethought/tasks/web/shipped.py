"""The demonstrations that ship with the package, each with its vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from forethought.core.errors import RecipeError
from forethought.envs.web import miniwob
from forethought.tasks.web import words
from forethought.tasks.web.words import Vocabulary

SHIPPED = {  # list of tasks -> its demonstrations, its vocabulary
    "web-12": ("demonstrations.jsonl.gz", "words.json"),
    "miniwob-56": ("demonstrations-56.jsonl.gz", "words-56.json"),
}
LARGEST = [*SHIPPED][-1]


def shipped(tasks: Sequence[str]) -> tuple[Path, Vocabulary]:
    """The file of the smallest list that has all these tasks, and its vocabulary."""
    if strange := set(tasks) - set(miniwob.LISTS[LARGEST]):
        raise RecipeError("task.tasks", f"{min(strange)} has no demonstrations; those of {LARGEST} have")
    name = next(name for name in SHIPPED if set(tasks) <= set(miniwob.LISTS[name]))
    file, vocabulary = SHIPPED[name]
    return Path(str(files("forethought.tasks.web"))) / file, words.shipped(vocabulary)
