"""The loss streams, per token, and the log-probs and entropies they need, in chunks: [batch, time,
vocabulary] never exists.

Axes: _N trained tokens, _H hidden size, _V vocabulary.
"""

from __future__ import annotations

from functools import partial

import torch

from forethought.engines.torch.loss import distributions
from forethought.engines.torch.loss.chunks import Head, by_chunks

CHUNK_FLOATS = 1 << 24  # most logits of one distribution that are held at once, on the CPU: 64 MB in float32
# As many times more on a GPU: it waits for the head's weights in products of fewer rows than its operations a
# byte (989 TFlop/s over 4.8 TB/s are 206 on an H200), and a vocabulary of 150k then has 440 rows a chunk. By
# the data sheet, not measured.
GPU_CHUNKS = 4


def chunk_rows(vocabulary: int, device: torch.device, held: int = 1) -> int:
    """Tokens of a chunk in which `held` distributions of each token lie beside one another."""
    return max(1, CHUNK_FLOATS * (1 if device.type == "cpu" else GPU_CHUNKS) // (vocabulary * held))


def logprobs_of(
    head: Head, hidden_NH: torch.Tensor, targets_N: torch.Tensor, vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p of each target, entropy of each distribution), both [N] in nats, in float32 (float64 where the
    logits are). Gradients flow into the log-probs only, in one backward pass. `head` maps hidden states to
    logits, each row for itself; see `chunks.by_chunks`.
    """
    return by_chunks(_logp, head, chunk_rows(vocabulary, hidden_NH.device), hidden_NH, targets_N)


def kl_of(
    first: Head, first_NH: torch.Tensor, second: Head, second_NH: torch.Tensor, vocabulary: int
) -> torch.Tensor:
    """KL(first || second) at each token, summed over the vocabulary: [N] in nats. Gradients flow into the
    second only.

    Each policy comes as its head and its hidden states. In chunks, as `logprobs_of`, of half the tokens: two
    distributions are held.
    """
    rows = chunk_rows(vocabulary, second_NH.device, held=2)
    return by_chunks(partial(_kl, first), second, rows, second_NH, first_NH.detach())[0]


# What is measured of a chunk: (its value [N], minus its derivative by the logits [N, V], what else there is
# [N]) ----


def _logp(logits_NV: torch.Tensor, targets_N: torch.Tensor, descent: bool) -> tuple[torch.Tensor | None, ...]:
    logp_N, entropy_N, descent_NV = distributions.logp_of(logits_NV, targets_N, descent)
    return logp_N, descent_NV, entropy_N


@torch.no_grad()
def _kl(
    first: Head, logits_NV: torch.Tensor, first_NH: torch.Tensor, descent: bool
) -> tuple[torch.Tensor | None, ...]:
    return distributions.kl_of(first(first_NH), logits_NV, descent)


# Streams ----------------------------------------------------------------------------------------------------


def sft(logp_N: torch.Tensor, weight_N: torch.Tensor) -> torch.Tensor:
    """Weighted negative log-likelihood, summed."""
    return -(weight_N * logp_N).sum()


def clipped_pg(
    logp_N: torch.Tensor,
    old_N: torch.Tensor,
    advantage_N: torch.Tensor,
    weight_N: torch.Tensor,
    low: float,
    high: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's clipped surrogate (arXiv 1707.06347) with separate bounds (clip-higher, arXiv 2503.14476),
    summed, negated.

    Returns (loss, share of weighted tokens where the clip holds the gradient back). On-policy (old = logp)
    the gradient is that of plain policy gradient.
    """
    ratio_N = (logp_N - old_N).exp()
    plain_N = ratio_N * advantage_N
    clipped_N = ratio_N.clamp(1 - low, 1 + high) * advantage_N
    held_N = (clipped_N < plain_N).float()
    return -(weight_N * torch.minimum(plain_N, clipped_N)).sum(), (weight_N * held_N).sum()


def k3(logp_N: torch.Tensor, ref_N: torch.Tensor, weight_N: torch.Tensor) -> torch.Tensor:
    """Schulman's k3 estimate of KL(policy || reference) on sampled tokens: exp(d) - d - 1 with d = ref -
    logp, summed.

    As a loss, as GRPO has it, its gradient on policy is that of KL(reference || policy): tokens are sampled,
    not differentiated through.
    """
    d_N = ref_N - logp_N
    return (weight_N * (torch.expm1(d_N) - d_N)).sum()
