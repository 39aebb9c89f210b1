"""What an evaluation measures: a list of maps from role to who speaks it, a policy or the oracle. Data
only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Speaker = Literal["policy", "oracle"]
END_TO_END = "e2e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number of an evaluation, `eval/NAME`."""

    name: str
    speaks: Mapping[str, Speaker]  # every role of the workflow, in order

    @property
    def judged(self) -> str:
        """The last role that a policy speaks. Where it is not the last of all, the oracle takes over after
        it: its branch is judged by the exact executor (the part `valid`), else by the outcome of the
        episode."""
        return next(role for role in reversed(tuple(self.speaks)) if self.speaks[role] == "policy")

    @property
    def under(self) -> tuple[str, ...]:
        """The roles before it, which the oracle speaks in the tree that it is read from."""
        before = list(self.speaks)[: list(self.speaks).index(self.judged)]
        return tuple(role for role in before if self.speaks[role] == "oracle")


def measurements(roles: Sequence[str]) -> tuple[Measurement, ...]:
    """Each role by its policy and the others by the oracle, and all of them by their policies (e2e). Of plan
    and act: the plan alone, the acting under the oracle's plan, and both. With one role there is e2e
    alone."""
    alone = [
        Measurement(name=role, speaks={r: "policy" if r == role else "oracle" for r in roles})
        for role in (roles if len(roles) > 1 else ())
    ]
    return (*alone, Measurement(name=END_TO_END, speaks=dict.fromkeys(roles, "policy")))


def names(roles: Sequence[str]) -> tuple[str, ...]:
    """Names of the measurements that an evaluation of these roles makes."""
    return tuple(m.name for m in measurements(roles))
