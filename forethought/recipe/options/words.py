"""Options of the shipped tasksets that write words: `desk` and `blocksworld`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    widgets: int = 10
    """Widgets on a screen, 2 to 24. Those off the goal's path distract."""
    bushiness: float = 0.9
    """Probability that a widget hangs from another one rather than from the desk."""
    parents: int = 1
    """Parents that each widget lists, 1 or 2. With 2 either one opens it, and several plans are right."""
    dead: int = 2
    """With two parents: widgets that hang from `void`, which never opens. A plan through one fails."""
    stepwise: bool = False
    """The actor clicks one widget per turn and reads what the click opened."""
    retry: bool = False
    """With `stepwise`: a click that fails changes nothing and does not end the episode. There are twice as
    many turns."""
    slip: float = 0.0
    """Probability that a click fails, where noise is on: in training, and in evaluations with
    `eval.noise`."""
    popup: float = 0.0
    """With `retry`: probability that a popup comes before a click and covers the desk until it is clicked
    itself, where noise is on. There are two turns more for each."""
    flip: float = 0.0
    """Probability that success is reported the wrong way round, where noise is on."""
    plans: Literal["words", "path", "json"] = "words"
    """The language of the plans: words, a path with slashes, or JSON (docs/interface.md)."""
    tags: dict[str, str] = field(default_factory=dict)
    """Other names of the tags, such as `{ plan = "steps", act = "do" }`."""
    told: bool = False
    """A model that reads language is told the rules before each task, in one message with it by its chat
    template, where it has one. Off: it reads bare words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocksworld:
    blocks: tuple[int, ...] = (4, 5)
    """Numbers of blocks to draw from, among 3, 4, 5 and 6. 3 adds no task, for PlanBench holds all of them
    out; 6 costs 2 seconds when the taskset is built."""
    stepwise: bool = False
    """The actor takes one primitive per turn and reads the towers after it."""
    retry: bool = False
    """With `stepwise`: after a primitive that is not legal the episode goes on. There are twice as many
    turns."""
    slip: float = 0.0
    """Probability that a legal put or stack has no effect, where noise is on: in training, and in evaluations
    with `eval.noise`."""
    flip: float = 0.0
    """Probability that success is reported the wrong way round, where noise is on."""
    critic: bool = False
    """The words in which the first mistake of a plan goes back to the planner; the workflow `modulo` needs
    them."""
    exclude: str | None = None
    """A file of problems (one `{"id", "pddl"}` a line) whose classes are left out of both splits too."""
    wording: Literal["towers", "language", "mystery"] = "towers"
    """How a problem is written: as towers, in sentences, or in the same sentences with every predicate and
    action renamed (PlanBench's mystery domain). Step by step there are towers alone."""
    told: bool = False
    """A model that reads language is told the rules before each problem, in one message with it by its chat
    template, where it has one. Off: it reads bare words."""
