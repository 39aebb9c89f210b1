"""Keys and values while rows are sampled: each context's prefix once, however many rows read it, and the
rows' own tails.

Two layouts with one face. `Together` keeps prefix and tails of a context in one block: a step is two products
a context and head, and each row computes its siblings' tails along to mask them out, which pays while these
are short. `Apart` keeps a tail for each row.

Axes: _B contexts with n rows each, _R = B * n rows in the order of their contexts, _K heads of keys, _M = n *
(heads / K) queries of a context and head, _P tokens of the longest prefix, _T tokens a row may take, _d size
of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from forethought.engines.torch.forest.decoder import Attends
from forethought.engines.torch.forest.given import Captured

SHORT = 256  # tokens of all tails of a context that are computed together whatever the prefix

Prefix = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Layer -> keys, values [B, K, P, d]."""


def cache(n: int, prefix: Prefix, bias_B11P: torch.Tensor | None, room: int) -> Apart | Together:
    """`bias_B11P`: -inf on padding, None where all prefixes are equally long. `room`: most tokens a row can
    take."""
    longest = max((k.shape[2] for k, _ in prefix.values()), default=0)
    return (Together if longest and n * room <= max(SHORT, longest) else Apart)(n, prefix, bias_B11P, room)


class Together:
    """Slot P + t * n + j of a context's block is the token that its row j got at step t."""

    def __init__(self, n: int, prefix: Prefix, bias_B11P: torch.Tensor | None, room: int):
        self.n, self.t, self.room, self.bias_B11P = n, 0, room, bias_B11P
        self.prefix_tokens = next(iter(prefix.values()))[0].shape[2]
        self.blocks = {layer: tuple(_roomy(x, n * room) for x in kv) for layer, kv in prefix.items()}
        self.bias_B1ML: torch.Tensor | None = None  # of the whole block, once the heads are known

    def keep(self, contexts: torch.Tensor) -> None:
        """Drop all contexts but these (indices); finished ones stop costing anything."""
        for layer, (k, v) in self.blocks.items():  # layer by layer: two whole caches at once may not fit
            self.blocks[layer] = (k[contexts], v[contexts])
        if self.bias_B11P is not None:
            self.bias_B11P = self.bias_B11P[contexts]
            self.bias_B1ML = None if self.bias_B1ML is None else self.bias_B1ML[contexts]

    def attend(
        self, layer: int, q_RHd: torch.Tensor, k_RKd: torch.Tensor, v_RKd: torch.Tensor
    ) -> torch.Tensor:
        """[R, H * d] of scaled queries; the new keys and values are kept."""
        k_BKLd, v_BKLd = self.blocks[layer]
        contexts, kv_heads, length, d = k_BKLd.shape
        if self.bias_B1ML is None:
            self.bias_B1ML = self._bias(q_RHd.shape[1] // kv_heads, q_RHd.device)
        start = self.prefix_tokens + self.t * self.n
        end = start + self.n
        k_BKLd[:, :, start:end] = k_RKd.unflatten(0, (contexts, self.n)).transpose(1, 2)
        v_BKLd[:, :, start:end] = v_RKd.unflatten(0, (contexts, self.n)).transpose(1, 2)
        q_BnKrd = q_RHd.view(contexts, self.n, kv_heads, -1, d)
        q = q_BnKrd.transpose(1, 2).reshape(contexts * kv_heads, -1, d)
        scores = torch.bmm(q, k_BKLd.view(-1, length, d)[:, :end].transpose(1, 2)).view(
            contexts, kv_heads, -1, end
        )
        weight = (scores + self.bias_B1ML[..., :end]).softmax(-1).to(v_BKLd.dtype)
        out = torch.bmm(weight.flatten(0, 1), v_BKLd.view(-1, length, v_BKLd.shape[-1])[:, :end])
        return out.view(contexts, kv_heads, self.n, -1, out.shape[-1]).transpose(1, 2).reshape(len(q_RHd), -1)

    def _bias(self, groups: int, device: torch.device) -> torch.Tensor:
        """[B or 1, 1, M, L]: -inf on padding of the prefix and on the tails of a row's siblings."""
        own = torch.full((self.n, self.n), float("-inf"), device=device).fill_diagonal_(0)
        tail = own.repeat_interleave(groups, 0).repeat(1, self.room)
        prefix = (
            torch.zeros(1, 1, 1, self.prefix_tokens, device=device)
            if self.bias_B11P is None
            else self.bias_B11P
        )
        return torch.cat([prefix.expand(-1, -1, len(tail), -1), tail.expand(len(prefix), 1, -1, -1)], -1)


def _roomy(prefix_BKPd: torch.Tensor, more: int) -> torch.Tensor:
    b, kv_heads, p, d = prefix_BKPd.shape
    block = prefix_BKPd.new_empty(b, kv_heads, p + more, d)
    block[:, :, :p] = prefix_BKPd
    return block


class Apart:
    """The tail's slot t is written by step t."""

    def __init__(self, n: int, prefix: Prefix, bias_B11P: torch.Tensor | None, room: int):
        self.n, self.prefix, self.bias_B11P, self.room, self.t = n, prefix, bias_B11P, room, 0
        self.tail: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # layer -> keys, values [R, K, T, d]

    def keep(self, contexts: torch.Tensor) -> None:
        """Drop all contexts but these (indices); finished ones stop costing anything."""
        rows = (contexts[:, None] * self.n + torch.arange(self.n, device=contexts.device)).flatten()
        for store, kept in ((self.prefix, contexts), (self.tail, rows)):
            for layer, (k, v) in store.items():  # layer by layer: two whole caches at once may not fit
                store[layer] = (k[kept], v[kept])
        self.bias_B11P = None if self.bias_B11P is None else self.bias_B11P[contexts]

    def attend(
        self, layer: int, q_RHd: torch.Tensor, k_RKd: torch.Tensor, v_RKd: torch.Tensor
    ) -> torch.Tensor:
        """[R, H * d] of scaled queries; the new keys and values are kept."""
        if layer not in self.tail:
            self.tail[layer] = tuple(
                x.new_empty(len(x), x.shape[1], self.room, x.shape[-1]) for x in (k_RKd, v_RKd)
            )
        tail_k, tail_v = self.tail[layer]
        tail_k[:, :, self.t], tail_v[:, :, self.t] = k_RKd, v_RKd
        return apart(
            q_RHd, self.prefix[layer], tuple(x[:, :, : self.t + 1] for x in (tail_k, tail_v)), self.bias_B11P
        )


def apart(
    q_RHd: torch.Tensor,
    prefix: tuple[torch.Tensor, torch.Tensor],
    tail: tuple[torch.Tensor, torch.Tensor],
    bias_B11P: torch.Tensor | None,
    bias_R11T: torch.Tensor | None = None,
) -> torch.Tensor:
    """[R, H * d] of scaled queries over each context's prefix [B, K, P, d], shared by its rows, and each
    row's own tail [R, K, T, d]. A bias is -inf on what is not there; None where everything is."""
    (prefix_k, prefix_v), (tail_k, tail_v) = prefix, tail
    rows, contexts, kv_heads, p = len(q_RHd), *prefix_k.shape[:3]
    n = rows // contexts
    q_RKrd = q_RHd.view(rows, kv_heads, -1, q_RHd.shape[-1])
    # All rows of a context against its one prefix, as one matrix product per context and kv head.
    at_prefix = q_RKrd.view(contexts, n, *q_RKrd.shape[1:]).transpose(1, 2).flatten(
        2, 3
    ) @ prefix_k.transpose(-1, -2)
    if bias_B11P is not None:
        at_prefix = at_prefix + bias_B11P
    at_prefix = at_prefix.view(contexts, kv_heads, n, -1, p).transpose(1, 2).flatten(0, 1)
    at_tail = q_RKrd @ tail_k.transpose(-1, -2)
    if bias_R11T is not None:
        at_tail = at_tail + bias_R11T
    weight = torch.cat([at_prefix, at_tail], -1).softmax(-1, dtype=torch.float32).to(prefix_v.dtype)
    on_prefix = weight[..., :p].view(contexts, n, kv_heads, -1, p).transpose(1, 2).flatten(2, 3) @ prefix_v
    on_prefix = on_prefix.view(contexts, kv_heads, n, -1, on_prefix.shape[-1]).transpose(1, 2).flatten(0, 1)
    return (on_prefix + weight[..., p:] @ tail_v).reshape(rows, -1)


class Beside:
    """Caches one after another: each attends for its own rows."""

    def __init__(self, caches: Sequence[Attends], sizes: Sequence[int]):
        self.caches, self.sizes = caches, list(sizes)

    def attend(
        self, layer: int, q_RHd: torch.Tensor, k_RKd: torch.Tensor, v_RKd: torch.Tensor
    ) -> torch.Tensor:
        """[R, H * d] of scaled queries; the new keys and values are kept."""
        if len(self.caches) == 1:
            return self.caches[0].attend(layer, q_RHd, k_RKd, v_RKd)
        parts = zip(self.caches, *(x.split(self.sizes) for x in (q_RHd, k_RKd, v_RKd)), strict=True)
        return torch.cat([cache.attend(layer, q, k, v) for cache, q, k, v in parts])


def prefixes(
    captured: Captured, index_BP: torch.Tensor
) -> Iterator[tuple[int, tuple[torch.Tensor, torch.Tensor]]]:
    """(layer, each context's keys and values [B, K, P, d]), from those of a packed row [N, K, d] and the
    places of its tokens there."""
    for layer, kv in captured.items():
        # In the order in which every step reads them: each product would otherwise move them there first.
        yield (
            layer,
            tuple(
                F.embedding(index_BP, x.flatten(1)).unflatten(-1, x.shape[1:]).transpose(1, 2).contiguous()
                for x in kv
            ),
        )
