"""What is measured of logits, a chunk of tokens at a time, with its gradient: [tokens, vocabulary] never
exists.

Axes: _N tokens, _H hidden size, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

Head = Callable[[torch.Tensor], torch.Tensor]


KEPT = (
    4  # logits beside each weight of the head that are kept: what its gradient and its moments take, and one
)
MOST_KEPT = 8  # chunks


def by_chunks(
    measure: Callable, head: Head, rows: int, hidden_NH: torch.Tensor, *beside_N: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Values, with their gradient on the hidden states and the head, and what else was measured: [N] each.

    `head` maps hidden states to logits, each row for itself. `measure(logits [N, V], *beside, descent=)`
    returns the value [N], minus its derivative by the logits [N, V] (None unless `descent`), and whatever
    else; `beside` is what it needs to know of each token. It may write into the logits.
    There is one backward pass: it computes in the memory of what was kept for it.

    Up to `rows` tokens are one chunk, of which a number a logit is kept for the backward pass, which has but
    to multiply it. So it is for a few chunks more where a head trains that is large beside them, since its
    gradient needs the logits of every token again. Else more than one chunk leaves no logits behind: where
    the head trains, they are computed again. Where it does not, only the hidden states want a
    gradient; a token's is a direction, [H] numbers that are known as soon as its logits are, times what comes
    from the loss: the directions are kept, and no logit is computed twice.
    """
    if len(hidden_NH) <= rows:
        return _chunk(measure, head, hidden_NH, *beside_N)
    if torch.is_grad_enabled():
        if weights := _leaves(head(hidden_NH[:1].detach())):
            if len(hidden_NH) <= min(KEPT * hidden_NH.shape[1], MOST_KEPT * rows):
                parts = [
                    _chunk(measure, head, *(x[i : i + rows] for x in (hidden_NH, *beside_N)))
                    for i in range(0, len(hidden_NH), rows)
                ]
                return tuple(map(torch.cat, zip(*parts, strict=True)))
            return _Again.apply(measure, head, rows, len(beside_N), hidden_NH, *beside_N, *weights)
        if hidden_NH.requires_grad:
            value_N, direction_NH, *others = _in_turn(
                partial(_directed, measure, head), rows, hidden_NH, *beside_N
            )
            return _Linked.apply(hidden_NH, value_N, direction_NH), *others
    return _in_turn(partial(_chunk, measure, head), rows, hidden_NH, *beside_N)


def _in_turn(chunk: Callable, rows: int, *inputs_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What `chunk` returns of at most `rows` rows of the inputs at a time, joined. Nothing that a chunk has
    made stays: between large blocks that come and go, small ones that stay would keep the C library from
    giving the next chunk the memory of the last."""
    n, joined = len(inputs_N[0]), ()
    for start in range(0, n, rows):
        part = chunk(*(x[start : start + rows] for x in inputs_N))
        joined = joined or tuple(x.new_empty((n, *x.shape[1:])) for x in part)
        for whole, x in zip(joined, part, strict=True):
            whole[start : start + rows] = x
    return joined


def _chunk(
    measure: Callable, head: Head, hidden_NH: torch.Tensor, *beside_N: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    logits_NV = head(hidden_NH)
    value_N, descent_NV, *others = measure(logits_NV.detach(), *beside_N, descent=logits_NV.requires_grad)
    return (value_N if descent_NV is None else _Linked.apply(logits_NV, value_N, descent_NV)), *others


def _directed(
    measure: Callable, head: Head, hidden_NH: torch.Tensor, *beside_N: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """(values, minus their derivatives by the hidden states, others) of a chunk under a head that does not
    train."""
    hidden_NH = hidden_NH.detach().requires_grad_()
    logits_NV = head(hidden_NH)
    value_N, descent_NV, *others = measure(logits_NV.detach(), *beside_N, descent=True)
    (direction_NH,) = torch.autograd.grad(logits_NV, hidden_NH, descent_NV.to(logits_NV.dtype))
    return value_N, direction_NH, *others


class _Linked(torch.autograd.Function):
    """`value_N` as a function of `x`. `descent` [N, size of a row of x], minus its derivative, is all that is
    kept for the backward pass, which overwrites it: PyTorch refuses a second one."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: torch.Tensor, value_N: torch.Tensor, descent: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(descent)
        ctx.dtype = x.dtype
        return value_N

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient_N: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (descent,) = ctx.saved_tensors
        return descent.mul_(gradient_N.neg()[:, None]).to(ctx.dtype), None, None


class _Again(torch.autograd.Function):
    """What `measure` finds chunk by chunk. The backward pass computes the logits again, and adds the
    gradients of the head's weights up in the weights' own precision. The head must not have changed in
    between."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        measure: Callable,
        head: Head,
        rows: int,
        beside: int,
        hidden_NH: torch.Tensor,
        *others: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        value_N, *more = _in_turn(partial(_chunk, measure, head), rows, hidden_NH, *others[:beside])
        ctx.save_for_backward(hidden_NH, *others)
        ctx.measure, ctx.head, ctx.rows, ctx.autocast = measure, head, rows, _autocast(hidden_NH.device.type)
        ctx.beside = beside
        ctx.mark_non_differentiable(*more)
        return value_N, *more

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient_N: torch.Tensor, *_) -> tuple[torch.Tensor | None, ...]:
        hidden_NH, *others = ctx.saved_tensors
        beside_N, weights = others[: ctx.beside], others[ctx.beside :]
        totals: list[torch.Tensor] = []

        def chunk(
            hidden_NH: torch.Tensor, gradient_N: torch.Tensor, *beside_N: torch.Tensor
        ) -> tuple[torch.Tensor]:
            hidden_NH = hidden_NH.detach().requires_grad_()
            logits_NV = ctx.head(hidden_NH)
            _, descent_NV, *_ = ctx.measure(logits_NV.detach(), *beside_N, descent=True)
            descent_NV = descent_NV.mul_(gradient_N.neg()[:, None]).to(logits_NV.dtype)
            found_NH, *found = torch.autograd.grad(logits_NV, (hidden_NH, *weights), descent_NV)
            totals[:] = (
                [total.add_(more) for total, more in zip(totals, found, strict=True)] if totals else found
            )
            return (found_NH,)

        with torch.enable_grad(), ctx.autocast():
            (wanted_NH,) = _in_turn(chunk, ctx.rows, hidden_NH, gradient_N, *beside_N)
        none = [None] * ctx.beside
        return None, None, None, None, wanted_NH if ctx.needs_input_grad[4] else None, *none, *totals


def _autocast(device: str) -> Callable:
    """The autocast that is on now, to be entered again: the backward pass runs without it, on a GPU in
    another thread."""
    return partial(
        torch.autocast,
        device,
        torch.get_autocast_dtype(device),
        torch.is_autocast_enabled(device),
        torch.is_autocast_cache_enabled(),
    )


def _leaves(result: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a result has a gradient for, each once: those that autograd would put into `.grad`."""
    found, seen, ahead = {}, set(), [result.grad_fn]
    while ahead:
        if (node := ahead.pop()) is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found[id(leaf)] = leaf
        ahead += [following for following, _ in node.next_functions]
    return list(found.values())
