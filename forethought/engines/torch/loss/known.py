"""Log-probs from logits that are known: the head's product is not formed, only its gradient.

Axes: _N tokens, _H hidden size, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from forethought.engines.torch.loss import distributions

Left = Callable[[int, int], np.ndarray]  # (start, end) -> the addresses of the logits of these rows


class Known(torch.autograd.Function):
    """(log p of each target, entropy of each distribution), [N] each, of a head that is one matrix alone.
    Logits are read where they stand, twice, `rows` at a time: nothing of their size is held."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets_N: torch.Tensor,
        left: Left,
        rows: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients flow into the log-probs only."""
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N)
        ctx.left, ctx.rows = left, rows
        parts = [
            distributions.logp_at(left(start, end), len(weight_VH), targets_N[start:end])[:2]
            for start, end in _chunks(len(targets_N), rows)
        ]
        logp_N, entropy_N = map(torch.cat, zip(*parts, strict=True))
        ctx.mark_non_differentiable(entropy_N)
        return logp_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient_N: torch.Tensor, _: torch.Tensor):
        """Of the hidden states, and of the matrix where it trains, added up in float32."""
        hidden_NH, weight_VH, targets_N = ctx.saved_tensors
        wanted_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        wanted_VH = torch.zeros_like(weight_VH) if ctx.needs_input_grad[1] else None
        with torch.autocast("cpu", enabled=False):
            for start, end in _chunks(len(targets_N), ctx.rows):
                own, slope = slice(start, end), gradient_N[start:end, None].neg()
                *_, descent_NV = distributions.logp_at(
                    ctx.left(start, end), len(weight_VH), targets_N[own], descent=True
                )
                if wanted_NH is not None:
                    torch.mm(descent_NV, weight_VH, out=wanted_NH[own]).mul_(slope)
                if wanted_VH is not None:
                    wanted_VH.addmm_(descent_NV.T, hidden_NH[own] * slope)
        return wanted_NH, wanted_VH, None, None, None


def _chunks(n: int, rows: int) -> list[tuple[int, int]]:
    return [(start, min(start + rows, n)) for start in range(0, n, rows)]
