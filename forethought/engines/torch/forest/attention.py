"""One attention function, registered with `transformers` under one name: every model that goes through its
attention interface trains and samples on shared prefixes without a line of its own.

Three modes, chosen by context manager around the model's forward:
- none: plain scaled-dot-product attention (the model behaves as everywhere else);
- `Forest`: the single row of tokens is a packed forest (`packing.py`), each token computed once;
- a cache (`caches.py`): one new token per row against a prefix that all rows of a context share, and the
  row's own tail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from forethought.core.errors import ForethoughtError
from forethought.engines.torch.forest.blocks import attention
from forethought.engines.torch.forest.decoder import Attends
from forethought.engines.torch.forest.given import Given
from forethought.engines.torch.forest.packing import Layout

NAME = "forethought"
# what changes the numbers, and is not done here
CHANGES = ("softcap", "s_aux", "sinks", "position_bias", "indices", "block_indices")


class Unsupported(ForethoughtError):
    """The model asks its attention for something that packed forests do not compute."""


@dataclass(slots=True)
class Forest:
    layout: Layout
    # layer -> keys, values [N, kv_heads, d]
    capture: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None
    windows: set[int] | None = None  # sliding windows and chunks that the model asked for (`exact.py` looks)
    given: Given | None = None  # what of the row is known, and not among the queries


_mode: ContextVar[Forest | Attends | None] = ContextVar("mode", default=None)


@contextmanager
def using(mode: Forest | Attends | None) -> Iterator[None]:
    """Inside the block, every model that goes through `attend` uses `mode`: a packed forest, a cache, or
    plain rows."""
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def again() -> AbstractContextManager[None]:
    """The mode of this moment, to be entered later, perhaps in another thread."""
    return using(_mode.get())


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs,
):
    """query [rows, heads, tokens, d], key and value [rows, kv_heads, tokens, d] -> ([rows, tokens, heads, d],
    None)."""
    mode = _mode.get()
    if mode is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    _refuse(attention_mask, query.shape[2] > 1 and kwargs.get("is_causal") is False, kwargs)
    # Autocast leaves queries and keys in fp32 behind the rotary embedding, and would round them anew for each
    # product.
    query = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)).to(value.dtype)
    key = key.to(value.dtype)
    if not isinstance(mode, Forest):
        out_RD = mode.attend(module.layer_idx, *(x[:, :, 0] for x in (query, key, value)))
        return out_RD.view(len(query), 1, query.shape[1], -1), None
    if mode.windows is not None and kwargs.get("sliding_window"):
        mode.windows.add(kwargs["sliding_window"])
    if mode.capture is not None:
        mode.capture[module.layer_idx] = (key[0].transpose(0, 1), value[0].transpose(0, 1))
    if mode.given:
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return mode.given.attention(mode.layout, module.layer_idx, q, k, v)[None], None
    return _forest(mode.layout, query, key, value), None


def _refuse(attention_mask: torch.Tensor | None, both_ways: bool, kwargs: dict) -> None:
    asked = [name for name in CHANGES if kwargs.get(name) is not None]
    if asked or both_ways or attention_mask is not None:
        what = ", ".join(asked) or ("attention to later tokens" if both_ways else "a mask of its own")
        raise Unsupported(f"asks its attention for {what}")


def _forest(layout: Layout, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return attention(layout, *(x[0].transpose(0, 1) for x in (query, key, value)))[None]


def _mask(*args, **kwargs):
    mode = _mode.get()
    if mode is None:
        return sdpa_mask(*args, **kwargs)
    if isinstance(mode, Forest) and mode.windows is not None and kwargs.get("local_size"):
        mode.windows.add(kwargs["local_size"])
    return None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)
