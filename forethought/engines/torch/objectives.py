"""The loss streams, per token, and the log-probs and entropies they need, in chunks: [batch, time, vocabulary] never exists.

Axes: _N trained tokens, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

CHUNK_FLOATS = 1 << 24  # most logits held at once


def logprobs_of(head: Callable, hidden_NH: torch.Tensor, targets_N: torch.Tensor, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p of each target, entropy of each distribution), both [N] float32 in nats. Gradients flow into the log-probs only.

    `head` maps hidden states to logits. Above one chunk, logits are recomputed in the backward pass instead of kept.
    """
    rows = max(1, CHUNK_FLOATS // vocabulary)
    if len(targets_N) <= rows:
        return _chunk(head, hidden_NH, targets_N)
    parts = [
        checkpoint(_chunk, head, h, t, use_reentrant=False) if torch.is_grad_enabled() else _chunk(head, h, t)
        for h, t in zip(hidden_NH.split(rows), targets_N.split(rows), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _chunk(head: Callable, hidden_NH: torch.Tensor, targets_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logp_NV = head(hidden_NH).float().log_softmax(-1)
    with torch.no_grad():
        entropy_N = -(logp_NV.exp() * logp_NV).sum(-1)
    return logp_NV.gather(-1, targets_N[:, None])[:, 0], entropy_N


def sft(logp_N: torch.Tensor, weight_N: torch.Tensor) -> torch.Tensor:
    """Weighted negative log-likelihood, summed."""
    return -(weight_N * logp_N).sum()


def clipped_pg(
    logp_N: torch.Tensor, old_N: torch.Tensor, advantage_N: torch.Tensor, weight_N: torch.Tensor, low: float, high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's clipped surrogate (arXiv 1707.06347) with separate bounds (clip-higher, arXiv 2503.14476), summed, negated.

    Returns (loss, share of weighted tokens where the clip holds the gradient back). On-policy (old = logp) the gradient is
    that of plain policy gradient.
    """
    ratio_N = (logp_N - old_N).exp()
    plain_N = ratio_N * advantage_N
    clipped_N = ratio_N.clamp(1 - low, 1 + high) * advantage_N
    held_N = (clipped_N < plain_N).float()
    return -(weight_N * torch.minimum(plain_N, clipped_N)).sum(), (weight_N * held_N).sum()


def k3(logp_N: torch.Tensor, ref_N: torch.Tensor, weight_N: torch.Tensor) -> torch.Tensor:
    """Schulman's k3 estimate of KL(policy || reference) on sampled tokens: exp(d) - d - 1 with d = ref - logp, summed."""
    d_N = ref_N - logp_N
    return (weight_N * (d_N.exp() - d_N - 1)).sum()
