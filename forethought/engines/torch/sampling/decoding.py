"""The written-out decoder (`decoder.py`) for sampling: no gradients, weights laid out once, and rows of
several adapters in one pass.

Queries, keys and values are one product, gate and up another. An adapter (LoRA, arXiv 2106.09685) is two
narrow products on its own rows, added to what the base gives for all rows (as S-LoRA does, arXiv 2311.03285):
the base is computed once however many policies speak, and PEFT's switch is not touched.

Axes: _N tokens, one of each row that is sampled or all of a packed row; _H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F

from forethought.engines.torch.forest.decoder import Attends, Decoder, rotated, rotation
from forethought.engines.torch.forest.lora import is_lora
from forethought.engines.torch.forest.native.train import hooked
from forethought.engines.torch.forest.vocabulary import masked

JOIN_BELOW = 1 << 26  # numbers of a joined matrix, which is a second copy while rows are sampled

Span = tuple[str, int, int]
"""An adapter ("": the base alone), the first of its tokens, and the one after its last."""


def spans_of(sizes: Iterable[tuple[str, int]]) -> list[Span]:
    """Where the tokens of each adapter stand, from (adapter, tokens) in order; neighbours of one adapter are
    one span."""
    spans, start = [], 0
    for adapter, same in groupby(sizes, key=lambda pair: pair[0]):
        end = start + sum(size for _, size in same)
        spans.append((adapter, start, end))
        start = end
    return spans


def mixes(decoder: Decoder | None) -> bool:
    """Whether rows of several adapters can go through the base of `decoder` together: every adapter lies on
    the layers' linear ones."""
    if decoder is None:
        return False
    inside = {linear for layer in decoder.inner.layers for linear in _linears(layer)}
    return all(m in inside and _plain(m, ()) is not None for m in decoder.model.modules() if is_lora(m))


class Decoding:
    """`adapters`: those that rows may name, each beside the base. None: the model as it is, with what PEFT
    has switched on."""

    @torch.no_grad()
    def __init__(self, decoder: Decoder, adapters: Sequence[str] | None = None):
        self.inner, self.heads, self.scale = decoder.inner, decoder.heads, decoder.scale
        self.layers = [_Layer(layer, decoder.d, adapters) for layer in self.inner.layers]
        self.cos = self.sin = None

    def reach(self, last: int) -> bool:
        """Be ready for positions up to `last`. True where tensors have moved, which a recorded step would
        miss."""
        if self.cos is not None and last < len(self.cos):
            return False
        weight = self.inner.embed_tokens.weight
        self.cos, self.sin = rotation(self.inner, weight, torch.arange(last + 1, device=weight.device))
        return True

    def run(
        self, token_N: torch.Tensor, at_N: torch.Tensor, seen: Attends, spans: Sequence[Span] = ()
    ) -> torch.Tensor:
        """Hidden states [N, H] behind the final norm. Shapes alone decide what is launched: no number is read
        back from the device."""
        x_NH = self.inner.embed_tokens(token_N)
        cos, sin = self.cos[at_N], self.sin[at_N]
        for i, layer in enumerate(self.layers):
            qk, v = layer.qkv(_norm(layer.norm1, x_NH), spans)
            qk = rotated(qk, cos, sin)
            q, k = qk[:, : self.heads] * self.scale, qk[:, self.heads :]
            x_NH = x_NH + layer.o(seen.attend(i, q.to(v.dtype), k.to(v.dtype), v), spans)[0]
            gate, up = layer.gate_up(_norm(layer.norm2, x_NH), spans)
            x_NH = x_NH + layer.down(F.silu(gate).mul_(up), spans)[0]
        return _norm(self.inner.norm, x_NH)


def head_of(
    decoder: Decoder, adapters: Sequence[str] | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """`hidden -> logits`; the decoders that are written out scale nothing behind their head."""
    head = Linears((decoder.model.get_output_embeddings(),), adapters)
    return lambda hidden: masked(decoder.model, head(hidden)[0])


class _Layer:
    def __init__(self, layer: torch.nn.Module, d: int, adapters: Sequence[str] | None):
        attn, (q, k, v, o, gate, up, down) = layer.self_attn, _linears(layer)
        self.norm1, self.norm2, self.d = layer.input_layernorm, layer.post_attention_layernorm, d
        self.norms = (attn.q_norm, attn.k_norm) if hasattr(attn, "q_norm") else None
        self._qkv, self.gate_up = Linears((q, k, v), adapters), Linears((gate, up), adapters)
        self.o, self.down = Linears((o,), adapters), Linears((down,), adapters)

    def qkv(self, y_NH: torch.Tensor, spans: Sequence[Span]) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries above keys [N, heads + kv heads, d], and values."""
        q, k, v = (x.unflatten(-1, (-1, self.d)) for x in self._qkv(y_NH, spans))
        if self.norms:
            q, k = _norm(self.norms[0], q), _norm(self.norms[1], k)
        return torch.cat([q, k], 1), v


class Linears:
    """Linear layers of one input: one product where joining them costs little, else one each; a layer that is
    not plain is called."""

    @torch.no_grad()
    def __init__(self, linears: Sequence[torch.nn.Module], adapters: Sequence[str] | None = None):
        plain = [_plain(linear, adapters) for linear in linears]
        if None in plain:
            self.products = [_Called(linear) for linear in linears]
            return
        # a cast is a copy anyway
        join = sum(p.weight.numel() for p in plain) < JOIN_BELOW or _kind(plain[0]) != plain[0].weight.dtype
        groups = [linears] if join else [[linear] for linear in linears]
        self.products = [_Product(group, adapters or ()) for group in groups]

    def __call__(self, x_NH: torch.Tensor, spans: Sequence[Span] = ()) -> list[torch.Tensor]:
        """What each layer gives, [N, out] each."""
        return [y for product in self.products for y in product(x_NH, spans)]


class _Product:
    """Plain linear layers as one matrix, in the type that autocast would cast them to at each use."""

    def __init__(self, linears: Sequence[torch.nn.Module], adapters: Sequence[str]):
        plain = [_plain(linear, adapters) for linear in linears]
        kind = _kind(plain[0])
        weights = [p.weight.to(kind) for p in plain]
        self.sizes = [len(w) for w in weights]
        # one layer in its own type is not copied
        self.weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        biases = [p.bias if p.bias is not None else p.weight.new_zeros(len(p.weight)) for p in plain]
        self.bias = torch.cat(biases).to(kind) if any(p.bias is not None for p in plain) else None
        self.adapters = {
            name: _low_rank(linears, self.sizes, name, kind)
            for name in adapters
            if any(is_lora(linear) and name in linear.lora_A for linear in linears)
        }

    def __call__(self, x_NH: torch.Tensor, spans: Sequence[Span]) -> Sequence[torch.Tensor]:
        x_NH = x_NH.to(self.weight.dtype)
        y = F.linear(x_NH, self.weight, self.bias)
        for name, start, end in spans:
            if name in self.adapters:
                down, up = self.adapters[name]
                y[start:end].addmm_(x_NH[start:end] @ down, up)
        return y.split(self.sizes, -1)


class _Called:
    """A layer that somebody has replaced or watches, or that has an adapter which PEFT switches."""

    def __init__(self, linear: torch.nn.Module):
        self.linear = linear

    def __call__(self, x_NH: torch.Tensor, spans: Sequence[Span]) -> Sequence[torch.Tensor]:
        return [self.linear(x_NH)]


def _low_rank(
    linears: Sequence[torch.nn.Module], sizes: Sequence[int], name: str, kind: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """[in, ranks] and [ranks, out] of an adapter on all of these layers: blocks on a diagonal, the scaling in
    the second."""
    down, up, start = [], [], 0
    for linear, size in zip(linears, sizes, strict=True):
        if is_lora(linear) and name in linear.lora_A:
            down.append(linear.lora_A[name].weight.T)
            b_RO = linear.lora_B[name].weight.T * linear.scaling[name]
            up.append(F.pad(b_RO, (start, sum(sizes) - start - size)))
        start += size
    return torch.cat(down, 1).to(kind), torch.cat(up).to(kind)


def _plain(linear: torch.nn.Module, adapters: Sequence[str] | None) -> torch.nn.Linear | None:
    """The plain layer itself or, where adapters are named and so not PEFT's to add, the one below them; None
    where it has to be called."""
    if (
        adapters is not None
        and is_lora(linear)
        and not hooked(linear)
        and not linear.lora_variant
        and not any(linear.lora_bias.values())
    ):
        linear = linear.base_layer
    return linear if type(linear) is torch.nn.Linear and not hooked(linear) else None


def _kind(linear: torch.nn.Linear) -> torch.dtype:
    device = linear.weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else linear.weight.dtype


def _linears(layer: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    attn, mlp = layer.self_attn, layer.mlp
    return attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj


def _norm(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """RMSNorm (arXiv 1910.07467)."""
    return module.weight * F.rms_norm(x.float(), x.shape[-1:], None, module.variance_epsilon).to(x.dtype)
