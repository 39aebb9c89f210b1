"""What stands between the matrix products of a training step, as autograd functions on the kernels
(`train.c`). Float32 on a CPU; `forest.py` and `decoder.py` have the same for everything else.

Axes: _N tokens of the packed row, _H heads, _K heads of keys, _d size of a head, _D hidden size.
"""

from __future__ import annotations

import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from forethought.engines.torch.forest.native.library import address, floats, library

float_, long_ = ctypes.c_float, ctypes.c_long


class _Crew:
    """Of this process, as PyTorch's number of threads is: `machine.autocast` sets both. No bit depends on
    `threads`; `layers`: whether the kernels compute whole layers."""

    threads, layers = 1, True


crew = _Crew()


def fits(x: torch.Tensor) -> bool:
    """Whether the kernels compute with this tensor."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and library() is not None


def rounds_as_autocast() -> bool:
    """Whether the kernels have the products of the type that autocast is set to here."""
    return torch.get_autocast_dtype("cpu") == torch.bfloat16 and bool(library().ft_bf16())


def hooked(module: torch.nn.Module) -> bool:
    """Whether somebody wants to see or change what goes through a module: then it has to be called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def attends(q_NHd: torch.Tensor, v_NKd: torch.Tensor) -> bool:
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


def _by_heads(q, k, v, spans_S3: np.ndarray, kernel, *arrays: torch.Tensor) -> None:
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
    def forward(ctx, q, k, v, spans_S3):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, lse = torch.empty_like(q), floats(*q.shape[:2])
        _by_heads(q, k, v, spans_S3, library().ft_attend, out, lse)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.spans_S3 = spans_S3
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        _by_heads(
            q, k, v, ctx.spans_S3, library().ft_attend_backward, out, lse, grad.contiguous(), dq, dk, dv
        )
        return dq, dk, dv, None


class Norm(torch.autograd.Function):
    """RMSNorm over the last axis."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        x, weight = x.contiguous(), weight.contiguous()
        y, r = torch.empty_like(x), floats(*x.shape[:-1])
        library().ft_norm(
            r.numel(), x.shape[-1], address(x), address(weight), float_(eps), address(y), address(r)
        )
        ctx.save_for_backward(x, weight, r)
        return y

    @staticmethod
    def backward(ctx, grad):
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
    def forward(ctx, x_NHd, cos, sin, scale):
        ctx.save_for_backward(cos, sin)
        ctx.scale = scale
        return _turned(x_NHd.contiguous(), cos, sin, scale, 1.0)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return _turned(grad.contiguous(), cos, sin, ctx.scale, -1.0), None, None, None


def _turned(x, cos, sin, scale: float, turn: float) -> torch.Tensor:
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
    def forward(ctx, gate, up):
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        y = torch.empty_like(gate)
        library().ft_gate(long_(y.numel()), address(gate), address(up), address(y))
        return y

    @staticmethod
    def backward(ctx, grad):
        gate, up = ctx.saved_tensors
        d_gate, d_up, grad = torch.empty_like(gate), torch.empty_like(up), grad.contiguous()
        library().ft_gate_backward(
            long_(grad.numel()), address(gate), address(up), address(grad), address(d_gate), address(d_up)
        )
        return d_gate, d_up
