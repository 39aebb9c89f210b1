"""In which precision and by which code a model's layers are trained and its rows are sampled on a CPU: timed
on the machine, on a layer of the model itself.

What is faster depends on the processor and on the sizes. bf16 takes half the time where wide products meet
hardware for them, and costs time where they are narrow; our kernels win where layers are small, PyTorch's
library where it has instructions that they lack. A rule made on one machine was wrong on the next (one took
bf16 for a small model, 1.5 times slower than fp32 there), so nothing is assumed.

All of it changes the bits of a run. The answer is kept for the machine (`measured.py`), so that two runs of
one recipe on it are the same run; a resumed run keeps what it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from forethought.core.types import Segment
from forethought.engines.torch.forest.decoder import Decoder, decoder_of, rotation
from forethought.engines.torch.forest.native import library as native
from forethought.engines.torch.forest.native.layer import Layer, Shape, weights_of
from forethought.engines.torch.forest.native.packed import Packed
from forethought.engines.torch.forest.native.weights import computes
from forethought.engines.torch.forest.packing import pack
from forethought.engines.torch.machine.measured import answer, least

SAVES = 0.15  # of the time of the first way: what another must save
# of a thread's work that each further thread adds: two threads of the kernels took 0.6 to 0.65 of the time of
# one
MORE = 0.6
SAVES_ROWS = 0.4  # of the time of the kernels' products: what PyTorch's must save to sample
ROWS = (8, 64)  # that are sampled together
MOST_NUMBERS = 1 << 24  # of a matrix that is timed for them
# of one training pass, about; a layer that is larger gets fewer tokens. What is done once a pass, such as
# packing matrices, has to be small beside it, as it is in a run
OPERATIONS = 2e10
TOKENS = (32, 512)


@dataclass(frozen=True, slots=True)
class Way:
    bf16: bool
    kernels: bool  # the layers of a training step are computed in C, else by PyTorch
    products: str = ""  # instructions of the kernels' products (`instructions.NAMES`); empty: the widest

    def __str__(self) -> str:
        name = f"{'c' if self.kernels else 'torch'} {'bf16' if self.bf16 else 'fp32'}"
        return f"{name} {self.products}" if self.products else name


def ways(precision: str, layers: str, model: torch.nn.Module, fast_bf16: bool) -> list[Way]:
    """What can be had for this model under these settings, the first choice first."""
    by_c = in_c(model)
    precisions = [False] + [True] * fast_bf16 if precision == "auto" else [precision == "bf16"]
    found = [
        Way(bf16, kernels, products)
        for kernels in (True, False)
        for bf16 in precisions
        if layers in ("auto", "c" if kernels else "torch") and (not kernels or by_c)
        for products in (native.rivals() if kernels and bf16 else ("",))
    ]
    return found or [Way(bf16, False) for bf16 in precisions]


def in_c(model: torch.nn.Module) -> bool:
    """Whether the kernels compute a layer of this model."""
    decoder = decoder_of(model)
    return (
        decoder is not None
        and native.library() is not None
        and weights_of(decoder.inner.layers[0], decoder.d) is not None
    )


def choose(
    candidates: Sequence[Way], model: torch.nn.Module, kernels: int = 1, others: int = 1
) -> tuple[Way, str]:
    """The way to go, and why. `kernels`, `others`: threads that the kernels and PyTorch will have."""
    if len(candidates) == 1:
        return candidates[0], "the only way here, or given"
    if (decoder := decoder_of(model)) is None:
        return candidates[0], "not timed: the model runs through its own modules"
    names = [str(way) for way in candidates]
    found = answer(["layers", _shapes(decoder)], names, partial(timed, decoder, candidates))
    took = {way: found.took[str(way)] for way in candidates}
    said = ", ".join(f"{way} {1000 * took[way]:.1f} ms" for way in took)
    shared = f", shared by {kernels} threads in c and {others} in torch" if kernels != others else ""
    why = f"timed {found.when}: {said}{shared}; another must save {SAVES:.0%}"
    return best(took, kernels, others), "; ".join(filter(None, [why, found.said]))


def best(took: Mapping[Way, float], kernels: int = 1, others: int = 1) -> Way:
    """Of one thread's seconds by way, the first choice first."""
    seconds = {way: took[way] / _shared(kernels if way.kernels else others) for way in took}
    chosen = next(iter(took))
    for way in took:
        if seconds[way] <= (1 - SAVES) * seconds[chosen]:
            chosen = way
    return chosen


def timed(decoder: Decoder, candidates: Sequence[Way]) -> dict[str, float]:
    """Seconds of one training pass of a layer by each way, by its name."""
    return least({str(way): _work(decoder, way) for way in candidates})


def _work(decoder: Decoder, way: Way) -> Callable[[], None]:
    layer = decoder.inner.layers[0]
    numbers = sum(p.numel() for p in layer.parameters())
    tokens = int(min(max(OPERATIONS / (6 * numbers), TOKENS[0]), TOKENS[1]))
    forward = _pass(decoder, way, tokens)
    asked = [p for p in layer.parameters() if p.is_floating_point()]
    wanted = [p.requires_grad for p in asked]

    def do() -> None:
        for p in asked:
            p.requires_grad_(True)
        try:
            torch.autograd.grad(forward().float().sum(), asked, allow_unused=True)
        finally:
            for p, want in zip(asked, wanted, strict=True):
                p.requires_grad_(want)

    return do


def _pass(decoder: Decoder, way: Way, tokens: int) -> Callable[[], torch.Tensor]:
    """One layer's forward over a prompt of half the tokens and eight continuations. No random numbers are
    drawn: a run's own would be others."""
    layer, some = decoder.inner.layers[0], max(1, tokens // 16)
    packed = pack(
        [Segment(parent=-1, token_ids=(0,) * (tokens - 8 * some))]
        + [Segment(parent=0, token_ids=(0,) * some) for _ in range(8)]
    )
    layout, positions = packed.layout, packed.positions_N
    width = decoder.inner.embed_tokens.weight.shape[1]
    x = torch.linspace(-1, 1, tokens * width).reshape(tokens, width).requires_grad_(True)
    cos, sin = rotation(decoder.inner, x, positions)

    def by_torch() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=way.bf16):
            return decoder.layer(layer, x, cos, sin, layout)

    def by_kernels() -> torch.Tensor:
        if way.products:
            native.take(way.products)
        half = decoder.d // 2
        shape = Shape(
            decoder.heads,
            decoder.kv_heads,
            decoder.d,
            decoder.inner.norm.variance_epsilon,
            decoder.scale,
            way.bf16,
        )
        return Layer.apply(
            x,
            cos[:, 0, half:].contiguous(),
            sin[:, 0, half:].contiguous(),
            layout.spans_S3,
            None,
            shape,
            *weights_of(layer, decoder.d),
        )

    return by_kernels if way.kernels else by_torch


# ---- rows that are sampled


def choose_sampling(
    asked: str, way: Way, model: torch.nn.Module, kernels: int = 1, others: int = 1
) -> tuple[bool, str]:
    """Whether the kernels sample rows, else PyTorch does, and why: by the products of one layer, for few rows
    and for many. What stands around the products is faster in C, so PyTorch's have to save more."""
    if (decoder := decoder_of(model)) is None or not computes(decoder, model):
        return False, "the kernels do not compute this model"
    if asked != "auto":
        return asked == "c", "given"
    found = answer(
        ["rows", _shapes(decoder), native.library().products.name, way.bf16],
        ("c", "torch"),
        partial(timed_rows, decoder, way.bf16),
    )
    c, by_torch = found.took["c"] / _shared(kernels), found.took["torch"] / _shared(others)
    said = f"timed {found.when}: products c {1000 * c:.1f} ms, torch {1000 * by_torch:.1f} ms"
    return by_torch > (1 - SAVES_ROWS) * c, "; ".join(filter(None, [said, found.said]))


def timed_rows(decoder: Decoder, bf16: bool) -> dict[str, float]:
    """Seconds of one layer's products for rows that are sampled."""
    layer = decoder.inner.layers[0]
    # one of each shape, and of a large one some rows
    shapes = {
        m.shape: m.detach()[: max(1, MOST_NUMBERS // m.shape[1])] for m in layer.parameters() if m.dim() == 2
    }
    matrices = [m.float() for m in shapes.values()]
    inputs = {
        (r, w.shape[1]): torch.linspace(-1, 1, r * w.shape[1]).view(r, -1) for w in matrices for r in ROWS
    }
    packed = [Packed(w, bf16) for w in matrices]
    kind = torch.bfloat16 if bf16 else torch.float32
    plain, given = [w.to(kind) for w in matrices], {key: x.to(kind) for key, x in inputs.items()}

    def by_kernels() -> None:
        for w in packed:
            for rows in ROWS:
                w.times(inputs[rows, w.columns])

    @torch.no_grad()
    def by_torch() -> None:
        for w in plain:
            for rows in ROWS:
                torch.nn.functional.linear(given[rows, w.shape[1]], w)

    return least({"c": by_kernels, "torch": by_torch})


def _shared(threads: int) -> float:
    return 1 + MORE * (threads - 1)


def _shapes(decoder: Decoder) -> list[object]:
    named = decoder.inner.layers[0].named_parameters()
    return [decoder.heads, decoder.kv_heads, [(name, tuple(p.shape), str(p.dtype)) for name, p in named]]
