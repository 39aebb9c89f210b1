"""In which precision and by which code the layers of a model are computed on a CPU: timed on the machine, on
a layer of the model itself.

What is faster depends on the processor and on the sizes. bf16 takes half the time where wide products meet
hardware for them, and costs time where they are narrow; our kernels win where layers are small, PyTorch's
library where it has instructions that they lack. A rule made on one machine was wrong on the next (one took
bf16 for a small model, 1.5 times slower than fp32 there), so nothing is assumed.

Both change the bits of a run. The answer is kept in the user's cache, under the processor, the versions and
the layer's shape, so that two runs of one recipe on one machine are the same run; a resumed run keeps what it
began with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from forethought.core.types import Segment
from forethought.engines.torch.forest.decoder import Decoder, decoder_of, rotation
from forethought.engines.torch.forest.native import cache
from forethought.engines.torch.forest.native import library as native
from forethought.engines.torch.forest.native.layer import Layer, Shape, weights_of
from forethought.engines.torch.forest.packing import pack

SAVES = 0.15  # of the time of the first way: what another must save
# of a thread's work that each further thread adds: two threads of the kernels took 0.6 to 0.65 of the time of
# one
MORE = 0.6
ROUNDS, SECONDS = 3, 0.25  # of timing: at least so many rounds, until so much time has passed
OPERATIONS = 2e9  # of one training pass, about; a layer that is larger gets fewer tokens
TOKENS = (32, 512)


@dataclass(frozen=True, slots=True)
class Way:
    bf16: bool
    kernels: bool  # the layers of a training step are computed in C, else by PyTorch

    def __str__(self) -> str:
        return f"{'c' if self.kernels else 'torch'} {'bf16' if self.bf16 else 'fp32'}"


def ways(precision: str, layers: str, model: torch.nn.Module, fast_bf16: bool) -> list[Way]:
    """What can be had for this model under these settings, the first choice first."""
    by_c = in_c(model)
    precisions = [False] + [True] * fast_bf16 if precision == "auto" else [precision == "bf16"]
    found = [
        Way(bf16, kernels)
        for kernels in (True, False)
        for bf16 in precisions
        if layers in ("auto", "c" if kernels else "torch") and (not kernels or by_c)
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
    took, when = _kept(_key(decoder, candidates), partial(timed, decoder, candidates))
    said = ", ".join(f"{way} {1000 * took[way]:.1f} ms" for way in took)
    shared = f", shared by {kernels} threads in c and {others} in torch" if kernels != others else ""
    return best(took, kernels, others), f"timed {when}: {said}{shared}; another must save {SAVES:.0%}"


def best(took: Mapping[Way, float], kernels: int = 1, others: int = 1) -> Way:
    """Of one thread's seconds by way, the first choice first."""
    seconds = {way: took[way] / (1 + MORE * ((kernels if way.kernels else others) - 1)) for way in took}
    chosen = next(iter(took))
    for way in took:
        if seconds[way] <= (1 - SAVES) * seconds[chosen]:
            chosen = way
    return chosen


def timed(
    decoder: Decoder, candidates: Sequence[Way], clock: Callable[[], float] = time.thread_time
) -> dict[Way, float]:
    """Seconds of one training pass of a layer, the least of some rounds that alternate between the ways. On
    one thread, in its own processor time: what else the machine does is not in it."""
    before, took = torch.get_num_threads(), dict.fromkeys(candidates, float("inf"))
    torch.set_num_threads(1)
    try:
        work = {way: _work(decoder, way) for way in candidates}
        for do in work.values():  # buffers are made, code is compiled
            do()
        began, rounds = time.perf_counter(), 0
        while rounds < ROUNDS or time.perf_counter() - began < SECONDS:
            for way, do in work.items():
                start = clock()
                do()
                took[way] = min(took[way], clock() - start)
            rounds += 1
    finally:
        torch.set_num_threads(before)
    return took


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


# ---- kept for the machine


def _key(decoder: Decoder, candidates: Sequence[Way]) -> str:
    shapes = [(name, tuple(p.shape), str(p.dtype)) for name, p in decoder.inner.layers[0].named_parameters()]
    said = [
        native.processor(),
        torch.__version__,
        native.build(),
        decoder.heads,
        decoder.kv_heads,
        shapes,
        [str(w) for w in candidates],
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]


def _kept(key: str, measure: Callable[[], dict[Way, float]]) -> tuple[dict[Way, float], str]:
    """What was measured under this key, now or earlier, and when. A file that cannot be read or written costs
    the time of measuring anew."""
    if key not in _known:
        _known[key] = _read(key) or (measure(), time.strftime("%Y-%m-%d"))
        _write(key, *_known[key])
    return _known[key]


_known: dict[str, tuple[dict[Way, float], str]] = {}


def _read(key: str) -> tuple[dict[Way, float], str] | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(_path(key).read_text(encoding="utf-8"))
        took = {Way(bool(bf16), bool(kernels)): float(seconds) for bf16, kernels, seconds in found["took"]}
        if took and all(0 < s < 1e9 for s in took.values()):
            return took, str(found["when"])[:10]
    return None


def _write(key: str, took: Mapping[Way, float], when: str) -> None:
    with contextlib.suppress(OSError):
        path = _path(key)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(
            json.dumps({"when": when, "took": [(w.bf16, w.kernels, s) for w, s in took.items()]}),
            encoding="utf-8",
        )
        os.replace(beside, path)


def _path(key: str) -> Path:
    return cache.folder_of(f"ways-{key}.json") / f"ways-{key}.json"
