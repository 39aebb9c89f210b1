"""Options of the shipped taskset `environment`: those of every environment, and those of each adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

IDS = ("target", "ref", "startTarget", "endTarget", "bid")
WORDS = ("element", "startElement", "endElement")


@dataclass(frozen=True, kw_only=True)
class Environment:
    environment: str
    """What to play: `gym:ID`, `trl:file.py:Class`, `mcp:COMMAND` or `mcp:URL`, `openenv:URL`,
    `verifiers:ID`, one that an installed package declares, or a class of your own as `file.py:Class`."""
    plan: Literal["none", "tags", "steps"] = "none"
    """`none`: no plans. `tags`: plans are free text between tags, in a workflow that has the role. `steps`:
    they are lists of steps on tools, which name things in words."""
    prompt: str | None = None
    """Stands before what the environment shows first, or instead of it where it shows nothing."""
    system: str | None = None
    """The system message. Absent: how to act, made from the actions or tools; `""`: none."""
    turns: int = 0
    """Most turns of an episode. 0: what the environment says itself, else 16."""
    threshold: float | None = None
    """Return from which an episode is a success. Absent: what the environment says itself, else 1."""
    invalid: Literal["continues", "ends"] = "continues"
    """A turn that is no action: the model reads why and the turn is used up, or the episode ends."""
    budgets: dict[str, int] = field(default_factory=dict)
    """Most tokens of an act and of a plan. Absent: by the actions, and 128 of a plan."""
    observation: int = 0
    """Most tokens of one observation, for the check that an episode fits the context. 0: not known."""


@dataclass(frozen=True, kw_only=True)
class Own:
    make: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, by name."""
    actions: tuple[str, ...] = ()
    """The words that are actions. Any other text is refused; absent: every text is one."""


@dataclass(frozen=True, kw_only=True)
class Observations:
    template: str | None = None
    """How an observation is told, such as `"cart {observation[0]:+.1f}"`. Absent: by its space."""
    observe: str | None = None
    """A function that gives the text of an observation, as `file.py:name`, in place of a template."""
    decimals: int = 2
    """Decimals of the numbers of an observation."""


@dataclass(frozen=True, kw_only=True)
class Gym(Observations):
    make: dict[str, Any] = field(default_factory=dict)
    """Arguments of `gymnasium.make`, by name."""
    level: str | None = None
    """The key of `reset(options=...)` that gets the task's level. Absent: it is not told."""
    actions: tuple[str, ...] = ()
    """Names of the actions of a Discrete space, in order. Absent: they are numbers."""
    dialect: Literal["space", "browsergym"] = "space"
    """How an action is written: as the action space says, or as BrowserGym's action strings."""


@dataclass(frozen=True, kw_only=True)
class Seam:
    ids: tuple[str, ...] = IDS
    """Arguments that hold an id, which the actor fills in."""
    words: tuple[str, ...] = WORDS
    """Arguments that say the same in words, for the planner."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    tools: tuple[str, ...] = ()
    """The tools that the model may call. Absent: all."""
    hide: tuple[str, ...] = ()
    """Tools that it may not call."""
    calls: Literal["json", "tags"] = "json"
    """A call is a JSON object, or one between `<tool_call>` and `</tool_call>`."""
    seam: Seam = field(default_factory=Seam)
    """Which arguments of a tool hold ids, and which say the same in words."""
    finish: str = "finish"
    """Name of the tool, there for the model alone, that ends the episode."""


@dataclass(frozen=True, kw_only=True)
class Trl(Tools):
    make: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, by name."""
    rows: str | None = None
    """A JSONL file with the arguments of `reset`, one task a line."""


@dataclass(frozen=True, kw_only=True)
class Mcp(Tools):
    reset: str | dict[str, Any] | None = None
    """The tool that begins an episode; it gets `seed` and `level` if it takes them. With other arguments:
    `{ tool = ..., arguments = { ... } }`, in whose texts {seed} and {level} stand for the task's. Absent:
    each episode starts a server."""
    score: str | dict[str, Any] | None = None
    """The tool that is called last, as `reset` is; its text, or the first line of it that is a number, is
    what the episode earned. Absent: nobody judges the episode."""
    after: str | None = None
    """The tool that is called after the reset and after each action, for what the model sees next."""


@dataclass(frozen=True, kw_only=True)
class OpenEnv(Observations, Tools):
    level: str | None = None
    """The argument of the server's reset that gets the task's level. Absent: it is not told."""
    field: str | None = None
    """The field of an action whose text a turn is. Absent: a turn is the JSON object of the action."""


@dataclass(frozen=True, kw_only=True)
class Verifiers:
    config: dict[str, Any] = field(default_factory=dict)
    """The configuration of the taskset."""
    most: int = 1000
    """Tasks to take of it, from its beginning, at least 2."""


ADAPTERS: dict[str, type] = {
    "a class of your own": Own,
    "gym:": Gym,
    "trl:": Trl,
    "mcp:": Mcp,
    "openenv:": OpenEnv,
    "verifiers:": Verifiers,
}
