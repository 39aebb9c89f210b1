"""What losses read of a model: log-probs of given tokens, and KL of whole distributions, in chunks: [batch,
time, vocabulary] never exists.

Axes: _N trained tokens, _H hidden size, _V vocabulary.
"""

from __future__ import annotations

from functools import partial

import torch

from forethought.engines.torch.loss import distributions
from forethought.engines.torch.loss.chunks import Head, by_chunks
from forethought.engines.torch.loss.known import Known, Left

CHUNK_FLOATS = 1 << 24  # most logits of one distribution that are held at once, on the CPU: 64 MB in float32
# As many times more on a GPU: it waits for the head's weights in products of fewer rows than its operations a
# byte (989 TFlop/s over 4.8 TB/s are 206 on an H200), and a vocabulary of 150k then has 440 rows a chunk. By
# the data sheet, not measured.
GPU_CHUNKS = 4


def chunk_rows(vocabulary: int, device: torch.device, held: int = 1) -> int:
    """Tokens of a chunk in which `held` distributions of each token lie beside one another."""
    return max(1, CHUNK_FLOATS * (1 if device.type == "cpu" else GPU_CHUNKS) // (vocabulary * held))


def logprobs_of(
    head: Head,
    hidden_NH: torch.Tensor,
    targets_N: torch.Tensor,
    vocabulary: int,
    left: Left | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p of each target, entropy of each distribution), both [N] in nats, in float32 (float64 where the
    logits are). Gradients flow into the log-probs only, in one backward pass. `head` maps hidden states to
    logits, each row for itself; see `chunks.by_chunks`. `left`: logits that are known, some rows at a time.
    """
    weight = getattr(head, "weight", None)
    if left and weight is not None and torch.is_grad_enabled():
        return Known.apply(hidden_NH, weight, targets_N, left, chunk_rows(vocabulary, hidden_NH.device))
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
