"""AdamW over a large model's weights by the kernels: one pass for the norm of the gradients, one to clip and
update. PyTorch takes a pass for each, and more than half of its time goes to the norm and to clipping.

State is that of `torch.optim.AdamW`, which holds it: a run that is resumed without the kernels goes on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch

from forethought.engines.torch.forest.native.library import address, library
from forethought.engines.torch.forest.native.train import crew, fits

LARGE = 8_000_000  # numbers of a policy's weights; smaller ones move as they always did, to the bit
PIECE = 1 << 16  # of `optim.c`


class _Moved(ctypes.Structure):
    _fields_ = [
        ("tensors", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("size", "first", "p", "g", "m", "v", "sums")),
        *((name, ctypes.c_float) for name in ("clip", "keep", "rate", "beta1", "beta2", "eps", "root")),
    ]


def moves(parameters: Sequence[torch.nn.Parameter]) -> bool:
    """Whether the kernels move these weights: many, in float32, on a CPU, each in one piece."""
    return sum(p.numel() for p in parameters) >= LARGE and all(
        fits(p) and p.is_contiguous() for p in parameters
    )


def norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """The L2 norm of all gradients together, added up in float64."""
    given, _held = _moved(gradients)
    return torch.tensor(library().ft_squares(crew.threads, ctypes.byref(given)) ** 0.5)


@torch.no_grad()
def step(optimizer: torch.optim.AdamW, clip: float) -> None:
    """One update of all parameters that have a gradient, which counts `clip` times."""
    for group in optimizer.param_groups:
        by_step: dict[float, list[torch.nn.Parameter]] = {}
        for p in group["params"]:
            if p.grad is not None:
                by_step.setdefault(_state(optimizer, p)["step"].add_(1).item(), []).append(p)
        for count, own in by_step.items():
            (beta1, beta2), lr = group["betas"], float(group["lr"])
            states = [optimizer.state[p] for p in own]
            given, _held = _moved(
                [p.grad for p in own],
                [p.data for p in own],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
            )
            given.clip, given.keep = clip, 1 - lr * group["weight_decay"]
            given.rate, given.root = lr / (1 - beta1**count), (1 - beta2**count) ** 0.5
            given.beta1, given.beta2, given.eps = beta1, beta2, group["eps"]
            library().ft_adamw(crew.threads, ctypes.byref(given))


def _state(optimizer: torch.optim.AdamW, p: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    state = optimizer.state[p]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
    return state


def _moved(gradients: Sequence[torch.Tensor], *others: Sequence[torch.Tensor]) -> tuple[_Moved, list]:
    """What the kernels read, and what it points to."""
    held = [[x.contiguous() for x in gradients], *others]
    size = np.array([x.numel() for x in gradients], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(-(-size // PIECE))]).astype(np.int64)
    g, *rest = (np.array([x.data_ptr() for x in tensors], dtype=np.int64) for tensors in held)
    p, m, v = rest or (None, None, None)
    arrays = (size, first, p, g, m, v, np.empty(max(1, first[-1])))
    return _Moved(len(size), *map(address, arrays)), [held, arrays]
