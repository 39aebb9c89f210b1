"""The screens of `desk`: widgets under widgets, drawn at random, and the ways through them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NAMES = tuple("abcdefghijklmnopqrstuvwx")
GRID = 10
ROOT, VOID = "desk", "void"
POPUP = "popup"
SLIPPED = "<obs> </obs>"  # what a click shows that has opened nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the verifier knows: every widget's listed parents and cell, the goal and its value."""

    parents: Mapping[str, tuple[str, ...]]
    cells: Mapping[str, tuple[str, str]]
    goal: str
    value: str
    slips: frozenset[int] = frozenset()  # clicks of the way there that a demonstration shows to slip once
    # clicks before which a popup comes there: its cell
    popups: Mapping[int, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Screens:
    """What screens are drawn by: the taskset's options, and the depth of its deepest level."""

    widgets: int
    bushiness: float
    parents: int
    dead: int
    depth: int

    def draw(self, rng: random.Random) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, str]], str]:
        """(parents of each widget, its cell, the screen as text)."""
        names = rng.sample(NAMES, self.widgets)
        dead = names[self.widgets - self.dead :] if self.parents == 2 else []
        live = names[: self.widgets - len(dead)]
        first: dict[str, str] = {}
        depth: dict[str, int] = {}
        for i, name in enumerate(live):  # a chain to the deepest level first, the rest hang anywhere
            open_to = [m for m in live[:i] if depth[m] < self.depth]
            if i < self.depth:
                parent = live[i - 1] if i else ROOT
            else:
                parent = rng.choice(open_to) if open_to and rng.random() < self.bushiness else ROOT
            first[name], depth[name] = parent, 1 + depth.get(parent, 0)
        for i, name in enumerate(dead):
            first[name] = rng.choice([VOID, *dead[:i]])
        parents: dict[str, tuple[str, ...]] = (
            {n: (first[n],) for n in names}
            if self.parents == 1
            else self._second(rng, live, dead, first, depth)
        )
        return parents, *_placed(parents, rng)

    def _second(
        self,
        rng: random.Random,
        live: Sequence[str],
        dead: Sequence[str],
        first: Mapping[str, str],
        depth: Mapping[str, int],
    ) -> dict[str, tuple[str, ...]]:
        """A second parent each: another live widget at the same depth as the first (another way) or a dead
        one (a dead end).

        Same depth keeps the level of every goal what the chain made it.
        """
        parents = {}
        for name in [*live, *dead]:
            same = (
                [m for m in live if m not in (first[name], name) and depth[m] == depth[name] - 1]
                if name in depth
                else []
            )
            ends = [m for m in dead if m not in (first[name], name)] or [VOID]
            if name in dead:
                ends = [VOID]
            other = rng.choice(same) if same and rng.random() < 0.5 else rng.choice(ends)
            parents[name] = tuple(rng.sample([first[name], other], 2))
        return parents


def _placed(
    parents: Mapping[str, tuple[str, ...]], rng: random.Random
) -> tuple[dict[str, tuple[str, str]], str]:
    """(cell of each widget, the screen as text), at random."""
    names = list(parents)
    cells = {
        n: (f"x{c // GRID}", f"y{c % GRID}")
        for n, c in zip(names, rng.sample(range(GRID * GRID), len(names)), strict=True)
    }
    order = rng.sample(names, len(names))
    return cells, " ".join(" ".join((n, *parents[n], *cells[n])) for n in order)


def renamed(
    parents: Mapping[str, tuple[str, ...]], rng: random.Random
) -> tuple[dict[str, str], dict[str, tuple[str, str]], str]:
    """(new name of each widget, ROOT and VOID as they are; cells by new name; the screen as text): the same
    tree in other words, at other places."""
    names = dict(zip(parents, rng.sample(NAMES, len(parents)), strict=True)) | {ROOT: ROOT, VOID: VOID}
    new = {names[n]: tuple(names[p] for p in listed) for n, listed in parents.items()}
    return names, *_placed(new, rng)


def observe(state: Goal, opened: str) -> str:
    """What a click shows: the widgets that list the opened one as a parent, with their cells."""
    shown = [" ".join((n, *state.cells[n])) for n, ps in state.parents.items() if opened in ps]
    return " ".join(["<obs>", *shown, "</obs>"])


def covered(cell: tuple[str, str]) -> str:
    """What a popup shows."""
    return f"<obs> {POPUP} {' '.join(cell)} </obs>"


def free(rng: random.Random, cells: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """A cell without a widget."""
    taken = set(cells.values())
    every = [(f"x{i}", f"y{j}") for i in range(GRID) for j in range(GRID)]
    return rng.choice([cell for cell in every if cell not in taken])


def depths(parents: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Clicks needed to reach each widget from the desk; widgets that cannot be reached are absent."""
    below: dict[str, list[str]] = {}
    for name, listed in parents.items():
        for parent in listed:
            below.setdefault(parent, []).append(name)
    depth, queue = {ROOT: 0}, deque([ROOT])
    while queue:
        at = queue.popleft()
        for name in below.get(at, ()):
            if name not in depth:
                depth[name] = depth[at] + 1
                queue.append(name)
    del depth[ROOT]
    return depth


def shortest_path(parents: Mapping[str, tuple[str, ...]], goal: str) -> tuple[str, ...]:
    """From the goal up to a top-level widget, through the parents nearest to the desk (ties: the first
    listed)."""
    depth, path = depths(parents) | {ROOT: 0}, [goal]
    while True:
        parent = min((p for p in parents[path[-1]] if p in depth), key=lambda p: depth[p])
        if parent == ROOT:
            return tuple(path)
        path.append(parent)
