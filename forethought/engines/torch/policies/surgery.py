"""The engine's face for surgery: gradients by objective, and regions of single weights (`gradients`,
`regions`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from forethought.core.metrics import Metric
from forethought.engines.torch.policies.gradients import Gradients
from forethought.engines.torch.policies.optim import Optimizer
from forethought.engines.torch.policies.regions import Regions


class Surgery:
    """What `engines.base.Surgery` asks for; the engine that inherits it owns the three tables."""

    gradients: Gradients
    regions: Regions
    optimizers: dict[str, Optimizer]

    # ---- gradients by objective

    def set_aside(self, policy: str, name: str) -> None:
        """Put the gathered gradient aside under `name`, for `conflict` and `combine`."""
        self.gradients.set_aside(policy, name)

    def conflict(self, policy: str, a: str, b: str, part: bool = False) -> dict[str, float]:
        """Cosine of two gradients that were set aside, for all weights and by layer group."""
        return self.gradients.conflict(policy, a, b, part)

    def combine(
        self, policy: str, names: Sequence[str], method: Literal["sum", "pcgrad"] = "sum", seed: int = 0
    ) -> dict[str, Metric]:
        """Sum the named gradients, or project them off each other first (PCGrad, arXiv 2001.06782)."""
        return self.gradients.combine(policy, names, method, seed)

    def forget(self, policy: str) -> None:
        """Clear the policy's gradient and everything that was set aside for it."""
        self.gradients.forget(policy)

    # ---- regions

    def find_region(self, name: str, policy: str, start: str, share: float) -> int:
        """Name the `share` of numbers that moved most since `start`; returns how many."""
        return self.regions.find(name, policy, start, share)

    def random_region(self, name: str, like: str, seed: int) -> int:
        """Name as many numbers of each tensor as `like` has, drawn at random; returns how many."""
        return self.regions.draw(name, like, seed)

    def overlap(self, a: str, b: str) -> float:
        """Jaccard index of two regions."""
        return self.regions.overlap(a, b)

    def hold(self, policy: str, region: str) -> None:
        """Freeze the numbers of `region` in `policy`: the optimizer's moments of them are cleared too. ""
        lets go."""
        held = self.regions.hold(policy, region)
        if policy in self.optimizers:
            self.optimizers[policy].still(held)

    def transplant(self, dst: str, src: str, region: str) -> None:
        """Copy the numbers of `region` from `src` into `dst`."""
        self.regions.transplant(dst, src, region)

    def slerp(self, dst: str, src: str, weight: float, outside: str = "") -> None:
        """Move `dst` by `weight` along the arc to `src`, outside of one region or everywhere."""
        self.regions.slerp(dst, src, weight, outside)
