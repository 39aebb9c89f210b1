"""What an adapter is: it makes sessions of somebody else's environment, says in words how to act there, and
reads what the model writes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from forethought.core.types import Outcome
from forethought.interface.gui import GuiGrammar
from forethought.interface.result import Parsed, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a reset shows: text, and PNG or JPEG images."""

    text: str = ""
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an environment answers to an action. `reward`: of this step, checked where it is used.
    `terminated`: the task is over; `truncated`: it was cut off, which says nothing about how it would have
    ended. `reason`: what went wrong. `parts`: more numbers of this step by name."""

    text: str = ""
    images: tuple[bytes, ...] = ()
    reward: Any = 0.0
    terminated: bool = False
    truncated: bool = False
    reason: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)


class Session(Protocol):
    """One episode. All methods of an adapter that `waits` are `async def`. A session may have `score`, which
    is asked once at the end of the episode and added to what the steps earned; None: nothing judges it."""

    def reset(self, seed: int, level: int) -> Shown | Awaitable[Shown]:
        """Begin. The same seed and level show the same, and go on in the same way."""

    def step(self, action: Any) -> Answer | Outcome | Awaitable[Answer | Outcome]:
        """Answer to an action that the adapter has read."""

    def close(self) -> None | Awaitable[None]:
        """Give back what the session holds. Called once, also where `reset` broke."""


class Adapter:
    """See the module. Options come from the recipe's task table; the constructor raises RecipeError."""

    name = "environment"  # begins the id of a task
    waits = False  # sessions are coroutines
    given: int | None = None  # number of tasks that somebody gave, which `seed` counts; None: without end
    turns = 0  # most turns of an episode that the environment says itself; 0: nothing
    budget = 256  # most tokens of one act
    threshold = 1.0  # return from which an episode is a success
    judges = True  # episodes have a return; False: what they are worth, reward functions say

    def session(self) -> Session:
        """A fresh episode, not begun yet."""
        raise NotImplementedError

    def instruction(self) -> str:
        """How to act, for who sees the environment for the first time."""
        return ""

    def read(self, text: str) -> Parsed | Refusal:
        """The action of a turn: what `step` takes."""
        return Parsed(text)

    def plans(self) -> GuiGrammar | None:
        """The grammar of plans as steps; None: only plans in free text make sense here."""
        return None

    def marks(self) -> list[str]:
        """What a tokenizer that is made for this environment writes as one token each."""
        return []

    def texts(self) -> list[str]:
        """What such a tokenizer learns from, beside the instruction; the longest is taken for the longest
        observation."""
        return []

    def sample(self, rng: random.Random) -> str | None:
        """A random action as the model would write it; None: nobody can draw one."""
        return None

    def prompt(self, number: int) -> tuple[str, str] | None:
        """(system message, first message) of a given task; None: its session shows it."""
        return None

    def close(self) -> None:
        """Give back what all sessions share."""

    async def ended(self) -> None:
        """Of an adapter that waits: end what all sessions share, on the loop on which they lived."""
