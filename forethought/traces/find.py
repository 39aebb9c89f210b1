"""Trees by what happened in them: a filter over all that a run has saved. The report filters by the same
rules (tree_filter.js)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError, unknown
from forethought.recipe.roles import roles_in
from forethought.traces.files import read_trees, saved_steps
from forethought.traces.judged import MEASURES, SIGNS, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a tree must be; every condition must hold, and the defaults ask for nothing. `UserError` where a
    value makes no sense."""

    step: int | None = None
    stage: int | None = None  # index, from 0
    level: int | None = None
    task: str = ""  # in its id or its prompt, in any case
    reason: str = ""  # in the reason of a node, as the run wrote it or as `reason_group` says it, in any case
    signs: tuple[str, ...] = ()  # of SIGNS
    solved: bool | None = None
    quality: tuple[float, float] | None = None  # of at least one leading turn, both ends included
    measure: str = "outcome"  # of MEASURES: what `quality` reads

    def __post_init__(self) -> None:
        if strange := [sign for sign in self.signs if sign not in SIGNS]:
            raise UserError(unknown("sign", strange[0], SIGNS))
        if self.measure not in MEASURES:
            raise UserError(unknown("measure of quality", self.measure, MEASURES))
        if self.quality is not None and not 0 <= self.quality[0] <= self.quality[1] <= 1:
            raise UserError(
                "a quality lies between 0 and 1, the lower end first; found "
                f"{self.quality[0]:g}-{self.quality[1]:g}"
            )

    def passes(self, tree: Mapping[str, Any]) -> bool:
        """Whether a judged tree is what is looked for."""
        same = all(
            wanted is None or tree.get(key) == wanted
            for key, wanted in (
                ("step", self.step),
                ("stage", self.stage),
                ("level", self.level),
                ("solved", self.solved),
            )
        )
        return (
            same
            and set(self.signs) <= set(tree["signs"])
            and _holds(self.task, tree.get("task"), tree.get("prompt"))
            and (not self.reason or any(_holds(self.reason, text) for text in _reasons(tree)))
            and self._quality_passes(tree)
        )

    def _quality_passes(self, tree: Mapping[str, Any]) -> bool:
        if self.quality is None:
            return True
        low, high = self.quality
        found = [node["quality"].get(self.measure) for node in tree["nodes"] if "quality" in node]
        return any(value is not None and low <= value <= high for value in found)


def roles_of_run(run_dir: Path) -> tuple[str, ...]:
    """The roles of the run's recipe, in the order of its workflow; () where it cannot be read."""
    try:
        tables = json.loads((Path(run_dir) / "recipe.json").read_text("utf-8"))
        return roles_in(tables) if isinstance(tables, dict) else ()
    except (OSError, ValueError, RecursionError):
        return ()


def find(run_dir: Path, wanted: Filter, notes: list[str]) -> Iterator[tuple[dict[str, Any], bool]]:
    """(judged tree, whether it passes) of every tree on disk that can pass, by step and place; one file in
    memory at a time.

    Only the file of `wanted.step` is read where there is one. `UserError`: the run has saved no trees, or
    none at that step.
    """
    files = saved_steps(run_dir)
    if not files:
        raise UserError(
            f"{run_dir} has saved no trees: a reinforce stage saves them, every `save.trees_every` steps"
        )
    if wanted.step is not None:
        if wanted.step not in files:
            near = min(files, key=lambda step: abs(step - wanted.step))
            raise UserError(
                f"{run_dir} has no trees of step {wanted.step}; the nearest step with trees is {near}"
            )
        files = {wanted.step: files[wanted.step]}
    for path in files.values():
        for tree in map(judge, read_trees(path, notes)):
            yield tree, wanted.passes(tree)


def _holds(text: str, *where: Any) -> bool:
    return any(text.casefold() in str(place or "").casefold() for place in where)


def _reasons(tree: Mapping[str, Any]) -> Iterator[str]:
    yield from tree["reasons"]
    yield from (node["reason"] for node in tree["nodes"] if node.get("reason"))
