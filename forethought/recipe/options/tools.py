"""Options of the shipped taskset `tools`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    plans: Literal["rewoo", "chain", "worked"] = "rewoo"
    """The language of the plans: ReWOO's `Plan: ... #E1 = Tool[...]`, or abstract chains `[1 + 2 = y1]`.
    `worked`: no plan and no tool, but one act with all results in it, `[1 + 2 = 3]`, which the model must
    work out itself; the control of chains, for the workflow act_only and given numbers."""
    numbers: Literal["looked_up", "given"] = "looked_up"
    """Whether the numbers of people are behind the tool `Look`, or stand in the text."""
    digits: int = 2
    """Most digits of a number that is drawn, 1 to 4."""
    together: float = 0.35
    """Probability that a number is the sum of two people's, which can be looked up at the same time."""
    spare: int = 2
    """Sentences that do not matter, 0 to 4."""
    book: float = 0.0
    """Probability that a number does not stand where `Look` looks, which shows only when it is asked, but
    where `Book` does. Plans that were written before cannot know."""
