"""One attention function, registered with `transformers` under one name: every model that goes through its attention interface
trains and samples on shared prefixes without a line of its own.

Three modes, chosen by context manager around the model's forward:
- none: plain scaled-dot-product attention (the model behaves as everywhere else);
- `forest(layout)`: the single row of tokens is a packed forest (`packing.py`), each token computed once;
- `decode(state)`: one new token per row against a prefix that all rows of a context share, and the row's own tail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from forethought.engines.torch.packing import Layout
from forethought.errors import ForethoughtError

NAME = "forethought"
CHANGES = ("softcap", "s_aux", "sinks", "position_bias", "indices", "block_indices")  # what changes the numbers, and is not done here


class Unsupported(ForethoughtError):
    """The model asks its attention for something that packed forests do not compute."""


@dataclass(slots=True)
class Forest:
    layout: Layout
    capture: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None  # layer -> keys, values [N, kv_heads, d]
    windows: set[int] | None = None  # sliding windows and chunks that the model asked for (`exact.py` looks)


@dataclass(slots=True)
class Decode:
    """`B` contexts with `n` rows each. The tail's slot `t` is written by the forward of step t.

    prefix: layer -> keys, values [B, kv_heads, P, d]; bias_B11P: -inf on padding, None where all prefixes are equally long;
    tail: layer -> keys, values [B * n, kv_heads, T, d].
    """

    n: int
    prefix: dict[int, tuple[torch.Tensor, torch.Tensor]]
    bias_B11P: torch.Tensor | None
    room: int
    t: int = 0
    tail: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def keep(self, contexts: torch.Tensor) -> None:
        """Drop all contexts but these (indices); finished ones stop costing anything."""
        rows = (contexts[:, None] * self.n + torch.arange(self.n, device=contexts.device)).flatten()
        for cache, kept in ((self.prefix, contexts), (self.tail, rows)):
            for layer, (k, v) in cache.items():  # layer by layer: two whole caches at once may not fit
                cache[layer] = (k[kept], v[kept])
        self.bias_B11P = None if self.bias_B11P is None else self.bias_B11P[contexts]


_mode: ContextVar[Forest | Decode | None] = ContextVar("mode", default=None)


@contextmanager
def using(mode: Forest | Decode | None) -> Iterator[None]:
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def again() -> AbstractContextManager[None]:
    """The mode of this moment, to be entered later, perhaps in another thread."""
    return using(_mode.get())


def attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """query [rows, heads, tokens, d], key and value [rows, kv_heads, tokens, d] -> ([rows, tokens, heads, d], None)."""
    mode = _mode.get()
    if mode is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    _refuse(attention_mask, query.shape[2] > 1 and kwargs.get("is_causal") is False, kwargs)
    # Autocast leaves queries and keys in fp32 behind the rotary embedding, and would round them anew for each product.
    query = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)).to(value.dtype)
    key = key.to(value.dtype)
    if isinstance(mode, Decode):
        return _decode(mode, module.layer_idx, query, key, value), None
    if mode.windows is not None and kwargs.get("sliding_window"):
        mode.windows.add(kwargs["sliding_window"])
    if mode.capture is not None:
        mode.capture[module.layer_idx] = (key[0].transpose(0, 1), value[0].transpose(0, 1))
    return _forest(mode.layout, query, key, value), None


def _refuse(attention_mask: torch.Tensor | None, both_ways: bool, kwargs: dict) -> None:
    asked = [name for name in CHANGES if kwargs.get(name) is not None]
    if asked or both_ways or attention_mask is not None:
        what = ", ".join(asked) or ("attention to later tokens" if both_ways else "a mask of its own")
        raise Unsupported(f"asks its attention for {what}")


def _forest(layout: Layout, query, key, value) -> torch.Tensor:
    heads, kv_heads = query.shape[1], key.shape[1]
    repeat = heads // kv_heads
    rows = [x[0].transpose(0, 1).flatten(1) for x in (query, key, value)]  # [N, heads * d] each
    fused = value.is_cuda or value.dtype == torch.float32  # on a CPU its backward in bf16 is slower than the products one by one
    outputs = []
    for g in layout.groups:
        # embedding() gathers rows and has the fastest backward of all ways to gather on a CPU (index: 3x slower)
        q, k, v = (
            F.embedding(i, x).unflatten(-1, (h, -1)).transpose(1, 2)
            for x, i, h in zip(rows, (g.query_BQ, g.key_BK, g.key_BK), (heads, kv_heads, kv_heads), strict=True)
        )
        if repeat > 1:
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        if fused:
            out_BHQd = F.scaled_dot_product_attention(q, k, v, attn_mask=g.bias_B1QK.to(q.dtype), scale=1.0)
        else:
            out_BHQd = ((q @ k.transpose(-1, -2)).float() + g.bias_B1QK).softmax(-1).to(v.dtype) @ v
        outputs.append(out_BHQd.transpose(1, 2).flatten(0, 1).flatten(1))
    return F.embedding(layout.place_N, torch.cat(outputs)).unflatten(-1, (heads, -1))[None].to(value.dtype)


def _decode(state: Decode, layer: int, query, key, value) -> torch.Tensor:
    rows, heads, _, d = query.shape
    kv_heads = key.shape[1]
    if layer not in state.tail:
        state.tail[layer] = tuple(x.new_empty(rows, kv_heads, state.room, x.shape[-1]) for x in (key, value))
    tail_k, tail_v = state.tail[layer]
    tail_k[:, :, state.t] = key[:, :, 0]
    tail_v[:, :, state.t] = value[:, :, 0]
    prefix_k, prefix_v = state.prefix[layer]
    contexts = rows // state.n
    q_RkgD = query.view(rows, kv_heads, heads // kv_heads, d)
    # All rows of a context against its one prefix, as one matrix product per context and kv head.
    q_BkmD = q_RkgD.view(contexts, state.n, kv_heads, -1, d).transpose(1, 2).flatten(2, 3)
    at_prefix = q_BkmD @ prefix_k.transpose(-1, -2)
    if state.bias_B11P is not None:
        at_prefix = at_prefix + state.bias_B11P
    at_prefix = at_prefix.view(contexts, kv_heads, state.n, -1, at_prefix.shape[-1]).transpose(1, 2).flatten(0, 1)
    at_tail = q_RkgD @ tail_k[:, :, : state.t + 1].transpose(-1, -2)
    weight = torch.cat([at_prefix, at_tail], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
    p = prefix_k.shape[2]
    on_prefix = weight[..., :p].view(contexts, state.n, kv_heads, -1, p).transpose(1, 2).flatten(2, 3) @ prefix_v
    on_prefix = on_prefix.view(contexts, kv_heads, state.n, -1, value.shape[-1]).transpose(1, 2).flatten(0, 1)
    out = on_prefix + weight[..., p:] @ tail_v[:, :, : state.t + 1]
    return out.reshape(rows, 1, heads, value.shape[-1])


def _mask(*args, **kwargs):
    mode = _mode.get()
    if mode is None:
        return sdpa_mask(*args, **kwargs)
    if isinstance(mode, Forest) and mode.windows is not None and kwargs.get("local_size"):
        mode.windows.add(kwargs["local_size"])
    return None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)
