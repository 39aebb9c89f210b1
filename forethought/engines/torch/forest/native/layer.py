"""A decoder's layer as one autograd function: every plain layer of a small model on a CPU goes through here.

Between the kernel's products nothing is handed back to Python, and norms and the gate are computed again in
the backward pass instead of kept. An adapter is added into its matrix. In a small layer autograd carries the
matrix's gradient on to the adapter's two; in a larger one the kernel forms those two alone, by narrow
products.

Axes: _N tokens of the packed row, _H hidden size, _d size of a head, _S segments.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.autograd.function import FunctionCtx

from forethought.engines.torch.forest.activations import Found
from forethought.engines.torch.forest.native.library import address, floats, library, way_of
from forethought.engines.torch.forest.native.train import fits, hooked

SMALL = 1 << 18  # numbers of a layer's largest matrix up to which the whole gradients are formed for adapters
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
WEIGHTS = ("norm1", "norm2", *MATRICES, "q_bias", "k_bias", "v_bias", "o_bias")
LOW = tuple(f"{name}_{factor}" for name in MATRICES for factor in "AB")  # A [rank, in], B [out, rank], scaled
GIVEN = (*WEIGHTS, *LOW)


class Shape(NamedTuple):
    heads: int
    kv_heads: int
    d: int
    eps: float
    scale: float
    bf16: bool = False  # products round their factors to bfloat16, as autocast does
    threads: int = 1  # no bit depends on it
    again: bool = False  # a layer's input alone is kept, and the rest computed again in the backward pass
    left: Found | None = None  # what sampling has left of all that would be kept: nothing is computed


class _Layer(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int)
            for name in ("tokens", "hidden", "heads", "kv_heads", "d", "inner", "spans", "way", "threads")
        ),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("span", ctypes.c_void_p),
        ("wanted", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("row", "asks", "cos", "sin", *WEIGHTS)),
        ("rank", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in LOW),
    ]


class _Kept(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("r1", "lse", "qkv", "out", "r2", "middle", "gate", "up")]


class _Taken(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("tokens", "wanted", "hidden", "heads", "kv_heads", "d", "inner")),
        ("eps", ctypes.c_float),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("at", "row", "asks", "x", "r1", "lse", "qkv", "out"),
                *("r2", "middle", "gate", "up"),
            )
        ),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("norm1", "norm2", "qkv", "qkv_bias", "o", "o_bias", "gate", "up", "down", *LOW)
    ]


def weights_of(layer: torch.nn.Module, d: int) -> tuple[torch.Tensor | None, ...] | None:
    """In the order of GIVEN; None where the kernel does not compute such a layer (norms of queries, biases of
    the MLP, adapters of another kind)."""
    attn, mlp = layer.self_attn, layer.mlp
    linears = (attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    biases = [linear.bias for linear in linears]
    given = [b is not None for b in biases]
    if hasattr(attn, "q_norm") or d % library().ft_width() or any(given[4:]) or len(set(given[:3])) > 1:
        return None
    found = [_matrix(linear) for linear in linears]
    if None in found:
        return None
    if max(matrix.numel() for matrix, _ in found) > SMALL and _one_rank([low for _, low in found]):
        matrices = [matrix for matrix, _ in found]
        lows = [(low[0][0], low[0][1] * low[0][2]) if low else (None, None) for _, low in found]
    else:
        matrices = [_added(matrix, low) for matrix, low in found]
        lows = [(None, None)] * len(found)
    norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
    weights = (*norms, *matrices, *biases[:4], *(factor for low in lows for factor in low))
    return weights if all(w is None or fits(w) for w in weights) else None


Low = tuple[torch.Tensor, torch.Tensor, float]  # A, B and scale of an adapter: scale * B A is added


def _matrix(linear: torch.nn.Module) -> tuple[torch.Tensor, list[Low]] | None:
    """(the matrix, the adapters that lie on it). None: it is no plain one."""
    if hooked(linear):
        return None
    if type(linear) is torch.nn.Linear:
        return linear.weight, []
    names = getattr(linear, "lora_A", None)
    if names is None:
        return None
    lows = []
    for name in () if linear.disable_adapters else linear.active_adapters:
        if name in names:
            parts = (linear.base_layer, names[name], linear.lora_B[name])
            if (
                type(linear.lora_dropout[name]) is not torch.nn.Identity
                or linear.use_dora.get(name)
                or any(map(hooked, parts))
            ):
                return None
            lows.append((names[name].weight, linear.lora_B[name].weight, linear.scaling[name]))
    return linear.base_layer.weight, lows


def _one_rank(lows: list[list[Low]]) -> bool:
    """Whether there are adapters, at most one on each matrix, and all of one rank."""
    return {len(low) for low in lows} <= {0, 1} and len({len(low[0][0]) for low in lows if low}) == 1


def _added(weight: torch.Tensor, lows: list[Low]) -> torch.Tensor:
    for A, B, scale in lows:
        weight = weight + scale * (B @ A)
    return weight


class Layer(torch.autograd.Function):
    """x [N, H] -> [N, H], or [M, H] for the M tokens in `rows` (int32, ascending); cos, sin [N, d / 2]; spans
    [S, 3]; then the weights in the order of GIVEN, a bias or a factor None where there is none; the biases of
    q, k and v are there together. Those of several layers in a row make one function of them all; `rows` are
    the last one's."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        spans_S3: np.ndarray,
        rows: np.ndarray | None,
        shape: Shape,
        *weights,
    ):
        """All layers on one packed row: x_NH -> x_MH, with M the rows that somebody reads (all N for `rows`
        None)."""
        weights = tuple(w if w is None else w.contiguous() for w in weights)
        ctx.asks = None if rows is None else np.bincount(rows, minlength=len(x)).astype(np.uint8)
        ctx.given = spans_S3, rows, shape
        if shape.left:
            ctx.save_for_backward(cos, sin, *weights)
            return shape.left.last(np.arange(len(x)) if rows is None else rows)
        xs, rooms, work = [x.contiguous()], [], None
        for i in range(len(weights) // len(GIVEN)):
            layer = _layer(ctx, i, len(x), cos, sin, weights)
            held, kept = _room(layer, rooms[0] if rooms and shape.again else None)
            rooms = [held] if shape.again else [*rooms, held]
            work = _work(layer) if work is None else work
            xs.append(x.new_empty(layer.wanted, x.shape[1]))
            library().ft_layer(
                ctypes.byref(layer), address(xs[-2]), ctypes.byref(kept), address(xs[-1]), address(work)
            )
        ctx.save_for_backward(cos, sin, *xs[:-1], *([] if shape.again else rooms), *weights)
        return xs[-1]

    @staticmethod
    def backward(ctx: FunctionCtx, dy: torch.Tensor):
        """Gradients of x and of every weight that asks for one, last layer first."""
        cos, sin, *saved = ctx.saved_tensors
        again, left = ctx.given[2].again, ctx.given[2].left
        n = len(saved) // ((0 if left else 1 if again else 2) + len(GIVEN))
        xs, rooms, weights = (
            saved[: 0 if left else n],
            saved[n : -n * len(GIVEN)],
            saved[-n * len(GIVEN) :],
        )
        wanted, grads, work, dy = ctx.needs_input_grad[6:], [], None, dy.contiguous()
        for i in reversed(range(n)):
            layer = _layer(ctx, i, len(cos), cos, sin, weights)
            own = slice(i * len(GIVEN), (i + 1) * len(GIVEN))
            into, found = _gradients(weights[own], wanted[own])
            work = _work(layer) if work is None else work
            held, kept = _room(layer, None if again or left else rooms[i])
            x = _take(layer, left.layer(i), kept) if left else xs[i]
            dx = torch.empty_like(x)
            if again and not left:  # into `held`
                y = dy.new_empty(layer.wanted, dx.shape[1])
                library().ft_layer(
                    ctypes.byref(layer), address(x), ctypes.byref(kept), address(y), address(work)
                )
            library().ft_layer_backward(
                ctypes.byref(layer),
                address(x),
                ctypes.byref(kept),
                address(dy),
                address(dx),
                ctypes.byref(into),
                address(work),
            )
            grads, dy = [*found, *grads], dx
        return dy, None, None, None, None, None, *grads


def _layer(
    ctx: FunctionCtx,
    i: int,
    tokens: int,
    cos: torch.Tensor,
    sin: torch.Tensor,
    weights: Sequence[torch.Tensor | None],
) -> _Layer:
    """Layer `i`; it holds what its adapters make of its matrices, so one is made when its turn comes."""
    spans_S3, rows, shape = ctx.given
    own = weights[i * len(GIVEN) : (i + 1) * len(GIVEN)]
    last = rows is not None and (i + 1) * len(GIVEN) == len(weights)
    inner, hidden = own[WEIGHTS.index("gate")].shape
    low = own[len(WEIGHTS) :]
    whole = own[: len(WEIGHTS)] if all(x is None for x in low) else merged(own)
    asked = (len(rows), rows, ctx.asks) if last else (tokens, None, None)
    layer = _Layer(
        tokens,
        hidden,
        shape.heads,
        shape.kv_heads,
        shape.d,
        inner,
        len(spans_S3),
        way_of(shape.bf16),
        shape.threads,
        shape.eps,
        shape.scale,
        address(spans_S3),
        asked[0],
        *map(address, (*asked[1:], cos, sin, *whole)),
        next((len(A) for A in low[::2] if A is not None), 0),
        *map(address, low),
    )
    layer.holds = whole
    return layer


def merged(own: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """A layer's weights with its adapters added in, in float32 under any autocast: what samples was added up
    so too."""
    whole, first = list(own[: len(WEIGHTS)]), WEIGHTS.index("q")
    with torch.autocast("cpu", enabled=False):
        for i in range(len(MATRICES)):
            A, B = own[len(WEIGHTS) + 2 * i :][:2]
            if A is not None:
                whole[first + i] = torch.addmm(whole[first + i], B, A)
    return whole


def _take(layer: _Layer, at_N: np.ndarray, kept: _Kept) -> torch.Tensor:
    """The layer's input; what else its backward pass reads is written where `kept` says."""
    x = floats(layer.tokens, layer.hidden)
    taken = _Taken(
        layer.tokens,
        layer.wanted,
        layer.hidden,
        layer.heads,
        layer.kv_heads,
        layer.d,
        layer.inner,
        layer.eps,
        address(at_N),
        layer.row,
        layer.asks,
        address(x),
        *(getattr(kept, name) for name in ("r1", "lse", "qkv", "out", "r2", "middle", "gate", "up")),
    )
    library().ft_take_left(layer.threads, ctypes.byref(taken))
    return x


def _work(layer: _Layer) -> torch.Tensor:
    return floats(library().ft_layer_work(ctypes.byref(layer)))


def _gradients(
    weights: Sequence[torch.Tensor | None], wanted: Sequence[bool]
) -> tuple[_Gradients, list[torch.Tensor | None]]:
    """Where the kernel adds gradients up, and those of the weights in their order; None where none is
    wanted."""
    by_name = dict(zip(GIVEN, weights, strict=True))
    asked = {name for name, need in zip(GIVEN, wanted, strict=True) if need}
    asked |= {LOW[i ^ 1] for i, name in enumerate(LOW) if name in asked}  # the kernel forms both or none
    grads = {
        name: torch.zeros_like(by_name[name])
        for name in ("norm1", "norm2", "o", "o_bias", "gate", "up", "down", *LOW)
        if name in asked
    }
    sizes = [len(by_name[name]) for name in "qkv"]
    for joined, names, shape in (
        ("qkv", ("q", "k", "v"), by_name["q"].shape[1:]),
        ("qkv_bias", ("q_bias", "k_bias", "v_bias"), ()),
    ):
        if asked & {*names}:
            grads[joined] = weights[0].new_zeros(sum(sizes), *shape)
    into = _Gradients(*(address(grads.get(name)) for name, _ in _Gradients._fields_))
    for joined, names in (("qkv", ("q", "k", "v")), ("qkv_bias", ("q_bias", "k_bias", "v_bias"))):
        if joined in grads:
            grads |= zip(names, grads[joined].split(sizes), strict=True)
    return into, [grads[name] if name in asked else None for name in GIVEN]


def _room(layer: _Layer, held: torch.Tensor | None = None) -> tuple[torch.Tensor, _Kept]:
    """What the backward pass needs, in one block."""
    n, m, heads = layer.tokens, layer.wanted, layer.heads * layer.d
    sizes = (
        n,
        n * layer.heads,
        n * (heads + 2 * layer.kv_heads * layer.d),
        n * heads,
        m,
        m * layer.hidden,
        m * layer.inner,
        m * layer.inner,
    )
    # 64: the kernels may read a vector beyond the end
    held = floats(sum(sizes) + 64) if held is None else held
    starts = np.cumsum((0, *sizes[:-1]))
    return held, _Kept(*(held.data_ptr() + 4 * int(start) for start in starts))
