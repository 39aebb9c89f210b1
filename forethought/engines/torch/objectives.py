"""The loss streams, per token, and the log-probs and entropies they need, in chunks: [batch, time, vocabulary] never exists.

Axes: _N trained tokens, _H hidden size, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from forethought.engines.torch import distributions

CHUNK_FLOATS = 1 << 24  # most logits of one distribution that are held at once, on the CPU: 64 MB in float32
# As many times more on a GPU: it waits for the head's weights in products of fewer rows than its operations a byte (989 TFlop/s over
# 4.8 TB/s are 206 on an H200), and a vocabulary of 150k then has 440 rows a chunk. By the data sheet, not measured.
GPU_CHUNKS = 4

Head = Callable[[torch.Tensor], torch.Tensor]


def chunk_rows(vocabulary: int, device: torch.device, held: int = 1) -> int:
    """Tokens of a chunk in which `held` distributions of each token lie beside one another."""
    return max(1, CHUNK_FLOATS * (1 if device.type == "cpu" else GPU_CHUNKS) // (vocabulary * held))


def logprobs_of(head: Head, hidden_NH: torch.Tensor, targets_N: torch.Tensor, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p of each target, entropy of each distribution), both [N] in nats, in float32 (float64 where the logits are). Gradients flow
    into the log-probs only, in one backward pass: it computes in the memory of what was kept for it.

    `head` maps hidden states to logits, each row for itself. Up to one chunk, a number a logit is kept for the backward pass, which has
    but to multiply it. Above, see `_by_chunks`.
    """
    return _by_chunks(_logp, head, chunk_rows(vocabulary, hidden_NH.device), hidden_NH, targets_N)


def kl_of(first: Head, first_NH: torch.Tensor, second: Head, second_NH: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """KL(first || second) at each token, summed over the vocabulary: [N] in nats. Gradients flow into the second only.

    Each policy comes as its head and its hidden states. In chunks, as `logprobs_of`, of half the tokens: two distributions are held.
    """
    rows = chunk_rows(vocabulary, second_NH.device, held=2)
    return _by_chunks(partial(_kl, first), second, rows, second_NH, first_NH.detach())[0]


# What is measured of a chunk: (its value [N], minus its derivative by the logits [N, V], what else there is [N]) ----


def _logp(logits_NV: torch.Tensor, targets_N: torch.Tensor, descent: bool) -> tuple[torch.Tensor | None, ...]:
    logp_N, entropy_N, descent_NV = distributions.logp_of(logits_NV, targets_N, descent)
    return logp_N, descent_NV, entropy_N


@torch.no_grad()
def _kl(first: Head, logits_NV: torch.Tensor, first_NH: torch.Tensor, descent: bool) -> tuple[torch.Tensor | None, ...]:
    return distributions.kl_of(first(first_NH), logits_NV, descent)


# Chunks --------------------------------------------------------------------------------------------------------------------


def _by_chunks(measure: Callable, head: Head, rows: int, hidden_NH: torch.Tensor, beside_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Values, with their gradient on the hidden states and the head, and what else was measured: [N] each.

    More than one chunk leaves no logits behind. Where the head trains, its gradient needs those of every token again, and they are
    computed again. Where it does not, only the hidden states want a gradient; a token's is a direction, [H] numbers that are known as
    soon as its logits are, times what comes from the loss: the directions are kept, and no logit is computed twice.
    """
    if len(hidden_NH) <= rows:
        return _chunk(measure, head, hidden_NH, beside_N)
    parts = zip(hidden_NH.split(rows), beside_N.split(rows), strict=True)
    if torch.is_grad_enabled() and head(hidden_NH[:1].detach()).requires_grad:
        return _joined(checkpoint(_chunk, measure, head, *part, use_reentrant=False, preserve_rng_state=False) for part in parts)
    if torch.is_grad_enabled() and hidden_NH.requires_grad:
        value_N, direction_NH, *others = _joined(_directed(measure, head, *part) for part in parts)
        return _Linked.apply(hidden_NH, value_N, direction_NH), *others
    return _joined(_chunk(measure, head, *part) for part in parts)


def _chunk(measure: Callable, head: Head, hidden_NH: torch.Tensor, beside_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
    logits_NV = head(hidden_NH)
    value_N, descent_NV, *others = measure(logits_NV.detach(), beside_N, descent=logits_NV.requires_grad)
    return (value_N if descent_NV is None else _Linked.apply(logits_NV, value_N, descent_NV)), *others


def _directed(measure: Callable, head: Head, hidden_NH: torch.Tensor, beside_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(values, minus their derivatives by the hidden states, others) of a chunk under a head that does not train."""
    hidden_NH = hidden_NH.detach().requires_grad_()
    logits_NV = head(hidden_NH)
    value_N, descent_NV, *others = measure(logits_NV.detach(), beside_N, descent=True)
    (direction_NH,) = torch.autograd.grad(logits_NV, hidden_NH, descent_NV.to(logits_NV.dtype))
    return value_N, direction_NH, *others


def _joined(parts: Iterable[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


class _Linked(torch.autograd.Function):
    """`value_N` as a function of `x`. `descent` [N, size of a row of x], minus its derivative, is all that is kept for the backward
    pass, which overwrites it: PyTorch refuses a second one."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, value_N: torch.Tensor, descent: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(descent)
        ctx.dtype = x.dtype
        return value_N

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_N: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (descent,) = ctx.saved_tensors
        return descent.mul_(gradient_N.neg()[:, None]).to(ctx.dtype), None, None


# Streams -------------------------------------------------------------------------------------------------------------------


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
    return (weight_N * (torch.expm1(d_N) - d_N)).sum()
