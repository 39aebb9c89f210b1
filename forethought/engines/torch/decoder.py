"""The forward of the common decoder, written out: RMSNorm, rotary positions, grouped attention, gated MLP (Llama, Qwen2, Qwen3, Mistral).

`transformers` computes the same through a dozen small modules a layer. At the sizes that train on a laptop, calling them costs more
than the arithmetic, above all in sampling, where a step has one token a row. Every other model runs through its own modules; which
of the two computes, nobody sees but the clock (`exact.py` compares both with the model's plain forward).

Axes: _N tokens of a packed row, _R rows that are sampled, _H hidden size, _h heads, _d size of a head.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from forethought.engines.torch.forest import attention
from forethought.engines.torch.native import train as native
from forethought.engines.torch.native.layer import Layer, Shape, weights_of
from forethought.engines.torch.packing import Layout

KNOWN = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM")
JOIN_BELOW = 1 << 26  # numbers of a joined matrix, which is a second copy while rows are sampled
Captured = dict[int, tuple[torch.Tensor, torch.Tensor]]


class Attends(Protocol):
    """The keys and values of rows that are being sampled."""

    def attend(self, layer: int, q_RHd: torch.Tensor, k_RKd: torch.Tensor, v_RKd: torch.Tensor) -> torch.Tensor:
        """[R, H * d] of scaled queries; the new keys and values are kept."""


_decoders: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def decoder_of(model: torch.nn.Module) -> Decoder | None:
    """The written-out forward of `model`, None where it has to run through its own modules."""
    if model not in _decoders:
        _decoders[model] = Decoder(model) if _is_known(model) else None
    return _decoders[model]


def _is_known(model: torch.nn.Module) -> bool:
    config = model.config
    return (type(model).__name__ in KNOWN and type(model).__module__.startswith("transformers.models.")
            and getattr(config, "hidden_act", "") == "silu" and not getattr(config, "partial_rotary_factor", None)
            and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"})


class Decoder:
    """Reads the weights where the model has them, adapters too: nothing is copied."""

    def __init__(self, model: torch.nn.Module):
        self._model = weakref.ref(model)
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.d = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.scale = self.d**-0.5

    @property
    def inner(self) -> torch.nn.Module:
        """With PEFT around the linear layers it is still the same module."""
        return self._model().base_model

    def hidden(self, ids_N: torch.Tensor, positions_N: torch.Tensor, layout: Layout, capture: Captured | None = None,
               recompute: bool = False, places_M: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states [M, H] of a packed forest at these places (None: all) after the final norm. `capture` receives each layer's keys and values [N, kv heads,
        d]; with `recompute` a layer keeps its input alone and computes the rest again in the backward pass."""
        inner = self.inner
        x_NH = inner.embed_tokens(ids_N)
        cos, sin = rotation(inner, x_NH, positions_N)
        if capture is None and not recompute and native.fits(x_NH) and not torch.is_autocast_enabled("cpu") and torch.get_num_threads() == 1:
            return self._by_kernels(inner, x_NH, cos, sin, layout, places_M)
        for i, layer in enumerate(inner.layers):
            if recompute and torch.is_grad_enabled():
                x_NH = checkpoint(self._layer, layer, x_NH, cos, sin, layout, use_reentrant=False)
            else:
                x_NH = self._layer(layer, x_NH, cos, sin, layout, *([] if capture is None else [capture, i]))
        return norm(inner.norm, x_NH if places_M is None else x_NH[places_M])

    def _by_kernels(self, inner: torch.nn.Module, x_NH: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout,
                    places_M: torch.Tensor | None) -> torch.Tensor:
        """Each layer as one call, where the kernels compute such a layer; the last one for the places alone."""
        half = self.d // 2
        cos_half, sin_half = cos[:, 0, half:].contiguous(), sin[:, 0, half:].contiguous()
        for i, layer in enumerate(inner.layers):
            shape = Shape(self.heads, self.kv_heads, self.d, layer.input_layernorm.variance_epsilon, self.scale)
            rows = None
            if weights := weights_of(layer, self.d):
                if places_M is not None and i == len(inner.layers) - 1:
                    rows, places_M = places_M.unique(return_inverse=True)  # siblings are predicted from one token
                    rows = rows.numpy().astype(np.int32)
                x_NH = Layer.apply(x_NH, cos_half, sin_half, layout.spans_S3, rows, shape, *weights)
            else:
                x_NH = self._layer(layer, x_NH, cos, sin, layout)
        x_NH = norm(inner.norm, x_NH)
        return x_NH if places_M is None else x_NH[places_M]

    def steps(self, kept: Attends) -> Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]:
        """`run(token_R, at_R, last)` -> hidden states [R, H] of the next token of each row, at positions up to `last`. The weights of
        a small model are laid out for it once: queries, keys and values as one matrix, gate and up as another."""
        return Steps(self, kept).run

    def _layer(self, layer, x_NH, cos, sin, layout: Layout, capture: Captured | None = None, index: int = 0) -> torch.Tensor:
        attn, mlp = layer.self_attn, layer.mlp
        y_NH = norm(layer.input_layernorm, x_NH)
        q, k, v = (p(y_NH).unflatten(-1, (-1, self.d)) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        if hasattr(attn, "q_norm"):
            q, k = norm(attn.q_norm, q), norm(attn.k_norm, k)
        # Autocast leaves queries and keys in fp32 behind the rotation, and would round them anew for each product.
        q, k = rotate(q, cos, sin, self.scale).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        if capture is not None:
            capture[index] = (k, v)
        x_NH = x_NH + attn.o_proj(attention(layout, q, k, v).flatten(1))
        y_NH = norm(layer.post_attention_layernorm, x_NH)
        return x_NH + mlp.down_proj(gated(mlp.gate_proj(y_NH), mlp.up_proj(y_NH)))


class Steps:
    """One token a row at a time, without gradients."""

    def __init__(self, decoder: Decoder, kept: Attends):
        self.kept, self.d, self.heads, self.scale = kept, decoder.d, decoder.heads, decoder.scale
        self.inner = decoder.inner
        self.layers = [_Laid(layer, decoder.d) for layer in self.inner.layers]
        self.cos = self.sin = None

    def run(self, token_R: torch.Tensor, at_R: torch.Tensor, last: int) -> torch.Tensor:
        x_RH = self.inner.embed_tokens(token_R)
        if self.cos is None or last >= len(self.cos):
            self.cos, self.sin = rotation(self.inner, x_RH, torch.arange(last + 1, device=x_RH.device))
        cos, sin = self.cos[at_R], self.sin[at_R]
        for i, layer in enumerate(self.layers):
            qk, v = layer.qkv(_norm(layer.norm1, x_RH))
            qk = _rotated(qk, cos, sin)
            q, k = qk[:, : self.heads] * self.scale, qk[:, self.heads :]
            x_RH = x_RH + layer.o(self.kept.attend(i, q.to(v.dtype), k.to(v.dtype), v))
            gate, up = layer.gate_up(_norm(layer.norm2, x_RH))
            x_RH = x_RH + layer.down(F.silu(gate).mul_(up))
        return _norm(self.inner.norm, x_RH)


class _Laid:
    """A layer's weights for single tokens. Plain linear layers are joined; under autocast once in the type it would cast them to."""

    def __init__(self, layer: torch.nn.Module, d: int):
        attn, mlp = layer.self_attn, layer.mlp
        self.norm1, self.norm2, self.d = layer.input_layernorm, layer.post_attention_layernorm, d
        self.norms = (attn.q_norm, attn.k_norm) if hasattr(attn, "q_norm") else None
        self._qkv, self._gate_up = _joined(attn.q_proj, attn.k_proj, attn.v_proj), _joined(mlp.gate_proj, mlp.up_proj)
        self.o, self.down = _joined(attn.o_proj), _joined(mlp.down_proj)

    def qkv(self, y_RH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries above keys [R, heads + kv heads, d], and values."""
        q, k, v = (x.unflatten(-1, (-1, self.d)) for x in self._qkv.apart(y_RH))
        if self.norms:
            q, k = _norm(self.norms[0], q), _norm(self.norms[1], k)
        return torch.cat([q, k], 1), v

    def gate_up(self, y_RH: torch.Tensor) -> Sequence[torch.Tensor]:
        return self._gate_up.apart(y_RH)


def _joined(*linears: torch.nn.Module) -> _Joined | _Each:
    plain = all(type(linear) is torch.nn.Linear for linear in linears)
    return _Joined(linears) if plain and sum(linear.weight.numel() for linear in linears) < JOIN_BELOW else _Each(linears)


class _Joined:
    """Linear layers of one input as one product."""

    def __init__(self, linears: Sequence[torch.nn.Linear]):
        device = linears[0].weight.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else linears[0].weight.dtype
        self.sizes = [linear.out_features for linear in linears]
        self.weight = torch.cat([linear.weight for linear in linears]).to(kind)
        biases = [linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features) for linear in linears]
        self.bias = torch.cat(biases).to(kind) if any(linear.bias is not None for linear in linears) else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def apart(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        return self(x).split(self.sizes, -1)


class _Each:
    """Linear layers as they are: large ones, and those with an adapter beside the weight."""

    def __init__(self, linears: Sequence[torch.nn.Module]):
        self.linears = linears

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.linears[0](x)

    def apart(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        return [linear(x) for linear in self.linears]


def rotation(inner: torch.nn.Module, like: torch.Tensor, positions_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and signed sin of each position's angles, [N, 1, d] float32: the model's own frequencies, scaling included."""
    cos, sin = (x[0, :, None].clone() for x in inner.rotary_emb(like.new_empty(0, dtype=torch.float32), positions_N[None]))
    sin[..., : sin.shape[-1] // 2].neg_()
    return cos, sin


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_NHd, cos, sin):
        ctx.save_for_backward(cos, sin)
        ctx.kind = x_NHd.dtype
        return _rotated(x_NHd, cos, sin)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin).to(ctx.kind), None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) of the halves of each head; `sin` carries the sign."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def rotate(x_NHd: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Rotary position embedding (arXiv 2104.09864) on halves, as transformers lays heads out, times `scale`; float32."""
    if native.fits(x_NHd):
        half = cos.shape[-1] // 2
        return native.Rotate.apply(x_NHd, cos[:, 0, half:].contiguous(), sin[:, 0, half:].contiguous(), scale)
    turned = _Rotate.apply(x_NHd, cos, sin)
    return turned if scale == 1 else turned * scale


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up (SwiGLU, arXiv 2002.05202)."""
    return native.Gate.apply(gate, up) if native.fits(gate) and native.fits(up) else F.silu(gate) * up


class _Norm(torch.autograd.Function):
    """y = w x / rms(x). Only x / rms(x) is kept."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        wide = x.float()
        r = (wide.square().mean(-1, keepdim=True) + eps).rsqrt_()
        unit = wide * r
        ctx.save_for_backward(unit, r, weight)
        ctx.kind = x.dtype
        return unit.to(x.dtype) * weight

    @staticmethod
    def backward(ctx, grad):
        unit, r, weight = ctx.saved_tensors
        d = grad.float() * weight
        dot = torch.linalg.vecdot(d, unit)[..., None] / unit.shape[-1]
        dx = torch.addcmul(d, unit, dot, value=-1).mul_(r).to(ctx.kind) if ctx.needs_input_grad[0] else None
        dw = (grad.float() * unit).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        return dx, dw, None


def norm(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """RMSNorm (arXiv 1910.07467)."""
    if native.fits(x) and native.fits(module.weight):
        return native.Norm.apply(x, module.weight, module.variance_epsilon)
    return _Norm.apply(x, module.weight, module.variance_epsilon)


def _norm(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The same where no gradient is wanted."""
    return module.weight * F.rms_norm(x.float(), x.shape[-1:], None, module.variance_epsilon).to(x.dtype)
