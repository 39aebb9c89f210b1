"""Options of the shipped taskset `screens`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Screens:
    tasks: tuple[str, ...] = (
        "click-color",
        "click-dialog",
        "click-shape",
        "click-test-2",
        "focus-text-2",
        "grid-coordinate",
    )
    """Tasks of MiniWoB++ that are in the file."""
    shots: str = ""
    """A file of screens, as `python -m forethought.tasks.screens.collect` makes one. Absent: the one that
    ships."""
    patch: int = 16
    """Pixels of a side of a patch; a picture has 160."""
    select: Literal["graph", "random", "all"] = "graph"
    """Which patches are read: `graph`, a share of each component of equal neighbours (ShowUI, arXiv
    2411.17465); `random`, as many of the same picture, wherever they lie; `all`."""
    share: float = 0.1
    """Of each component, for `graph` and `random`; at least one patch of each."""
    answer: Literal["place", "mark"] = "place"
    """How an act says where: `place`, by its pixels in steps of four; `mark`, by the number that is drawn on
    the element (set of marks, arXiv 2310.11441)."""
    shift: int = 8
    """Most pixels by which a training picture is moved, both ways, drawn anew each time; fewer where
    what is right would leave the picture. 0: none is."""
    blind: bool = False
    """The picture is white: what can be done without looking."""
    pictures: int = 0
    """Episodes of each evaluation whose picture the report shows."""
