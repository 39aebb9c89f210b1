"""What stands between the matrix products of a training step, as autograd functions on the kernels
(`train.c`). Float32 on a CPU; `forest.py` and `decoder.py` have the same for everything else.

Axes: _N tokens of the packed row, _H heads, _K heads of keys, _d size of a head, _D hidden size.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.autograd.function import FunctionCtx

from forethought.engines.torch.forest.native.library import address, floats, library

float_, long_ = ctypes.c_float, ctypes.c_long


class _Crew:
    """Of this process, as PyTorch's number of threads is: `machine.settle` sets both. No bit depends on
    `threads`; `layers`, `sampling`: whether the kernels compute the layers of a training step, and rows."""

    threads, layers, sampling = 1, True, True


crew = _Crew()


def fits(x: torch.Tensor) -> bool:
    """Whether the kernels compute with this tensor."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and library() is not None


def rounds_as_autocast() -> bool:
    """Whether the kernels have the products of the type that autocast is set to here."""
    return torch.get_autocast_dtype("cpu") == torch.bfloat16


def hooked(module: torch.nn.Module) -> bool:
    """Whether somebody wants to see or change what goes through a module: then it has to be called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def hooked_below(module: torch.nn.Module) -> bool:
    """Whether a module or any below it is hooked. It is asked at every step: `modules` would take longer than
    what it is asked for."""
    waiting = [module]
    for one in waiting:
        if hooked(one):
            return True
        waiting += filter(None, one._modules.values())
    return False


def attends(q_NHd: torch.Tensor, v_NKd: torch.Tensor) -> bool:
    """Whether the kernel computes this attention: plain float32 on a CPU, one width for keys and values, a
    multiple of the vector width."""
    return (
        fits(q_NHd)
        and fits(v_NKd)
        and q_NHd.shape[-1] == v_NKd.shape[-1]
        and q_NHd.shape[-1] % library().ft_width() == 0
    )


class _Forest(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("tokens", "heads", "kv_heads", "d", "spans", "from_", "to")),
        *((name, ctypes.c_void_p) for name in ("asks", "span", "q", "k", "v")),
        *((name, long_) for name in ("q_ld", "k_ld", "v_ld")),
    ]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _by_heads(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    spans_S3: np.ndarray,
    kernel: Callable,
    *arrays: torch.Tensor,
) -> None:
    """`kernel` over the heads of keys, on the crew's threads."""
    (tokens, heads, d), kv_heads, lib = q.shape, k.shape[1], library()

    def part(bounds: tuple[int, int]) -> None:
        f = _Forest(
            tokens,
            heads,
            kv_heads,
            d,
            len(spans_S3),
            *bounds,
            None,
            *map(address, (spans_S3, q, k, v)),
            heads * d,
            kv_heads * d,
            kv_heads * d,
        )
        work = floats(lib.ft_attend_work(ctypes.byref(f)))
        kernel(ctypes.byref(f), *map(address, arrays), address(work))

    threads = min(crew.threads, kv_heads)
    if threads == 1:
        part((0, kv_heads))
    else:
        bounds = np.linspace(0, kv_heads, threads + 1).astype(int).tolist()
        list(_pool(threads).map(part, zip(bounds, bounds[1:], strict=False)))


class Attention(torch.autograd.Function):
    """[N, H, d] of scaled queries; `spans_S3`: where each segment begins, its tokens, and where its
    descendants end."""

    @staticmethod
    def forward(ctx: FunctionCtx, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans_S3: np.ndarray):
        """Causal attention inside each span, and to the spans above it: q_NHd, k_NKd, v_NKd -> out_NHd."""
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, lse = torch.empty_like(q), floats(*q.shape[:2])
        _by_heads(q, k, v, spans_S3, library().ft_attend, out, lse)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.spans_S3 = spans_S3
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor):
        """Gradients of q, k, v from the log-sum-exp that the forward kept; scores are computed again."""
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        _by_heads(
            q, k, v, ctx.spans_S3, library().ft_attend_backward, out, lse, grad.contiguous(), dq, dk, dv
        )
        return dq, dk, dv, None


class Norm(torch.autograd.Function):
    """RMSNorm over the last axis."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, eps: float):
        """RMSNorm over the last axis: x * weight / rms(x); keeps 1 / rms for the backward pass."""
        x, weight = x.contiguous(), weight.contiguous()
        y, r = torch.empty_like(x), floats(*x.shape[:-1])
        library().ft_norm(
            r.numel(), x.shape[-1], address(x), address(weight), float_(eps), address(y), address(r)
        )
        ctx.save_for_backward(x, weight, r)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor):
        """Gradients of x, and of the weight where it trains."""
        x, weight, r = ctx.saved_tensors
        grad, dx = grad.contiguous(), torch.empty_like(x)
        dw = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        library().ft_norm_backward(
            r.numel(),
            x.shape[-1],
            address(x),
            address(weight),
            address(r),
            address(grad),
            address(dx),
            address(dw),
        )
        return dx, dw, None


class Rotate(torch.autograd.Function):
    """Rotary positions on halves, times `scale`; cos, sin [N, d / 2]."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_NHd: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, scale: float):
        """Rotary positions on x_NHd, multiplied by `scale` (queries carry 1 / sqrt(d))."""
        ctx.save_for_backward(cos, sin)
        ctx.scale = scale
        return _turned(x_NHd.contiguous(), cos, sin, scale, 1.0)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor):
        """The rotation the other way round."""
        cos, sin = ctx.saved_tensors
        return _turned(grad.contiguous(), cos, sin, ctx.scale, -1.0), None, None, None


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, scale: float, turn: float) -> torch.Tensor:
    n, heads, d = x.shape
    y = torch.empty_like(x)
    library().ft_rotate(
        n,
        heads,
        d,
        address(x),
        long_(heads * d),
        address(cos),
        address(sin),
        float_(scale),
        float_(turn),
        address(y),
    )
    return y


class Gate(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx: FunctionCtx, gate: torch.Tensor, up: torch.Tensor):
        """silu(gate) * up, element by element."""
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        y = torch.empty_like(gate)
        library().ft_gate(long_(y.numel()), address(gate), address(up), address(y))
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor):
        """Gradients of gate and up; the sigmoid is computed again."""
        gate, up = ctx.saved_tensors
        d_gate, d_up, grad = torch.empty_like(gate), torch.empty_like(up), grad.contiguous()
        library().ft_gate_backward(
            long_(grad.numel()), address(gate), address(up), address(grad), address(d_gate), address(d_up)
        )
        return d_gate, d_up
