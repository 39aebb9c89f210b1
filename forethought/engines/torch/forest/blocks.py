"""Attention over a packed forest: each token's query sees the ancestors of its block and, causally, the block
itself.

The two parts are computed apart and joined by their log-sums of exponentials, so ancestors are read once for
all siblings, nothing is masked but the end of a padded row, and no keys are copied for each branch. The
gradient of a part, given the output and the log-sum of the whole, is what that part adds to the gradient of
the whole (as in FlashAttention, arXiv 2307.08691).

Axes: _N tokens of the row, _S sets of siblings, _B blocks, _H heads, _K heads of keys, _Q tokens of a block,
_A ancestors, _d head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx

from forethought.engines.torch.forest.native import train as native
from forethought.engines.torch.forest.packing import Group, Layout

FLASH, FLASH_BACKWARD = (
    getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention_for_cpu{end}", None)
    for end in ("", "_backward")
)
MOST_SCORES = 1 << 24  # held at once where the scores are written out
FAR = 1e30  # the log-sum of a query that is no token: it gives weight to nothing


def attention(layout: Layout, q_NHd: torch.Tensor, k_NKd: torch.Tensor, v_NKd: torch.Tensor) -> torch.Tensor:
    """[N, H, d], of scaled queries; heads of keys are shared by equal numbers of heads in order. What is
    given of the row has no queries, and nothing meaningful comes out there."""
    if not layout.given and native.attends(q_NHd, v_NKd):
        return native.Attention.apply(q_NHd, k_NKd, v_NKd, layout.spans_S3)
    return _Attention.apply(q_NHd, k_NKd, v_NKd, layout)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout):
        outs, sums = [], []
        for g in layout.groups:
            own, above = _own(g, q, k, v), _above(g, q, k, v)
            out, total = _part(*own, causal=True)
            out, total = _tokens(out), total.transpose(1, 2)  # [B, Q, H, d] and [B, Q, H]
            if above is not None:
                out, total = _join(out, total, *_unfold(g, own[0], *_part(*above, bias=g.bias_S11A)))
            outs.append(out.flatten(0, 1).flatten(1))
            sums.append(total.flatten(0, 1))
        out = F.embedding(layout.place_N, torch.cat(outs)).unflatten(-1, (q.shape[1], -1))
        ctx.save_for_backward(q, k, v, out, F.embedding(layout.place_N, torch.cat(sums)))
        ctx.layout = layout
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor):
        q, k, v, out, total = ctx.saved_tensors
        layout, parts = ctx.layout, ([], [], [])
        far = []
        for g in layout.groups:
            own, above = _own(g, q, k, v), _above(g, q, k, v)
            whole = _whole(g, grad, out, total)
            dq, dk, dv = _part_backward(*_heads(whole), *own, causal=True)
            dq = _tokens(dq)
            dk, dv = (_fold_keys(_tokens(x), k) for x in (dk, dv))
            if above is not None:
                aq, ak, av = _part_backward(*_folded(g, own[0], k, whole), *above, bias=g.bias_S11A)
                dq = dq + _unfold(g, own[0], aq)[0]
                far.append((g.above_SA.flatten(), _tokens(ak), _tokens(av)))
            for into, x in zip(parts, (dq, dk, dv), strict=True):
                into.append(x.flatten(0, 1).flatten(1))
        dq, dk, dv = (F.embedding(layout.place_N, torch.cat(part)) for part in parts)
        for index, ak, av in far:
            dk.index_add_(0, index, ak.reshape(len(index), -1).to(dk.dtype))
            dv.index_add_(0, index, av.reshape(len(index), -1).to(dv.dtype))
        return dq.view_as(q), dk.view_as(k), dv.view_as(v), None


# From rows of tokens to the shapes of the two parts ---------------------------------------------------------


def _own(g: Group, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of each block, [B, H, Q, d]."""
    repeat = q.shape[1] // k.shape[1]
    out = (_gather(x, g.own_BQ).transpose(1, 2) for x in (q, k, v))
    return tuple(x.repeat_interleave(repeat, 1) if i and repeat > 1 else x for i, x in enumerate(out))


def _above(g: Group, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
    """Queries of each set [S, K, (H/K) n Q, d] and its ancestors' keys and values [S, K, A, d]; None for
    roots."""
    if not g.above_SA.shape[1]:
        return None
    return _fold(g, _gather(q, g.own_BQ), k.shape[1]), *(
        _gather(x, g.above_SA).transpose(1, 2) for x in (k, v)
    )


def _gather(x_NHd: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """[*index, H, d]. embedding() is the fastest way to gather rows on a CPU."""
    return F.embedding(index, x_NHd.flatten(1)).unflatten(-1, x_NHd.shape[1:])


def _fold(g: Group, x_BQHd: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[S, K, (H/K) n Q, d]: all queries of a set that read the same keys."""
    x = x_BQHd.unflatten(2, (kv_heads, -1)).unflatten(0, (-1, g.n))  # S n Q K r d
    return x.permute(0, 3, 4, 1, 2, 5).flatten(2, 4)


def _unfold(g: Group, like_BHQd: torch.Tensor, x_SKMd: torch.Tensor, sums_SKM: torch.Tensor | None = None):
    """Back to [B, Q, H, d] (and [B, Q, H])."""
    blocks, heads, tokens, _ = like_BHQd.shape
    sets, kv_heads = x_SKMd.shape[:2]
    shape = (sets, kv_heads, heads // kv_heads, g.n, tokens)
    out = x_SKMd.unflatten(2, shape[2:]).permute(0, 3, 4, 1, 2, 5).reshape(blocks, tokens, heads, -1)
    return out, None if sums_SKM is None else sums_SKM.view(shape).permute(0, 3, 4, 1, 2).reshape(
        blocks, tokens, heads
    )


def _whole(g: Group, grad: torch.Tensor, out: torch.Tensor, total: torch.Tensor):
    """Gradient, output and log-sum of the group's queries, [B, Q, H, ...]; nothing comes from padding."""
    grad, out, total = _gather(grad, g.own_BQ), _gather(out, g.own_BQ), F.embedding(g.own_BQ, total)
    if g.hole_BQ is not None:
        grad, total = (
            grad.masked_fill(g.hole_BQ[..., None, None], 0),
            total.masked_fill(g.hole_BQ[..., None], FAR),
        )
    return grad, out, total


def _heads(whole: tuple[torch.Tensor, ...]):
    return tuple(x.transpose(1, 2) for x in whole)


def _folded(g: Group, like_BHQd: torch.Tensor, k: torch.Tensor, whole: tuple[torch.Tensor, ...]):
    grad, out, total = whole
    return (
        _fold(g, grad, k.shape[1]),
        _fold(g, out, k.shape[1]),
        _fold(g, total[..., None], k.shape[1])[..., 0],
    )


def _fold_keys(x_BQHd: torch.Tensor, k_NKd: torch.Tensor) -> torch.Tensor:
    """The gradients of a key that several heads read are one sum."""
    return x_BQHd if x_BQHd.shape[2] == k_NKd.shape[1] else x_BQHd.unflatten(2, (k_NKd.shape[1], -1)).sum(3)


def _tokens(x_BHQd: torch.Tensor) -> torch.Tensor:
    return x_BHQd.transpose(1, 2)


def _join(out_a: torch.Tensor, sum_a: torch.Tensor, out_b: torch.Tensor, sum_b: torch.Tensor):
    """Two softmaxes over disjoint keys as one."""
    total = torch.logaddexp(sum_a, sum_b)
    return (out_a * (sum_a - total).exp()[..., None] + out_b * (sum_b - total).exp()[..., None]).to(
        out_a.dtype
    ), total


# One part: [B, H, Q, d] queries against [B, H, A, d] keys ---------------------------------------------------


def _fused(q: torch.Tensor, v: torch.Tensor) -> bool:
    """On a CPU the fused kernel is faster in fp32, and its backward slower in bf16 than the products written
    out."""
    return (
        FLASH is not None
        and q.device.type == "cpu"
        and q.dtype == torch.float32
        and q.shape[-1] == v.shape[-1]
    )


def _part(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    bias: torch.Tensor | None = None,
):
    """(out, log-sum of exponentials, float32)."""
    if _fused(q, v):
        return FLASH(q, k, v, 0.0, causal, attn_mask=bias, scale=1.0)
    parts = []
    for _, scores in _scores(q, k, causal, bias):
        most = scores.amax(-1, keepdim=True)
        raised = (scores - most).exp_()
        total = raised.sum(-1, keepdim=True)
        parts.append(
            (
                (raised.to(v.dtype) @ v[:, :, : scores.shape[-1]]) / total.to(v.dtype),
                (most + total.log())[..., 0],
            )
        )
    return tuple(torch.cat(column, 2) for column in zip(*parts, strict=True))


def _part_backward(
    grad: torch.Tensor,
    out: torch.Tensor,
    total: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    bias: torch.Tensor | None = None,
):
    """(dq, dk, dv) of this part, from the gradient, output and log-sum of the whole."""
    if _fused(q, v):
        return FLASH_BACKWARD(grad, q, k, v, out, total.contiguous(), 0.0, causal, attn_mask=bias, scale=1.0)
    dot = (grad.float() * out.float()).sum(-1, keepdim=True)
    dq, dk, dv = [], torch.zeros(k.shape, device=k.device), torch.zeros(v.shape, device=v.device)
    for rows, scores in _scores(q, k, causal, bias):
        seen, some = slice(0, scores.shape[-1]), grad[:, :, rows]
        p = (scores - total[:, :, rows, None]).exp_()
        ds = ((some @ v[:, :, seen].transpose(-1, -2)).float().sub_(dot[:, :, rows]).mul_(p)).to(q.dtype)
        dq.append(ds @ k[:, :, seen])
        dk[:, :, seen] += ds.transpose(-1, -2) @ q[:, :, rows]
        dv[:, :, seen] += p.to(q.dtype).transpose(-1, -2) @ some
    return torch.cat(dq, 2), dk.to(k.dtype), dv.to(v.dtype)


def _scores(q: torch.Tensor, k: torch.Tensor, causal: bool, bias: torch.Tensor | None):
    """(rows, their scores in float32), some rows at a time; causal ones up to the last of these rows."""
    tokens, keys = q.shape[2], k.shape[2]
    step = max(1, MOST_SCORES // (q.shape[0] * q.shape[1] * keys))
    for start in range(0, tokens, step):
        end = min(start + step, tokens)
        seen = end if causal else keys
        scores = (q[:, :, start:end] @ k[:, :, :seen].transpose(-1, -2)).float()
        if causal:
            later = torch.ones(end - start, seen, dtype=torch.bool, device=q.device).triu_(start + 1)
            scores = scores.masked_fill_(later, float("-inf"))
        yield slice(start, end), scores if bias is None else scores + bias
