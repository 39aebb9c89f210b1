"""Options of the shipped tasksets in free text: `text` and `math`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    train: str
    """Problems to train on: a JSONL, CSV or Parquet file, or a split of the hub (`hub:NAME:SPLIT`)."""
    eval: str | tuple[str, ...] = ()
    """Problems to measure on, one source or a list. Absent: a share of `train` is held out."""
    held_out: float = 0.1
    """The share of `train` that is held out where there is no `eval`, at most 500 problems. It is drawn by
    what the prompts say, so it is the same each time."""
    most: int = 0
    """Rows to read of each source, from its beginning. 0: all."""
    prompt: str | None = None
    """A template over the columns, such as `"{question}"`. Absent: the column `prompt` or `messages`."""
    messages: str | None = None
    """The column with the messages of a conversation, in place of `prompt`."""
    answer: str | None = None
    """The column of the right answer. Without it nothing but functions of your own says what is good."""
    solution: str | None = None
    """The column of a worked solution, which imitation shows and distillation reads."""
    plan_column: str | None = None
    """The column of a plan, which imitation shows. With plans the default is `plan`."""
    level: str | None = None
    """The column of a level, a whole number. Absent: all problems have level 0."""
    grader: str | None = None
    """What compares an answer with the right one: `exact` (the default where there is an `answer`),
    `contains`, `number`, `regex`, `choice`, `math-verify`, one that an installed package declares, or your
    own function as `file.py:name`."""
    plan: Literal["none", "tags"] = "none"
    """`none`: flat, the act alone. `tags`: a plan between tags comes first."""
    tags: dict[str, str] = field(default_factory=dict)
    """Another name of the tag, as `{ plan = "steps" }`."""
    system: str | None = None
    """The system message. Absent: none, and with plans one that asks for them."""
    shots: int | str = 0
    """Worked examples that stand before each prompt: how many of `train`, or a file of them."""
    chat: bool = True
    """Prompts are written with the model's chat template where it has one. `false`: always as plain text."""
    budgets: dict[str, int] = field(default_factory=lambda: {"plan": 256, "act": 256})
    """Most tokens of a plan and of an act."""
    repeats: Literal["refuse", "drop"] = "refuse"
    """Training problems that repeat test problems: the recipe does not start, or they are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Math:
    train: str
    """Problems to train on: a JSONL or Parquet file, or a split of the hub (`hub:NAME:SPLIT`)."""
    eval: str | tuple[str, ...]
    """Problems to measure on, one source or a list."""
    demos: str | dict[str, Any] | None = None
    """Worked problems that imitation shows and distillation reads, where they are others than `train`: a
    source, or a table with `source`, `fields`, `only`, `skip`, `longest` and `most` (docs/data.md)."""
    fields: dict[str, str] = field(default_factory=dict)
    """Part of a problem -> its field in the files, where that has none of the usual names."""
    graded: bool = True
    """Levels as the files say them (MATH: 1 to 5; GSM8K: calculations in the solution). `false`: all 0."""
    grader: Literal["auto", "exact", "math-verify"] = "auto"
    """What compares an answer with the right one. `auto`: `math-verify` where the extra `math` is installed,
    else `exact`."""
    budgets: dict[str, int] = field(default_factory=lambda: {"plan": 512, "act": 3072})
    """Most tokens of a plan and of an act. A plan of more words than that is refused."""
    tags: dict[str, str] = field(default_factory=dict)
    """Other names of the tags, as `{ plan = "plan", think = "think" }`."""
    system: str | None = None
    """The system message. Absent: one that asks for a plan, for thinking and for the answer in a box; `""`:
    none."""
    overlap: float = 0.8
    """Share of a test problem's 13-grams from which a training problem repeats it."""
    repeats: Literal["refuse", "drop"] = "refuse"
    """Training problems that repeat test problems: the recipe does not start, or they are left out."""
