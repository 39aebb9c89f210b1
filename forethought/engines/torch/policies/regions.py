"""Regions: sets of single weights, by name (CPI-FT, arXiv 2508.21741): found, compared, held still,
transplanted, merged around.

A region lives under the names that parameters have in any policy of the same shape ("lora_A" without its
adapter's name), so that what was found on one policy can be held on another. Indices are those of the
flattened tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from forethought.engines import vectors
from forethought.engines.base import BASE
from forethought.engines.torch.policies.select import draw_indices, largest
from forethought.engines.torch.policies.table import Policies

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Region:
    indices: dict[str, torch.Tensor]  # parameter -> int64, ascending; parameters without any are absent
    sizes: dict[str, int]  # of those parameters, in numbers

    def count(self) -> int:
        """How many single numbers it holds."""
        return sum(len(i) for i in self.indices.values())


class Regions:
    """The regions of an engine, and which policy holds which."""

    def __init__(self, weights: Policies):
        self.weights = weights
        self.found: dict[str, Region] = {}
        self.holds: dict[str, str] = {}  # policy -> region

    def find(self, name: str, policy: str, start: str, share: float) -> int:
        """`floor(share * numbers)`, at least one; ties go to the earlier. Differences are taken in float32.
        ValueError for a share outside (0, 1], for policies of different shapes, and for weights that are not
        finite."""
        if not 0 < share <= 1:
            raise ValueError(f"the share of a region is above 0 and at most 1, not {share}")
        now, then = self._pair(policy, start)
        indices = largest(now, then, max(1, int(share * sum(p.numel() for p in now.values()))))
        return self._keep(name, indices, {k: p.numel() for k, p in now.items()})

    def draw(self, name: str, like: str, seed: int) -> int:
        """A random region with as many numbers of each tensor as `like`; returns how many."""
        region = self._region(like)
        generator = torch.Generator().manual_seed(seed)
        indices = {
            k: draw_indices(region.sizes[k], len(i), generator).to(i.device)
            for k, i in region.indices.items()
        }
        return self._keep(name, indices, region.sizes)

    def overlap(self, a: str, b: str) -> float:
        """Jaccard index: |a and b| / |a or b|."""
        one, other = self._region(a), self._region(b)
        both = sum(
            int(torch.isin(i, other.indices[k], assume_unique=True).sum())
            for k, i in one.indices.items()
            if k in other.indices
        )
        return both / (one.count() + other.count() - both)

    def hold(self, policy: str, region: str) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        """The policy's parameters with the indices held from now on (none for "")."""
        self.holds.pop(policy, None)
        if not region:
            return []
        held = self._inside(policy, region)
        self.holds[policy] = region
        return held

    @contextmanager
    def held(self, policy: str) -> Iterator[None]:
        """Around a step: the held numbers have no gradient (so they do not count in the norm) and keep their
        values."""
        held = self._inside(policy, self.holds[policy]) if policy in self.holds else []
        for p, index in held:
            if p.grad is not None:
                p.grad.put_(index, torch.zeros_like(index, dtype=p.grad.dtype))
        before = [p.detach().take(index) for p, index in held]
        try:
            yield
        finally:  # the optimizer's decay, and Muon's direction, reach every number of a matrix
            for (p, index), values in zip(held, before, strict=True):
                p.detach().put_(index, values)

    @torch.no_grad()
    def transplant(self, dst: str, src: str, region: str) -> None:
        """Copy the numbers of `region` from `src` into `dst`. ValueError unless both have the same
        tensors."""
        self._pair(dst, src)
        theirs = numbers(self.weights, src)
        for key, (p, index) in zip(self._region(region).indices, self._inside(dst, region), strict=True):
            p.put_(index, theirs[key].take(index).to(p.dtype))
        self.weights.base_moved |= dst == BASE

    @torch.no_grad()
    def slerp(self, dst: str, src: str, weight: float, outside: str) -> None:
        """Angles and lengths are those of the numbers outside the region, which stay out of the sums."""
        mine, theirs = self._pair(dst, src)
        self._trainable(dst)
        inside = dict(self._inside(dst, outside)) if outside else {}
        for key, p in mine.items():
            a, b, index = p.float(), theirs[key].float(), inside.get(p)
            if index is not None:
                none = torch.zeros(len(index), device=p.device)
                kept, a, b = p.take(index), a.clone().put_(index, none), b.clone().put_(index, none)
            p.copy_(slerp_tensor(a, b, weight))
            if index is not None:
                p.put_(index, kept)
        self.weights.base_moved |= dst == BASE

    def drop(self, policy: str) -> None:
        """Forget what a dropped policy held."""
        self.holds.pop(policy, None)

    # ---- files

    def tensors(self) -> dict[str, torch.Tensor]:
        """`REGION|PARAMETER|SIZE` -> indices."""
        return {f"{name}|{k}|{r.sizes[k]}": i for name, r in self.found.items() for k, i in r.indices.items()}

    def load(self, tensors: Tensors, holds: Mapping[str, str]) -> None:
        """Read regions and holds from a checkpoint's tensors (keys `name|tensor|size`)."""
        self.found, self.holds = {}, dict(holds)
        device = next(self.weights.base.parameters()).device
        for full, indices in tensors.items():
            name, key, size = full.rsplit("|", 2)
            region = self.found.setdefault(name, Region({}, {}))
            region.indices[key], region.sizes[key] = indices.to(device), int(size)

    # ---- helpers

    def _keep(self, name: str, indices: dict[str, torch.Tensor], sizes: Mapping[str, int]) -> int:
        if not name:
            raise ValueError("a region needs a name")
        indices = {k: i for k, i in indices.items() if len(i)}
        self.found[name] = Region(indices, {k: sizes[k] for k in indices})
        return self.found[name].count()

    def _region(self, name: str) -> Region:
        if name not in self.found:
            raise ValueError(f"no region {name!r}; there are {sorted(self.found)}")
        return self.found[name]

    def _pair(self, a: str, b: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        mine, theirs = numbers(self.weights, a), numbers(self.weights, b)
        if {k: p.shape for k, p in mine.items()} != {k: p.shape for k, p in theirs.items()}:
            raise ValueError(f"policies {a!r} and {b!r} do not have the same parameters")
        return mine, theirs

    def _inside(self, policy: str, name: str) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        region, own = self._region(name), numbers(self.weights, self._trainable(policy))
        if any(k not in own or own[k].numel() != size for k, size in region.sizes.items()):
            raise ValueError(
                f"region {name!r} was found on a policy with other parameters than {policy!r} has"
            )
        return [(own[k], index) for k, index in region.indices.items()]

    def _trainable(self, policy: str) -> str:
        if policy in self.weights.frozen:
            raise ValueError(f"policy {policy!r} is frozen; its weights stay as they are")
        return policy


def numbers(weights: Policies, policy: str) -> dict[str, torch.Tensor]:
    """The tensors of any policy, by the names of regions; tied ones once."""
    if policy not in weights.names():
        raise KeyError(f"no policy {policy!r}; there are {weights.names()}")
    adapter = re.compile(rf"\.(lora_\w+)\.{re.escape(policy)}(?=\.|$)")
    return {adapter.sub(r".\1", key): p for key, p in weights.parameters(policy).items()}


def slerp_tensor(a: torch.Tensor, b: torch.Tensor, weight: float) -> torch.Tensor:
    """Float32 tensor `a`, moved as a vector by `weight` along the arc to `b`; see `vectors.arc`."""
    square_a, square_b, dot = ((x * y).sum(dtype=torch.float64).item() for x, y in ((a, a), (b, b), (a, b)))
    factors = vectors.arc(square_a, square_b, dot, weight)
    return a.lerp(b, weight) if factors is None else a * factors[0] + b * factors[1]
