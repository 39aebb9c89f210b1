"""A decoder's weights as the kernels read them: matrices packed in panels, adapters added in."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from forethought.engines.torch.forest.decoder import Decoder, decoder_of, rotation
from forethought.engines.torch.forest.lora import delta, is_lora
from forethought.engines.torch.forest.native.library import address, floats, library, way_of, why_not
from forethought.engines.torch.forest.native.train import crew, hooked_below
from forethought.engines.torch.forest.vocabulary import NEVER, empty_of

Pointer = ctypes.c_void_p
LARGE = 1 << 22  # bytes of matrices that several threads pack


class _Layer(ctypes.Structure):
    _fields_ = [
        (name, Pointer)
        for name in (
            "norm1",
            "norm2",
            "q_norm",
            "k_norm",
            "qkv_bias",
            "o_bias",
            "gate_up_bias",
            "down_bias",
            "qkv",
            "o",
            "gate_up",
            "down",
        )
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int)
            for name in ("layers", "hidden", "heads", "kv_heads", "d", "inner", "vocabulary", "way")
        ),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        *((name, Pointer) for name in ("embed", "norm", "cos", "sin", "head_bias", "head")),
        ("layer", ctypes.POINTER(_Layer)),
    ]


def runs(decoder: Decoder | None, model: torch.nn.Module) -> bool:
    """Whether the kernels sample from this model here."""
    return crew.sampling and computes(decoder, model)


def computes(decoder: Decoder | None, model: torch.nn.Module) -> bool:
    """Whether the kernels can: on a CPU, with heads of whole vectors and a plain linear head."""
    lib, head = library() if decoder else None, model.get_output_embeddings()
    return (
        lib is not None
        and next(model.parameters()).device.type == "cpu"
        and decoder.d % max(2, lib.ft_width()) == 0
        # an adapter there would have to be added to the table
        and not is_lora(decoder.inner.embed_tokens)
        and isinstance(decoder.inner.embed_tokens, torch.nn.Embedding)  # a table of words and no more
        and (isinstance(head, torch.nn.Linear) or is_lora(head))
        and not hooked_below(model)
    )


def describe_kernels(model: torch.nn.Module) -> str:
    """What computes `model` here, for people: "c", or "torch" and why."""
    if (device := next(model.parameters()).device.type) != "cpu":
        return f"torch: the model is on {device}"
    if reason := why_not():
        return f"torch: {reason}"
    return (
        "c"
        if computes(decoder_of(model), model)
        else (f"torch: the kernels do not compute this {type(model).__name__}")
    )


class Weights:
    """One policy's weights, as they are now. `bf16`: products round their factors to bfloat16, as autocast
    does. `angles`: cosine and sine at each position (`angles_of`)."""

    @torch.no_grad()
    def __init__(
        self, decoder: Decoder, model: torch.nn.Module, bf16: bool, angles: tuple[torch.Tensor, torch.Tensor]
    ):
        self.lib, self.way = library(), way_of(bf16)
        self._held: list[torch.Tensor] = []  # what the pointers point to
        self._copies: list[Callable[[], None]] = []  # how each copied bias is brought up to date
        self._packs: list[
            tuple[int, Callable[[], None]]
        ] = []  # and each matrix, with how many numbers it has
        self.refreshes, self.bytes = True, 0  # bytes of the matrices, which every token reads
        inner, config = decoder.inner, model.config.get_text_config()
        self.layers, self.kv_heads, self.d = len(inner.layers), decoder.kv_heads, decoder.d
        self.vocabulary, self.words = (
            model.get_output_embeddings().weight.shape[0],
            len(inner.embed_tokens.weight),
        )
        self.positions = len(angles[0])
        layers = (_Layer * self.layers)(*(self._layer(layer) for layer in inner.layers))
        head, head_bias = self._packed(model.get_output_embeddings(), without=empty_of(model))
        self.model = _Model(
            self.layers,
            config.hidden_size,
            decoder.heads,
            decoder.kv_heads,
            decoder.d,
            config.intermediate_size,
            self.vocabulary,
            self.way,
            inner.norm.variance_epsilon,
            decoder.scale,
            self._float(inner.embed_tokens.weight),
            self._float(inner.norm.weight),
            *map(self._float, angles),
            head_bias,
            head,
            layers,
        )
        self._pack()

    def turn(self, angles: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Other angles, of more positions."""
        self.positions = len(angles[0])
        self.model.cos, self.model.sin = map(self._float, angles)

    def work(self, tokens: int, threads: int = 1) -> torch.Tensor:
        """Scratch memory that the kernels need for `tokens` rows at once."""
        return floats(self.lib.ft_work(ctypes.byref(self.model), tokens, threads))

    def _layer(self, layer: torch.nn.Module) -> _Layer:
        attn, mlp = layer.self_attn, layer.mlp
        qkv, qkv_bias = self._packed(attn.q_proj, attn.k_proj, attn.v_proj)
        o, o_bias = self._packed(attn.o_proj)
        gate_up, gate_up_bias = self._packed(mlp.gate_proj, mlp.up_proj)
        down, down_bias = self._packed(mlp.down_proj)
        norms = [
            self._float(getattr(attn, name).weight) if hasattr(attn, name) else None
            for name in ("q_norm", "k_norm")
        ]
        return _Layer(
            self._float(layer.input_layernorm.weight),
            self._float(layer.post_attention_layernorm.weight),
            *norms,
            qkv_bias,
            o_bias,
            gate_up_bias,
            down_bias,
            qkv,
            o,
            gate_up,
            down,
        )

    @torch.no_grad()
    def refresh(self) -> bool:
        """Bring everything up to date with weights that moved in place; False where some are not read where
        they stand (adapters, bf16)."""
        if self.refreshes:
            self._pack()
            for copy in self._copies:
                copy()
        return self.refreshes

    def _pack(self) -> None:
        """On the crew's threads, the largest matrices first."""
        packs = [pack for _, pack in sorted(self._packs, key=lambda pair: -pair[0])]
        if crew.threads == 1 or self.bytes < LARGE:
            for pack in packs:
                pack()
        else:
            with ThreadPoolExecutor(crew.threads) as pool:
                for _ in pool.map(lambda pack: pack(), packs):
                    pass

    def _float(self, x: torch.Tensor) -> Pointer:
        self._held.append(x.detach().float().contiguous())
        self.refreshes &= self._held[-1].data_ptr() == x.data_ptr()
        return address(self._held[-1])

    def _packed(
        self, *linears: torch.nn.Module, without: torch.Tensor | None = None
    ) -> tuple[Pointer, Pointer | None]:
        """(the matrices above each other, their bias), None where there is no bias. `without`: rows that
        never win (`words.NEVER`)."""
        weights = [effective(linear) for linear in linears]
        rows, columns = sum(map(len, weights)), weights[0].shape[1]
        packed = floats(self.lib.ft_packed_size(rows, columns, self.way)).zero_()
        self.bytes += packed.nbytes
        first = 0
        for w, linear in zip(weights, linears, strict=True):
            self.refreshes &= w.data_ptr() == linear.weight.data_ptr()
            given = first, len(w), columns, address(w), address(packed), self.way
            self._packs.append((w.numel(), partial(self.lib.ft_pack_rows, *given)))
            first += len(w)
        self._held.extend([packed, *weights])
        return address(packed), self._bias(linears, without)

    def _copy(self, function: Callable, *args) -> None:
        function(*args)
        self._copies.append(partial(function, *args))

    def _bias(self, linears: Sequence[torch.nn.Module], without: torch.Tensor | None) -> Pointer | None:
        biases = [(linear.base_layer if is_lora(linear) else linear).bias for linear in linears]
        if without is None and all(b is None for b in biases):
            return None
        # a panel's columns are read beyond the last one
        padded = floats(sum(linear.out_features for linear in linears) + 64).zero_()
        first = 0
        for bias, linear in zip(biases, linears, strict=True):
            if bias is not None:
                self._copy(padded[first : first + len(bias)].copy_, bias)
            first += linear.out_features
        if without is not None:
            self._copy(padded.index_fill_, 0, without, NEVER)
        self._held.append(padded)
        return address(padded)


def angles_of(decoder: Decoder, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [positions, d / 2], as the model's own module makes them: its frequencies, scaling
    included."""
    cos, sin = rotation(decoder.inner, decoder.inner.embed_tokens.weight, torch.arange(positions))
    return cos[:, 0, : decoder.d // 2].contiguous(), -sin[:, 0, : decoder.d // 2].contiguous()


def effective(linear: torch.nn.Module) -> torch.Tensor:
    """A linear layer's matrix, float32, with the adapter that is switched on."""
    if not is_lora(linear):
        return linear.weight.float().contiguous()
    weight = linear.base_layer.weight.float()
    for name in () if linear.disable_adapters else linear.active_adapters:
        if name in linear.lora_A:
            weight = weight + delta(linear, name).float()
    return weight.contiguous()
