"""Episodes to look at: pictures of pages, with what was planned and what was done on each.

The records are plain data, so that a run can keep them as JSON and a page can draw them. A picture's bytes
are kept beside, under the name that the frame has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Wrong = Literal["", "words", "element", "page"]
"""What an attempt failed at: its words mean nothing on the page or lead elsewhere; the words were good and
another element was chosen; the choice was good and the page refused it. "" where nothing is known to be
wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A step on a picture. `said`: what is done, in words; `box`: left, top, width, height of its element in
    CSS pixels of the picture (None: it has none); `note`: why it has none, or what the page made of it."""

    said: str
    box: tuple[float, float, float, float] | None = None
    note: str = ""
    good: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One page and the attempt on it: the picture before anything was done. `width`, `height` in CSS
    pixels."""

    image: str
    width: int
    height: int
    planned: tuple[Mark, ...] = ()
    chosen: tuple[Mark, ...] = ()
    wrong: Wrong = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """An episode. `name`: of the page; `asked`: what it asks for. `wrong`: of the first attempt that went
    wrong, where the episode failed."""

    task: str
    name: str
    asked: str
    success: bool
    wrong: Wrong = ""
    reason: str = ""
    frames: tuple[Frame, ...] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def told(self) -> dict[str, Any]:
        """As JSON, without the bytes."""
        found = asdict(self)
        del found["pictures"]
        return found
