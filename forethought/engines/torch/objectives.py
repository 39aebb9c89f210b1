"""The loss streams, per token, and the log-probs and entropies they need, in chunks: [batch, time, vocabulary] never exists.

Axes: _N trained tokens, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

CHUNK_FLOATS = 1 << 24  # most logits held at once


def logprobs_of(head: Callable, hidden_NH: torch.Tensor, targets_N: torch.Tensor, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p of each target, entropy of each distribution), both [N] float32 in nats. Gradients flow into the log-probs only.

    `head` maps hidden states to logits. Above one chunk, logits are recomputed in the backward pass instead of kept.
    """
    return _by_chunks(partial(_chunk, head), max(1, CHUNK_FLOATS // vocabulary), hidden_NH, targets_N)


def kl_of(
    first: Callable, first_NH: torch.Tensor, second: Callable, second_NH: torch.Tensor, vocabulary: int
) -> torch.Tensor:
    """KL(first || second) at each token, summed over the vocabulary: [N] float32 in nats. Gradients flow into the second only.

    Each policy comes as its head and its hidden states. In chunks, as `logprobs_of`, of half the tokens: two distributions are held.
    """
    return _by_chunks(partial(_kl_chunk, first, second), max(1, CHUNK_FLOATS // vocabulary // 2), first_NH.detach(), second_NH)[0]


def _by_chunks(chunk: Callable, rows: int, *inputs_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """`chunk` on at most `rows` rows of the inputs at a time, its results joined; more than one chunk is computed again in backward."""
    if len(inputs_N[0]) <= rows:
        return chunk(*inputs_N)
    parts = [
        checkpoint(chunk, *part, use_reentrant=False) if torch.is_grad_enabled() else chunk(*part)
        for part in zip(*(x.split(rows) for x in inputs_N), strict=True)
    ]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _kl_chunk(first: Callable, second: Callable, first_NH: torch.Tensor, second_NH: torch.Tensor) -> tuple[torch.Tensor]:
    with torch.no_grad():
        first_NV = first(first_NH).float().log_softmax(-1)
    second_NV = second(second_NH).float().log_softmax(-1)
    return ((first_NV.exp() * (first_NV - second_NV)).sum(-1),)


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
    """Schulman's k3 estimate of KL(policy || reference) on sampled tokens: exp(d) - d - 1 with d = ref - logp, summed.

    As a loss, as GRPO has it, its gradient on policy is that of KL(reference || policy): tokens are sampled, not differentiated through.
    """
    d_N = ref_N - logp_N
    return (weight_N * (d_N.exp() - d_N - 1)).sum()
