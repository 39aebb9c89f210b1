"""What losses read of a model: log-probs of given tokens, and KL of whole distributions, in chunks: [batch,
time, vocabulary] never exists.

Axes: _N trained tokens, _H hidden size, _V vocabulary.
"""

from __future__ import annotations

from functools import partial

import torch

from forethought.engines.torch.forest.absent import DrawnWords, drawn_of
from forethought.engines.torch.forest.forward import Row, Targets
from forethought.engines.torch.loss import distributions
from forethought.engines.torch.loss.chunks import Head, by_chunks
from forethought.engines.torch.loss.known import Known, Left

CHUNK_FLOATS = 1 << 24  # most logits of one distribution that are held at once, on the CPU: 64 MB in float32
# As many times more on a GPU: it waits for the head's weights in products of fewer rows than its operations a
# byte (989 TFlop/s over 4.8 TB/s are 206 on an H200), and a vocabulary of 150k then has 440 rows a chunk. By
# the data sheet, not measured.
GPU_CHUNKS = 4

Absent = tuple[DrawnWords, torch.Tensor]
"""Drawn words, and which of them each token cannot be: bool [N, S]."""


def absent_of(model: torch.nn.Module, row: Row, targets: Targets) -> Absent | None:
    """What the targets cannot be; None where the model may say any word anywhere."""
    words = drawn_of(model)
    if words is None:
        return None
    return words, words.absent(row.segments, targets.spans).to(targets.ids_N.device)


def chunk_rows(vocabulary: int, device: torch.device, held: int = 1) -> int:
    """Tokens of a chunk in which `held` distributions of each token lie beside one another."""
    return max(1, CHUNK_FLOATS * (1 if device.type == "cpu" else GPU_CHUNKS) // (vocabulary * held))


def logprobs_of(
    head: Head,
    hidden_NH: torch.Tensor,
    targets_N: torch.Tensor,
    vocabulary: int,
    left: Left | None = None,
    absent: Absent | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p of each target, entropy of each distribution), both [N] in nats, in float32 (float64 where the
    logits are). Gradients flow into the log-probs only, in one backward pass. `head` maps hidden states to
    logits, each row for itself; see `chunks.by_chunks`. `left`: logits that are known, some rows at a time;
    those of absent words are not hidden in them.
    """
    weight = getattr(head, "weight", None)
    if left and weight is not None and absent is None and torch.is_grad_enabled():
        return Known.apply(hidden_NH, weight, targets_N, left, chunk_rows(vocabulary, hidden_NH.device))
    rows = chunk_rows(vocabulary, hidden_NH.device)
    if absent is None:
        return by_chunks(_logp, head, rows, hidden_NH, targets_N)
    words, absent_NS = absent
    return by_chunks(partial(_logp_among, words), head, rows, hidden_NH, targets_N, absent_NS)


def kl_of(
    first: Head,
    first_NH: torch.Tensor,
    second: Head,
    second_NH: torch.Tensor,
    vocabulary: int,
    absent: Absent | None = None,
) -> torch.Tensor:
    """KL(first || second) at each token, summed over the vocabulary: [N] in nats. Gradients flow into the
    second only.

    Each policy comes as its head and its hidden states. In chunks, as `logprobs_of`, of half the tokens: two
    distributions are held.
    """
    rows = chunk_rows(vocabulary, second_NH.device, held=2)
    if absent is None:
        return by_chunks(partial(_kl, first), second, rows, second_NH, first_NH.detach())[0]
    words, absent_NS = absent
    among = partial(_kl_among, words, first)
    return by_chunks(among, second, rows, second_NH, first_NH.detach(), absent_NS)[0]


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


# The same of the words that stand there alone: the others get probability 0, and so no gradient -------------


def _logp_among(
    words: DrawnWords,
    logits_NV: torch.Tensor,
    targets_N: torch.Tensor,
    absent_NS: torch.Tensor,
    descent: bool,
) -> tuple[torch.Tensor | None, ...]:
    words.hide(logits_NV, absent_NS)
    return _logp(logits_NV, targets_N, descent)


@torch.no_grad()
def _kl_among(
    words: DrawnWords,
    first: Head,
    logits_NV: torch.Tensor,
    first_NH: torch.Tensor,
    absent_NS: torch.Tensor,
    descent: bool,
) -> tuple[torch.Tensor | None, ...]:
    words.hide(logits_NV, absent_NS)
    words.hide(first_NV := first(first_NH), absent_NS)
    return distributions.kl_of(first_NV, logits_NV, descent)
