"""Adaptive isolation: roles share their weights until measurements say that one of them is harmed.

What is read, and the bounds, stand in the recipe (`AdaptiveSpec`); every change of mind is a decision with
its numbers. The controller only decides; `handover` moves the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forethought.core.paired import paired, paired_difference
from forethought.recipe.schema import AdaptiveSpec
from forethought.stages.setting import Setting

Scores = Mapping[str, Sequence[float | None]]  # role -> one score per held-out task


@dataclass(frozen=True, slots=True)
class Move:
    """`isolate` the role that was harmed; `share`: transfer is positive, or harm is over."""

    outcome: str
    role: str
    reason: str
    numbers: dict[str, float]


@dataclass(slots=True)
class Controller:
    spec: AdaptiveSpec
    apart: str = ""  # the role that was isolated, "" while both share
    cosines: list[float] = field(default_factory=list)
    quiet: int = 0  # probes in a row without harm, while apart
    said: bool = False  # whether positive transfer has been said since the last change

    def hear(self, cosine: float) -> None:
        """A conflict probe's cosine, whenever one was measured."""
        if not self.apart:
            self.cosines = [*self.cosines, cosine][-self.spec.window :]

    def read(self, roles: Sequence[str], start: Scores, now: Scores, training: bool = False) -> Move | None:
        """One held-out probe while the roles share. `roles`: those that could be harmed; `training`: they
        learn themselves, so that a rise is their own and no transfer."""
        confidence = self.spec.confidence or 0.95
        found = {role: paired(start[role], now[role], confidence) for role in roles}
        worst = min(found, key=lambda role: found[role].value)
        change, low, high = found[worst].value, found[worst].low, found[worst].high
        sure = not self.spec.confidence or found[worst].p < 1 - confidence
        numbers = {"change": change, "low": low, "high": high, "bound": self.spec.max_drop}
        if -change > self.spec.max_drop and sure:
            return self._isolate(
                worst,
                f"{worst} under oracle plans changed by {change:+.3f} [{low:+.3f}, {high:+.3f}] since the "
                f"stage's start, and may fall by {self.spec.max_drop}",
                numbers,
            )
        if (
            len(self.cosines) == self.spec.window
            and (mean := sum(self.cosines) / self.spec.window) < self.spec.min_cosine
        ):
            return self._isolate(
                worst,
                f"the cosine of the roles' gradients is {mean:+.3f} over {self.spec.window} probes, below "
                f"{self.spec.min_cosine}",
                numbers | {"cosine": mean, "min_cosine": self.spec.min_cosine},
            )
        if low > 0 and not training and not self.said:
            self.said = True
            return Move(
                "share",
                worst,
                f"transfer is positive: {worst} changed by {change:+.3f} [{low:+.3f}, {high:+.3f}]",
                numbers,
            )
        return None

    def reread(self, role: str, own: Sequence[float], shared: Sequence[float]) -> Move | None:
        """One probe while apart: the role's score as it is, and as it would be if it shared again (`rejoin`
        of the recipe)."""
        change, low, high = paired_difference(own, shared)
        self.quiet = self.quiet + 1 if change >= 0 else 0
        if not self.spec.rejoin or self.quiet < self.spec.rejoin:
            return None
        self.apart, self.quiet, self.said, self.cosines = "", 0, False, []
        return Move(
            "share",
            role,
            f"{role} would lose nothing by sharing again, {self.spec.rejoin} probes in a row: {change:+.3f} "
            f"[{low:+.3f}, {high:+.3f}]",
            {"change": change, "low": low, "high": high},
        )

    def _isolate(self, role: str, reason: str, numbers: dict[str, float]) -> Move:
        self.apart, self.quiet, self.cosines = role, 0, []
        return Move("isolate", role, reason, numbers)

    def state_dict(self) -> dict:
        """What a resumed run needs to decide as the first one would have."""
        return {"apart": self.apart, "cosines": self.cosines, "quiet": self.quiet, "said": self.said}

    def load_state_dict(self, state: Mapping) -> None:
        """Take up the state that `state_dict` gave."""
        self.apart, self.cosines, self.quiet, self.said = (
            state["apart"],
            list(state["cosines"]),
            state["quiet"],
            state["said"],
        )


def read_probe(controller: Controller, stage: Setting, monitor: Any) -> Move | None:
    """What the controller makes of the newest held-out probe of `monitor` in a stage. Roles that were
    apart before it are none of its business."""
    spec, policies, others = stage.spec.adaptive, stage.policies, stage.others()
    if not controller.apart:
        sharing = [role for role in stage.sharing() if role in monitor.now.scores]
        if not sharing:
            return None
        return controller.read(sharing, monitor.start.scores, monitor.now.scores, training=not others)
    if not spec.rejoin:
        return None
    if spec.to in ("replay", "keep_kl"):  # is there harm still, with the method on?
        return controller.reread(
            controller.apart, monitor.start.scores[controller.apart], monitor.now.scores[controller.apart]
        )
    asked = monitor.ask({**policies, controller.apart: policies[stage.partner(controller.apart)]})
    return controller.reread(
        controller.apart, monitor.now.scores[controller.apart], asked.scores[controller.apart]
    )
