"""What logits say: log-probs, entropies, divergences, and how each moves with the logits. Arithmetic on
tensors without gradients.

Rows are taken a block at a time: beside the logits, and the descent where one is asked for, nothing of their
size is held, and on a CPU a block stays in the cache from its first pass to its last. Numbers in float32, or
in float64 where the logits are. Of a large vocabulary a block is few rows, and calls would cost as much as
arithmetic: there the kernels take the rows one by one.

Axes: _N tokens, _V vocabulary, _B tokens of a block.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from forethought.engines.torch.forest.native import train as native
from forethought.engines.torch.forest.native.library import address, library

CPU_BLOCK = 1 << 18  # logits: 1 MB in float32, what a core's own cache holds
GPU_BLOCK = 1 << 24  # launches cost more than memory there (not measured)
HALVES = (torch.bfloat16, torch.float16)
LARGE = 1 << 13  # words of a vocabulary that the kernels read


def logp_of(
    logits_NV: torch.Tensor, ids_N: torch.Tensor, descent: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(log p of each id [N], entropy of each row [N], with `descent` -d(log p)/d(logits) = p - onehot [N, V],
    else None), in nats."""
    descent_NV = _like(logits_NV) if descent else None
    if logits_NV.shape[-1] >= LARGE and native.fits(raised_NV := _raised(logits_NV)):
        return *_by_kernel(raised_NV.contiguous(), ids_N.contiguous(), descent_NV), descent_NV
    logp_N, entropy_N = _by_block(_logp, logits_NV, ids_N, descent_NV)
    return logp_N, entropy_N, descent_NV


def kl_of(
    first_NV: torch.Tensor, second_NV: torch.Tensor, descent: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(KL(first || second) of each row [N], in nats, with `descent` -d(KL)/d(logits of the second) = p - q
    [N, V], else None)."""
    descent_NV = _like(second_NV) if descent else None
    return _by_block(_kl, first_NV, second_NV, descent_NV)[0], descent_NV


def _logp(
    logits_BV: torch.Tensor, ids_B: torch.Tensor, descent_BV: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One exponential a logit: -log Z is the log of the largest p, and a log p the distance of its logit to
    the largest less log Z. The entropy, log Z - sum p (logit - largest), is a sum of two numbers that are
    never negative: nothing cancels, however large the logits."""
    p_BV, ids_B1 = torch.softmax(logits_BV, -1, out=descent_BV), ids_B[:, None]
    minus_log_z_B1 = p_BV.amax(-1, keepdim=True).log_()
    below_BV = logits_BV - logits_BV.amax(-1, keepdim=True)
    logp_B1 = below_BV.gather(-1, ids_B1).add_(minus_log_z_B1)
    entropy_B1 = below_BV.mul_(p_BV).sum(-1, keepdim=True).add_(minus_log_z_B1).neg_()
    if descent_BV is not None:
        descent_BV.scatter_(-1, ids_B1, logp_B1.expm1())  # p - 1
    return logp_B1[:, 0], entropy_B1[:, 0]


def logp_at(
    at_N: np.ndarray, vocabulary: int, ids_N: torch.Tensor, descent: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `logp_of`, of rows of float32 that stand at these addresses."""
    descent_NV = torch.empty(len(ids_N), vocabulary) if descent else None
    return *_said(len(ids_N), vocabulary, None, at_N, ids_N, descent_NV), descent_NV


def _by_kernel(
    logits_NV: torch.Tensor, ids_N: torch.Tensor, descent_NV: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same; exponentials are added up in float32, and those sums in float64. IndexError for an id that is
    none."""
    return _said(*logits_NV.shape, logits_NV, None, ids_N, descent_NV)


def _said(
    rows: int,
    vocabulary: int,
    logits_NV: torch.Tensor | None,
    at_N: np.ndarray | None,
    ids_N: torch.Tensor,
    descent_NV: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    if len(ids_N) and not 0 <= int(ids_N.amin()) <= int(ids_N.amax()) < vocabulary:
        raise IndexError(f"token {int(ids_N.amax())} of {vocabulary}")
    found_2N = torch.empty(2, rows)
    given = (logits_NV, at_N, ids_N.contiguous(), *found_2N, descent_NV)
    library().ft_say(native.crew.threads, rows, vocabulary, *map(address, given))
    return tuple(found_2N)


def _kl(
    first_BV: torch.Tensor, second_BV: torch.Tensor, descent_BV: torch.Tensor | None
) -> tuple[torch.Tensor]:
    log_p_BV, log_q_BV = torch.log_softmax(first_BV, -1), torch.log_softmax(second_BV, -1)
    p_BV = torch.exp(log_p_BV, out=descent_BV)
    kl_B = log_p_BV.sub_(log_q_BV).mul_(p_BV).sum(-1)
    if descent_BV is not None:
        descent_BV.sub_(log_q_BV.exp_())
    return (kl_B,)


def _like(logits_NV: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(logits_NV, dtype=torch.float32 if logits_NV.dtype in HALVES else logits_NV.dtype)


def _by_block(
    measure: Callable, logits_NV: torch.Tensor, *beside: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """`measure` on a few rows of the inputs at a time, its results joined. None stays None; floats of 16 bits
    are raised."""
    n, vocabulary = logits_NV.shape
    rows = max(1, (CPU_BLOCK if logits_NV.device.type == "cpu" else GPU_BLOCK) // vocabulary)
    if n <= rows:
        return measure(*map(_raised, (logits_NV, *beside)))
    parts = [
        measure(*(_raised(x if x is None else x[start : start + rows]) for x in (logits_NV, *beside)))
        for start in range(0, n, rows)
    ]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _raised(x: torch.Tensor | None) -> torch.Tensor | None:
    return x.float() if x is not None and x.dtype in HALVES else x
