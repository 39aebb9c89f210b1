"""The fake engine's named policies: their weights, what of them is published, their optimizers and files."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from forethought.engines.base import BASE, Kind
from forethought.engines.fake import rows as fake_rows
from forethought.engines.fake.rows import Region, Rows
from forethought.recipe.schema import OptimSpec


class Policies:
    """The state of a fake engine. A row of weights that is absent is all zeros."""

    def __init__(self):
        self.weights: dict[str, Rows] = {BASE: {}}
        self.served: dict[str, Rows] = {BASE: {}}
        self.versions = {BASE: 0}
        self.frozen: list[str] = []
        # what the kind of a policy allows is checked; its weights are whole in any case
        self.adapters: list[str] = []
        self.optimizers: dict[str, OptimSpec] = {}
        self.momentum: dict[str, Rows] = {}
        self.gradients: dict[str, Rows] = {}
        self.aside: dict[str, dict[str, Rows]] = {}  # policy -> name -> gradient
        self.regions: dict[str, Region] = {}
        self.holds: dict[str, str] = {}  # policy -> region
        self.losses = self.steps = 0  # calls of forward_backward and optim_step

    def policies(self) -> dict[str, int]:
        """Name -> version; a copy."""
        return dict(self.versions)

    def fork(self, src: str, dst: str, kind: Kind = "adapter") -> None:
        """A deep copy under a new name. ValueError for a taken name, an unknown kind, or an adapter on a
        whole copy."""
        if dst in self.versions:
            raise ValueError(f"policy {dst!r} exists already")
        if kind not in get_args(Kind):
            raise ValueError(f"a policy cannot be forked as {kind!r}; known: {', '.join(get_args(Kind))}")
        whole = self._is_whole(src)
        if kind == "adapter" and whole and src != BASE:
            raise ValueError(f"an adapter lies on the base; {src!r} is a whole model of its own")
        self.weights[dst], self.served[dst] = (
            copy.deepcopy(self.weights[src]),
            copy.deepcopy(self.weights[src]),
        )
        self.versions[dst] = 0
        self.frozen += [dst] * (kind == "frozen")
        self.adapters += [dst] * (kind == "adapter" or (kind == "frozen" and not whole))
        if kind == "model" and src in self.optimizers and whole:
            self.prepare(dst, self.optimizers[src])
            self.momentum[dst] = copy.deepcopy(self.momentum[src])

    def assign(self, dst: str, src: str) -> None:
        """Copy weights. ValueError between an adapter and a whole model, and for a frozen `dst`."""
        if self._is_whole(dst) != self._is_whole(src):
            raise ValueError(
                f"{dst!r} and {src!r} are an adapter and a whole model; the weights of one "
                f"cannot become the other's"
            )
        if dst in self.frozen:
            raise ValueError(f"policy {dst!r} is frozen; its weights stay as they are")
        self.weights[dst] = copy.deepcopy(self.weights[src])

    def factor(self, dst: str, start: str) -> float:
        """Here an adapter holds everything: the share is 1."""
        if not self._is_whole(start) or start == BASE:
            raise ValueError(f"the base can become a whole copy of it again; {start!r} is none")
        self.fork(BASE, dst, "adapter")
        self.assign(BASE, start)
        self.publish(BASE)
        return 1.0

    def _is_whole(self, name: str) -> bool:
        if name not in self.versions:
            raise KeyError(f"no policy {name!r}; there are {sorted(self.versions)}")
        return name not in self.adapters

    def drop(self, name: str) -> None:
        """Forget a policy everywhere. KeyError for the base and for an unknown name."""
        if name == BASE or name not in self.versions:
            raise KeyError(f"policy {name!r} cannot be dropped; there are {sorted(self.versions)}")
        for table in (
            self.weights,
            self.served,
            self.versions,
            self.optimizers,
            self.momentum,
            self.gradients,
            self.aside,
            self.holds,
        ):
            table.pop(name, None)
        self.frozen, self.adapters = (
            [n for n in names if n != name] for names in (self.frozen, self.adapters)
        )

    def prepare(self, policy: str, optim: OptimSpec) -> None:
        """A fresh optimizer. ValueError for an unknown or frozen policy."""
        if policy not in self.versions or policy in self.frozen:
            raise ValueError(
                f"policy {policy!r} cannot train; there are {sorted(self.versions)}, frozen {self.frozen}"
            )
        self.optimizers[policy], self.momentum[policy], self.gradients[policy] = optim, {}, {}

    def release(self, policy: str) -> None:
        """Forget the optimizer and its momentum."""
        self.optimizers.pop(policy, None)
        self.momentum.pop(policy, None)

    def publish(self, policy: str) -> int:
        """Copy the newest weights to where `sample` reads them; returns the new version."""
        self.served[policy] = copy.deepcopy(self.weights[policy])
        self.versions[policy] += 1
        return self.versions[policy]

    def forget(self, policy: str) -> None:
        """Clear the gradient and those set aside."""
        self.gradients[policy] = {}
        self.aside.pop(policy, None)

    def _forget(self) -> None:
        self.gradients, self.aside = {name: {} for name in self.gradients}, {}

    # ---- files

    def finite(self) -> str:
        """ "" or the first logit or momentum that is not finite, in words."""
        trains = {name: rows for name, rows in self.weights.items() if name not in self.frozen}
        return fake_rows.not_finite("the logits", trains) or fake_rows.not_finite(
            "the momentum", self.momentum
        )

    def save(self, directory: Path) -> None:
        """Everything as one JSON file, `fake.json`."""
        state = {
            "weights": self.weights,
            "served": self.served,
            "versions": self.versions,
            "frozen": self.frozen,
            "adapters": self.adapters,
            "optimizers": {name: asdict(spec) for name, spec in self.optimizers.items()},
            "momentum": self.momentum,
            "losses": self.losses,
            "steps": self.steps,
            "regions": self.regions,
            "holds": self.holds,
        }
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "fake.json").write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Read `fake.json`; a version number that was given since is not given again."""
        state = json.loads((directory / "fake.json").read_text(encoding="utf-8"))
        specs = {
            name: OptimSpec(**{**spec, "betas": tuple(spec["betas"])})
            for name, spec in state.pop("optimizers").items()
        }
        known = self.versions
        for key, value in state.items():
            setattr(self, key, value)
        self.versions = {k: v if known.get(k, 0) <= v else known[k] + 1 for k, v in self.versions.items()}
        self.optimizers, self.gradients, self.aside = specs, {name: {} for name in specs}, {}
