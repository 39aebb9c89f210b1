"""How many tokens a step samples, reads and trains on: an upper bound from the budgets, and what is expected
of it.

What several continue is shared: a prompt is computed once for all its plans, a plan once for all its
executions, in sampling and in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of a prompt, and the most that each role says on one path, all its turns together."""

    prompt: int
    said: Mapping[str, int]
    vocabulary: int = 0  # words of the taskset; 0: free text

    @property
    def path(self) -> int:
        """Most tokens of a path from prompt to leaf."""
        return self.prompt + sum(self.said.values())

    def above(self, role: str) -> list[str]:
        """The roles that speak before this one."""
        roles = list(self.said)
        return roles[: roles.index(role)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """The turns of one role, which are decoded together."""

    rows: int  # sequences, of one step (an evaluation: of one of its tasks)
    group: int  # of them on one context
    above: float  # tokens of that context, as expected
    most_above: int
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step of a stage (an evaluation: one of its tasks). Every number of tokens as expected; `most`:
    times the share that is used."""

    steps: int
    prefilled: float = 0  # read before sampling
    sampled: float = 0
    trained: float = 0  # forward and backward, context among them
    sampled_most: float = 0
    trained_most: float = 0
    waves: Mapping[str, Wave] = field(default_factory=dict)  # role -> its turns


def wave_of(n: Lengths, role: str, rows: int, group: int, used: float) -> Wave:
    """One sampler call for `role`: rows, group size, and tokens above (expected, and at most). `used`: share
    of a budget that turns are expected to fill."""
    most = sum(n.said[above] for above in n.above(role))
    return Wave(
        rows=rows, group=group, above=n.prompt + used * most, most_above=n.prompt + most, budget=n.said[role]
    )
