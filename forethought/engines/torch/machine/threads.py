"""On how many threads a model computes: measured at the start, on the machine as it is at that moment, and a
fact of the run from then on.

A second thread makes the products of a model faster on an idle machine, and everything several times slower
as soon as another process wants its core, because the threads wait for each other at every operation
(`benchmarks/threads.py` shows both). How much it helps depends on the model, how much it hurts on what else
runs, so both are looked at together, by work of the model's shape.

The number of threads is part of a computation: it changes the order in which sums are added up, and with it
their last bits. Hence
- below `MEASURED_FROM` parameters it is one, without looking, so that small runs with the same seed are the
  same run on every machine of one kind;
- a larger run keeps the number that it began with when it is resumed, also on another machine. Two runs of
  one recipe that must not differ by a bit set `engine.threads`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import silu

from forethought.core import cores

MEASURED_FROM = 4_000_000
# parameters. Below it a second thread has little to win: at 1M whole steps were 1.1 times as fast on idle
# cores of the time that the smaller number takes: what more threads must save to be worth what they lose when
# others compute
SAVES = 0.15
SECONDS = 0.25  # of measuring, about
ROUNDS = 4  # at least, whatever they take
ROWS, TOKENS = 32, 128  # of a decode step, and of a piece of a training row
# of the work: a few milliseconds of one core. What is left out of a larger model is more of the same
MOST_WEIGHTS = 1 << 22
ON_GPU = 8  # threads at most where the GPU computes


@dataclass(frozen=True, slots=True)
class Choice:
    """`why` is for people: what was measured, or why nothing was."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model the work has: numbers of a token inside and in the middle of a feed-forward block, and
    blocks."""

    width: int
    mlp: int
    layers: int

    @classmethod
    def of(cls, config: object) -> Shape:
        """From a Hugging Face text config; a family without an `intermediate_size` has four times its width,
        as most have."""
        width = config.hidden_size
        mlp = getattr(config, "intermediate_size", None) or 4 * width
        # some have one per layer
        return cls(width, mlp if isinstance(mlp, int) else max(mlp), config.num_hidden_layers)


def choose(
    asked: int,
    device: torch.device,
    parameters: int,
    config: object | None = None,
    dtype: torch.dtype = torch.float32,
) -> Choice:
    """The number for a model with `config` that computes in `dtype`; `asked` is the recipe's, 0 where the
    machine decides."""
    if asked:
        return _given(asked)
    most = cores.most_threads()
    if device.type != "cpu":
        return Choice(min(most, ON_GPU), "not measured: the GPU computes")
    if parameters < MEASURED_FROM or config is None:
        return Choice(1, f"not measured: always one below {MEASURED_FROM / 1e6:.0f}M parameters")
    if most == 1:
        return Choice(1, "one core here" if cores.usable() == 1 else "OMP_NUM_THREADS is 1")
    took = measured(Shape.of(config), dtype, numbers(most))
    said = ", ".join(f"{n} -> {1000 * seconds:.1f} ms" for n, seconds in took.items())
    return Choice(best(took), f"measured: {said}; more must save {SAVES:.0%}" + _bounded(most))


def _given(number: int) -> Choice:
    why, have = "given by the recipe, or by the run that goes on", cores.usable()
    if number > have:
        here = "is 1 core" if have == 1 else f"are {have} cores"
        why += f"; here {here}: fewer threads would be faster, and change the last bits of sums"
    return Choice(number, why)


def _bounded(most: int) -> str:
    return f"; OMP_NUM_THREADS allows {most}" if most < cores.usable() else ""


def numbers(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `most` itself."""
    return (*(1 << k for k in range((most - 1).bit_length())), most)


def best(took: Mapping[int, float]) -> int:
    """Of seconds by number of threads, ascending: a number is taken if it saves `SAVES` against the one taken
    so far."""
    chosen = min(took)
    for number, seconds in took.items():
        if seconds <= (1 - SAVES) * took[chosen]:
            chosen = number
    return chosen


@functools.cache  # a process has one machine: models of one shape in it get one answer
def measured(shape: Shape, dtype: torch.dtype, candidates: tuple[int, ...]) -> dict[int, float]:
    """Seconds of the work by number of threads. PyTorch is left with the number that it had."""
    before = torch.get_num_threads()
    try:
        return compare(work(shape, dtype), candidates, torch.set_num_threads)
    finally:
        torch.set_num_threads(before)


def compare(
    do: Callable[[], object],
    candidates: Sequence[int],
    take: Callable[[int], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, float]:
    """The upper quartile of what `do` took with each number of threads. They alternate, so that what else the
    machine does meets all of them; and it is the upper quartile because threads that lose their core now and
    then look fine in the median."""
    times: dict[int, list[float]] = {n: [] for n in candidates}
    for n in candidates:  # threads are started and buffers made
        take(n)
        do()
    began = clock()
    while len(times[candidates[0]]) < ROUNDS or clock() - began < SECONDS:
        for n in candidates:
            take(n)
            start = clock()
            do()
            times[n].append(clock() - start)
    return {n: sorted(some)[3 * len(some) // 4] for n, some in times.items()}


def work(shape: Shape, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """Feed-forward blocks of the shape, for the rows of a decode step and for those of a training row. No
    random numbers are drawn: a run's own would be others."""
    middle = min(shape.mlp, max(1, MOST_WEIGHTS // (2 * shape.width)))
    blocks = max(1, min(shape.layers, MOST_WEIGHTS // (2 * shape.width * middle)))
    weights = [
        (
            torch.full((shape.width, middle), 1e-3, dtype=dtype),
            torch.full((middle, shape.width), 1e-3, dtype=dtype),
        )
        for _ in range(blocks)
    ]
    inputs = [torch.full((rows, shape.width), 0.1, dtype=dtype) for rows in (ROWS, TOKENS)]

    @torch.no_grad()
    def do() -> torch.Tensor:
        for x in inputs:
            for up, down in weights:
                hidden = (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)) @ up
                x = x + (silu(hidden) * hidden) @ down
        return x

    return do
