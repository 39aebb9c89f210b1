"""Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/) with the matrices of one shape
orthogonalised together.

The update of a matrix is its momentum with all singular values pulled towards 1, by five steps of a quintic
Newton-Schulz iteration in the precision that the run computes in: bf16 where the machine multiplies it in
hardware (then the numbers are those of `torch.optim.Muon`: a test compares them), float32 elsewhere, where
bf16 products are emulated and take four times as long. `torch.optim.Muon` takes the matrices one by one; a
small model has dozens of small ones, and one batched product of all costs about 60 % of as many products.
"""

from __future__ import annotations

import math

import torch

AT_ONCE = 1 << 26  # most numbers stacked in one batch: bounds the memory for large models


class Muon(torch.optim.Muon):
    """Settings and state as in `torch.optim.Muon` with its default rate adjustment, sqrt(max(1, rows /
    columns)). `dtype`: of the iteration."""

    def __init__(self, *args, dtype: torch.dtype = torch.bfloat16, **settings):
        super().__init__(*args, **settings)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None):
        """Move all parameters once; matrices of one shape are orthogonalised as one batch, at most AT_ONCE
        numbers."""
        for group in self.param_groups:
            alike: dict[tuple, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault((p.shape, p.dtype, p.device), []).append(p)
            for (shape, _, _), parameters in alike.items():
                size = max(1, AT_ONCE // shape.numel())
                for start in range(0, len(parameters), size):
                    self._move(parameters[start : start + size], group)

    def _move(self, parameters: list[torch.nn.Parameter], group: dict) -> None:
        gradients = [p.grad for p in parameters]
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
        momenta = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
        directions = orthogonal(
            torch.stack(updates).to(self.dtype), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        rows, columns = parameters[0].shape
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for p, direction in zip(parameters, directions, strict=True):
            p.add_(direction, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))


def orthogonal(
    matrices_KRC: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Each of K matrices, R x C, with its singular values pulled towards 1, computed in the matrices' own
    dtype."""
    a, b, c = coefficients
    tall = matrices_KRC.shape[1] > matrices_KRC.shape[2]
    x = matrices_KRC.mT.contiguous() if tall else matrices_KRC
    x = x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
