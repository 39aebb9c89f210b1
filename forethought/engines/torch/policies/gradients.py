"""Gradients by objective: set aside, compared, and put together again, with or without surgery. Nothing is
concatenated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from forethought.core.errors import UserError
from forethought.core.metrics import Metric
from forethought.engines import vectors
from forethought.engines.torch.policies.table import Policies

Gradient = dict[str, torch.Tensor]  # parameter -> its gradient; one that is absent is zero
THIRDS = ("early", "middle", "late")


class Gradients:
    """What `set_aside` took, by policy and name. `layers` is the number of the model's layers."""

    def __init__(self, weights: Policies, layers: int):
        self.weights, self.layers = weights, layers
        self.aside: dict[str, dict[str, Gradient]] = {}

    def set_aside(self, policy: str, name: str) -> None:
        """ValueError if `name` is taken: one of the two would be lost."""
        mine = self.aside.setdefault(policy, {})
        vectors.need_free(mine, policy, name)
        own = self.weights.parameters(policy)
        mine[name] = {k: p.grad for k, p in own.items() if p.grad is not None}
        for p in own.values():
            p.grad = None

    @contextmanager
    def added(self, policy: str) -> Iterator[Callable[[], None]]:
        """Inside, the policy gathers a gradient from zero, and calling the yielded function starts it again;
        at the end it is added to the earlier gradient, which is unchanged after a UserError. No gradient is
        copied: the earlier one is set aside, and usually there is none."""
        own = self.weights.parameters(policy)
        before = {k: p.grad for k, p in own.items() if p.grad is not None}

        def restart() -> None:
            for p in own.values():
                p.grad = None

        restart()
        try:
            yield restart
        except UserError:
            for k, p in own.items():
                p.grad = before.get(k)
            raise
        for k, gradient in before.items():
            own[k].grad = gradient if own[k].grad is None else gradient.add_(own[k].grad)

    def conflict(self, policy: str, a: str, b: str, part: bool) -> dict[str, float]:
        """See `Engine.conflict`; "all" too is left out where a gradient is zero."""
        return cosines(
            *vectors.taken(self.aside.get(policy, {}), policy, (a, b)), layers=self.layers, part=part
        )

    @torch.no_grad()
    def combine(self, policy: str, names: Sequence[str], method: str, seed: int) -> dict[str, Metric]:
        """See `Engine.combine`; the sum of no gradients is none. Metrics (PCGrad only): see
        `vectors.report`."""
        parts = vectors.taken(self.aside.get(policy, {}), policy, names)
        factors, metrics = vectors.combination(names, method, lambda: gram_of(parts), seed)
        for key, p in self.weights.parameters(policy).items():
            p.grad = _weighted(
                [(part[key], w) for part, w in zip(parts, factors, strict=True) if key in part]
            )
        self.aside.pop(policy, None)
        return metrics

    def forget(self, policy: str) -> None:
        """Clear the policy's gradient and those set aside for it."""
        self.aside.pop(policy, None)
        for p in self.weights.parameters(policy).values():
            p.grad = None

    def forget_all(self) -> None:
        """The same for every policy, after a refused update."""
        self.aside.clear()
        for name in self.weights.names():
            self.forget(name)


def layer_group(name: str, layers: int) -> str:
    """The part of the model that a parameter belongs to: numbered layers in thirds, what embeds tokens and
    positions before them, the final norm and the head after them.

    >>> layer_group("model.layers.5.mlp.up_proj.weight", 12), layer_group("transformer.ln_f.weight", 12)
    ('middle', 'head')
    """
    # the first number is the layer's, whatever the model calls it; later ones are experts'
    if number := re.search(r"\.(\d+)\.", name):
        return THIRDS[min(2, int(number.group(1)) * 3 // layers)]
    return "embed" if re.search(r"embed(?!_out)|wte|wpe|project_in", name) else "head"


@torch.no_grad()
def cosines(a: Gradient, b: Gradient, layers: int, part: bool = False) -> dict[str, float]:
    """Cosine overall ("all") and by `layer_group`, without those in which either gradient is zero. `part`: of
    a - b with b."""
    sums: dict[str, torch.Tensor] = {}  # group -> a.b, a.a, b.b
    for key in {**a, **b}:  # in the model's order: sums do not depend on the process
        both = torch.stack(
            [_dot(a.get(key), b.get(key)), _dot(a.get(key), a.get(key)), _dot(b.get(key), b.get(key))]
        )
        for group in ("all", layer_group(key, layers)):
            sums[group] = sums[group] + both if group in sums else both
    found = {
        group: vectors.cosine(*(vectors.rest(*three.tolist()) if part else three.tolist()))
        for group, three in sums.items()
    }
    return {
        group: found[group] for group in ("all", "embed", *THIRDS, "head") if found.get(group) is not None
    }


@torch.no_grad()
def gram_of(parts: Sequence[Mapping[str, torch.Tensor]]) -> list[list[float]]:
    """[i][j]: the inner product of gradients i and j."""
    n = len(parts)
    gram = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            dots = [_dot(parts[i][key], parts[j][key]) for key in sorted(parts[i].keys() & parts[j].keys())]
            gram[i][j] = gram[j][i] = torch.stack(dots).sum().item() if dots else 0.0
    return gram


def _dot(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor:
    """Products in float32, summed in float64, so that the size of a tensor does not matter. 0 where one is
    absent."""
    if a is None or b is None:
        device = next((x.device for x in (a, b) if x is not None), None)
        return torch.zeros((), dtype=torch.float64, device=device)
    return (a.float() * b.float()).sum(dtype=torch.float64)


def _weighted(parts: list[tuple[torch.Tensor, float]]) -> torch.Tensor | None:
    """The sum of tensors times numbers, in the first one's memory."""
    if not parts:
        return None
    (total, factor), *rest = parts
    if factor != 1.0:
        total = total.mul_(factor)
    for tensor, factor in rest:
        total = total.add_(tensor, alpha=factor)
    return total
