"""The fake engine's gradients by objective and regions of weights."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.metrics import Metric
from forethought.engines import vectors
from forethought.engines.fake import rows as fake_rows
from forethought.engines.fake.policies import Policies
from forethought.engines.fake.rows import Region


class Surgery(Policies):
    """See `engines.base.Surgery`."""

    def set_aside(self, policy: str, name: str) -> None:
        """Put the gradient aside under `name`. ValueError for a taken name."""
        mine = self.aside.setdefault(policy, {})
        vectors.need_free(mine, policy, name)
        mine[name], self.gradients[policy] = self.gradients.get(policy, {}), {}

    def conflict(self, policy: str, a: str, b: str, part: bool = False) -> dict[str, float]:
        """Logits are all there is: the only group is the head."""
        g, h = vectors.taken(self.aside.get(policy, {}), policy, (a, b))
        three = (fake_rows.dot(g, h), fake_rows.dot(g, g), fake_rows.dot(h, h))
        found = vectors.cosine(*(vectors.rest(*three) if part else three))
        return {} if found is None else {"all": found, "head": found}

    def combine(
        self, policy: str, names: Sequence[str], method: str = "sum", seed: int = 0
    ) -> dict[str, Metric]:
        """Sum the named gradients, or project them first ("pcgrad"). ValueError for an unknown name or
        method."""
        parts = vectors.taken(self.aside.get(policy, {}), policy, names)
        gram = lambda: [[fake_rows.dot(g, h) for h in parts] for g in parts]
        factors, metrics = vectors.combination(names, method, gram, seed)
        self.gradients[policy] = fake_rows.weighted_sum(parts, factors)
        self.aside.pop(policy, None)
        return metrics

    # ---- regions

    def find_region(self, name: str, policy: str, start: str, share: float) -> int:
        """Name the `share` of numbers that differ most from `start`'s; returns how many."""
        if not 0 < share <= 1:
            raise ValueError(f"the share of a region is above 0 and at most 1, not {share}")
        self.regions[name] = fake_rows.largest(self.weights[policy], self.weights[start], share)
        return sum(len(indices) for _, indices in self.regions[name].values())

    def random_region(self, name: str, like: str, seed: int) -> int:
        """Name as many numbers of each row as `like` has; returns how many."""
        self.regions[name] = fake_rows.draw_region(self._region(like), seed)
        return sum(len(indices) for _, indices in self.regions[name].values())

    def overlap(self, a: str, b: str) -> float:
        """Jaccard index of two regions."""
        return fake_rows.overlap(self._region(a), self._region(b))

    def hold(self, policy: str, region: str) -> None:
        """Numbers of `region` stop moving, and their momentum is cleared; "" lets go."""
        self.holds.pop(policy, None)
        if region:
            self._check_trainable(policy)
            self._region(region)
            self.holds[policy] = region
            for role, (_, indices) in self.regions[region].items():
                for j in indices if role in self.momentum.get(policy, {}) else ():
                    self.momentum[policy][role][j] = 0.0

    def transplant(self, dst: str, src: str, region: str) -> None:
        """Copy the numbers of `region` from `src` into `dst`."""
        self._check_trainable(dst)
        self.weights[dst] = fake_rows.transplant_rows(
            self.weights[dst], self.weights[src], self._region(region)
        )

    def slerp(self, dst: str, src: str, weight: float, outside: str = "") -> None:
        """Move `dst` along the arc to `src`, outside of one region or everywhere."""
        self._check_trainable(dst)
        self.weights[dst] = fake_rows.slerp_rows(
            self.weights[dst], self.weights[src], weight, self._region(outside) if outside else {}
        )

    def _region(self, name: str) -> Region:
        if name not in self.regions:
            raise ValueError(f"no region {name!r}; there are {sorted(self.regions)}")
        return self.regions[name]

    def _check_trainable(self, policy: str) -> None:
        if policy in self.frozen or policy not in self.versions:
            raise ValueError(
                f"policy {policy!r} is frozen or unknown; there are {sorted(self.versions)}, "
                f"frozen {self.frozen}"
            )
