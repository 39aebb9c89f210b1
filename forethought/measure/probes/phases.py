"""The two phases of learning to reason (HICRA, arXiv 2509.03646): execution consolidates, then planning
becomes the bottleneck.

The paper shows the phases as curves and gives no rule. Ours reads log-perplexities of fixed held-out
demonstrations, by role (execution is the last role of the workflow, planning the most uncertain one before
it):

    execution has consolidated   the last `window` observations brought less than `flat` of all that it has
                                 gained so far
    planning is the bottleneck   from then on, while planning is the more uncertain of the two and has not
                                 stopped mattering: its log-perplexity is above the execution's and above
                                 `solved`

Where a run has no held-out demonstrations, the tokens that its own steps sample stand in for them, in stages
that tell the two classes apart (`hicra/ppl_exec`, `hicra/ppl_plan`): as in the paper, but on tasks that
change from step to step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FLAT = 0.1  # share of the whole gain
SOLVED = 0.01  # nats per token
NOTHING = 0.01  # nats: a gain below it is none


@dataclass(slots=True)
class Phases:
    window: int
    # (step, log ppl of act, log ppl of plan): the last `window`
    seen: list[tuple[int, float, float]] = field(default_factory=list)
    first: float | None = None  # log ppl of act when first seen
    consolidated: int | None = None  # step at which it said so
    bottleneck: int | None = None

    def observe(self, step: int, act: float, plan: float) -> dict[str, float]:
        """Log-perplexities (nats per token). `phase/now`: 1 execution consolidates, 2 planning is the
        bottleneck, 0 neither is left; `phase/consolidated_at` and `phase/bottleneck_at`: the steps at which
        it first said so."""
        self.first = act if self.first is None else self.first
        self.seen = [*self.seen, (step, act, plan)][-self.window :]
        if self.consolidated is None and len(self.seen) == self.window:
            gained = max(self.first - act, NOTHING)
            # a rise is no consolidation either
            recent = abs(slope([a for _, a, _ in self.seen])) * (self.window - 1)
            if recent <= FLAT * gained or recent < NOTHING:
                self.consolidated = step
        planning = plan > act and plan > SOLVED
        if self.consolidated is not None and planning and self.bottleneck is None:
            self.bottleneck = step
        now = 1.0 if self.consolidated is None else 2.0 if planning else 0.0
        out = {"phase/now": now}
        if self.consolidated is not None:
            out["phase/consolidated_at"] = float(self.consolidated)
        if self.bottleneck is not None:
            out["phase/bottleneck_at"] = float(self.bottleneck)
        return out

    def state_dict(self) -> dict:
        """The windows seen so far and the steps at which the phases began."""
        return {
            "seen": self.seen,
            "first": self.first,
            "consolidated": self.consolidated,
            "bottleneck": self.bottleneck,
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Take up the state that `state_dict` gave."""
        self.seen = [tuple(s) for s in state["seen"]]
        self.first, self.consolidated, self.bottleneck = (
            state["first"],
            state["consolidated"],
            state["bottleneck"],
        )


def slope(values: list[float]) -> float:
    """Least-squares slope per observation."""
    n = len(values)
    x, y = (n - 1) / 2, sum(values) / n
    return sum((i - x) * (v - y) for i, v in enumerate(values)) / sum((i - x) ** 2 for i in range(n))
