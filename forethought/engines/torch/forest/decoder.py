"""The forward of the common decoder, written out: RMSNorm, rotary positions, grouped attention, gated MLP
(Llama, Qwen2, Qwen3, Mistral).

`transformers` computes the same through a dozen small modules a layer. At the sizes that train on a laptop,
calling them costs more than the arithmetic, above all in sampling, where a step has one token per row. Every
other model runs through its own modules; which of the two computes, nobody sees but the clock (`exact.py`
compares both with the model's plain forward). Sampling lays the weights out once more for its steps
(`decoding.py`).

Axes: _N tokens of a packed row, _R rows that are sampled, _H hidden size, _h heads, _d size of a head.
"""

from __future__ import annotations

import weakref
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

from forethought.engines.torch.forest.activations import Found
from forethought.engines.torch.forest.blocks import attention
from forethought.engines.torch.forest.native import train as native
from forethought.engines.torch.forest.native.layer import Layer, Shape, weights_of
from forethought.engines.torch.forest.packing import Layout

KNOWN = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM")
FIXED_FREQUENCIES = ("default", "linear", "llama3", "yarn")


class Attends(Protocol):
    """The keys and values of rows that are being sampled."""

    def attend(
        self, layer: int, q_RHd: torch.Tensor, k_RKd: torch.Tensor, v_RKd: torch.Tensor
    ) -> torch.Tensor:
        """[R, H * d] of scaled queries; the new keys and values are kept."""


_decoders: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def decoder_of(model: torch.nn.Module) -> Decoder | None:
    """The written-out forward of `model`, None where it has to run through its own modules."""
    if model not in _decoders:
        _decoders[model] = Decoder(model) if _is_known(model) else None
    return _decoders[model]


def _is_known(model: torch.nn.Module) -> bool:
    config = model.config
    return (
        type(model).__name__ in KNOWN
        and type(model).__module__.startswith("transformers.models.")
        and getattr(config, "hidden_act", "") == "silu"
        and not getattr(model, "is_loaded_in_4bit", False)  # packed weights are unpacked by their own modules
        and not getattr(config, "partial_rotary_factor", None)
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    )


class Decoder:
    """Reads the weights where the model has them, adapters too: nothing is copied."""

    def __init__(self, model: torch.nn.Module):
        self._model = weakref.ref(model)
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.d = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.scale = self.d**-0.5
        self._table = (torch.empty(0), torch.empty(0))  # of `_angles`

    @property
    def model(self) -> torch.nn.Module:
        """With PEFT around the linear layers it is still the same module."""
        return self._model()

    @property
    def inner(self) -> torch.nn.Module:
        """The module whose `forward` gives hidden states (without the head)."""
        return self._model().base_model

    def trains_by_kernels(self) -> bool:
        """Whether the kernels compute the layers of a training step here: nobody else reads what sampling
        has left of one."""
        inner = self.inner
        return (
            native.crew.layers
            and native.fits(inner.norm.weight)
            and all(weights_of(layer, self.d) is not None for layer in inner.layers)
        )

    def hidden(
        self,
        ids_N: torch.Tensor,
        positions_N: torch.Tensor,
        layout: Layout,
        recompute: bool = False,
        places_M: torch.Tensor | None = None,
        left: Found | None = None,
    ) -> torch.Tensor:
        """Hidden states [M, H] of a packed forest at these places (None: all) after the final norm. With
        `recompute` a layer keeps its input alone and computes the rest again in the backward pass. `left`:
        what sampling has left of these tokens, which is read instead of computed."""
        inner = self.inner
        x_NH = inner.embed_tokens(ids_N)
        if native.crew.layers and native.fits(x_NH):
            again = recompute or not torch.is_grad_enabled()  # without a backward pass it costs nothing
            if (out := self._by_kernels(inner, x_NH, positions_N, layout, places_M, again, left)) is not None:
                return out
        cos, sin = rotation(inner, x_NH, positions_N)
        for layer in inner.layers:
            if recompute and torch.is_grad_enabled():
                x_NH = checkpoint(self.layer, layer, x_NH, cos, sin, layout, use_reentrant=False)
            else:
                x_NH = self.layer(layer, x_NH, cos, sin, layout)
        return norm(inner.norm, x_NH if places_M is None else x_NH[places_M])

    def _by_kernels(
        self,
        inner: torch.nn.Module,
        x_NH: torch.Tensor,
        positions_N: torch.Tensor,
        layout: Layout,
        places_M: torch.Tensor | None,
        again: bool,
        left: Found | None,
    ) -> torch.Tensor | None:
        """All layers as one function, the last one for the places alone; None where the kernels do not
        compute such layers."""
        bf16 = torch.is_autocast_enabled("cpu")
        weights = [weights_of(layer, self.d) for layer in inner.layers]
        if None in weights or (bf16 and not native.rounds_as_autocast()):
            return None
        rows = inverse = None
        if places_M is not None:
            rows, inverse = places_M.unique(return_inverse=True)  # siblings are predicted from one token
            rows = rows.numpy().astype(np.int32)
        shape = Shape(
            self.heads,
            self.kv_heads,
            self.d,
            inner.norm.variance_epsilon,
            self.scale,
            bf16,
            native.crew.threads,
            again,
            left if torch.is_grad_enabled() else None,
        )
        x_NH = Layer.apply(
            x_NH,
            *self._angles(inner, positions_N),
            layout.spans_S3,
            rows,
            shape,
            *(w for own in weights for w in own),
        )
        x_NH = norm(inner.norm, x_NH)
        return x_NH if inverse is None else x_NH[inverse]

    def _angles(self, inner: torch.nn.Module, positions_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [N, d / 2], from a table where the model's frequencies do not depend on what is in the
        row."""
        if getattr(inner.rotary_emb, "rope_type", "") not in FIXED_FREQUENCIES:
            return _halves(*rotation(inner, inner.embed_tokens.weight, positions_N))
        last = int(positions_N.max())
        if len(self._table[0]) <= last:
            with torch.inference_mode(False), torch.no_grad():
                every = torch.arange(1 << (last + 1).bit_length(), device=positions_N.device)
                self._table = _halves(*rotation(inner, inner.embed_tokens.weight, every))
        return F.embedding(positions_N, self._table[0]), F.embedding(positions_N, self._table[1])

    def layer(
        self, layer: torch.nn.Module, x_NH: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout
    ) -> torch.Tensor:
        """One layer on a packed row: x_NH -> x_NH. Autocast decides the precision of the products."""
        attn, mlp = layer.self_attn, layer.mlp
        y_NH = norm(layer.input_layernorm, x_NH)
        q, k, v = (p(y_NH).unflatten(-1, (-1, self.d)) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        if hasattr(attn, "q_norm"):
            q, k = norm(attn.q_norm, q), norm(attn.k_norm, k)
        # Autocast leaves queries and keys in fp32 behind the rotation, and would round them anew for each
        # product.
        q, k = rotate(q, cos, sin, self.scale).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        x_NH = x_NH + attn.o_proj(attention(layout, q, k, v).flatten(1))
        y_NH = norm(layer.post_attention_layernorm, x_NH)
        return x_NH + mlp.down_proj(gated(mlp.gate_proj(y_NH), mlp.up_proj(y_NH)))


def rotation(
    inner: torch.nn.Module, like: torch.Tensor, positions_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and signed sin of each position's angles, [N, 1, d] float32: the model's own frequencies, scaling
    included."""
    cos, sin = (
        x[0, :, None].clone()
        for x in inner.rotary_emb(like.new_empty(0, dtype=torch.float32), positions_N[None])
    )
    sin[..., : sin.shape[-1] // 2].neg_()
    return cos, sin


def _halves(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One angle a pair: [N, 1, d] -> [N, d / 2]."""
    half = cos.shape[-1] // 2
    return cos[:, 0, half:].contiguous(), sin[:, 0, half:].contiguous()


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_NHd: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor):
        ctx.save_for_backward(cos, sin)
        ctx.kind = x_NHd.dtype
        return rotated(x_NHd, cos, sin)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor):
        cos, sin = ctx.saved_tensors
        return rotated(grad, cos, -sin).to(ctx.kind), None, None


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) of the halves of each head; `sin` carries the sign."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def rotate(x_NHd: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Rotary position embedding (arXiv 2104.09864) on halves, as transformers lays heads out, times `scale`;
    float32."""
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
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, eps: float):
        wide = x.float()
        r = (wide.square().mean(-1, keepdim=True) + eps).rsqrt_()
        unit = wide * r
        ctx.save_for_backward(unit, r, weight)
        ctx.kind = x.dtype
        return unit.to(x.dtype) * weight

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor):
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
