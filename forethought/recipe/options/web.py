"""Options of the shipped taskset `web`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturb:
    popup: float = 0.0
    """Probability that a popup comes before an act, which covers the page until it is closed."""
    slip: float = 0.0
    """Probability that an act does nothing, although it looks done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    tasks: str | tuple[str, ...] = "web-12"
    """Tasks of MiniWoB++: a list (`web-12`, `miniwob-56`), a name, or names: the 56 have demonstrations."""
    pages: Literal["auto", "recorded", "eval", "live"] = "auto"
    """Where acts are carried out. `recorded`: nowhere, an act is right where it is the oracle's on that page.
    `eval`: evaluation is judged by the page in Chromium, training by recordings. `live`: both in Chromium.
    `auto`: `eval` where a Chromium is found, else `recorded`."""
    browser: str = ""
    """The path of a Chromium. Absent: the system's, else Playwright's own."""
    events: Literal["js", "mouse"] = "js"
    """`js` dispatches events on the element itself; `mouse` moves a pointer and types on a keyboard."""
    limit: Literal["none", "original"] = "none"
    """The time limit of an episode: none, or the page's own."""
    attempts: int = 4
    """Most pages of an episode: a plan and its acts are one attempt. With `stepwise`: most acts."""
    stepwise: bool = False
    """The actor does one step a turn, and reads what has changed on the page: `react` asks for it."""
    disturb: Disturb = field(default_factory=Disturb)
    """What goes wrong before an act, where noise is on: in demonstrations and training, and in evaluations
    with `eval.noise`."""
    pictures: int = 0
    """Episodes of each evaluation of which every page is photographed in Chromium, for the report and
    `sample --watch`. 0: none, and nothing is slower for it."""
    window: bool = False
    """Pages are played in a visible window, one episode at a time; each element is framed before it is acted
    on. `sample --watch window` sets it. It needs a display."""
    marks: bool = False
    """The ids of elements, as the model reads them, are drawn on the pictures."""
    splits: Literal["seed", "layout", "task"] = "seed"
    """What is held out: `seed`, other seeds of the same tasks; `layout`, structures of first pages that no
    training episode has; `task`, whole tasks."""
    held_out: tuple[str, ...] = ("click-link", "click-option", "enter-password")
    """Of `splits = "task"`: the tasks that are measured and never trained."""
    tags: dict[str, str] = field(default_factory=dict)
    """Other names of the tags, such as `{ plan = "think", act = "link" }` for blink_think_link."""
    often: dict[str, float] = field(default_factory=dict)
    """How much more often than another task of its level a task is drawn to train on, such as
    `{ click-shape = 4 }`; at most 1000. What is measured does not change."""
    demonstrations: int = 0
    """Most episodes of each task and level that imitation is shown. 0: all."""
