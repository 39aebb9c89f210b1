"""How much is computed at once, and what happens when memory runs out.

A size that the recipe leaves to the engine ("auto") begins at what the free memory is estimated to hold and
is halved whenever memory runs out. A size that the recipe gives stays what it is: what would fit is measured
and said, and the run ends there.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from transformers import PretrainedConfig

from forethought.core.errors import UserError
from forethought.core.free import allowed, free_memory, held_back
from forethought.core.parts import process_peak
from forethought.core.types import Request, Segment
from forethought.engines.base import Tell
from forethought.engines.torch.policies.optim import Optimizer
from forethought.recipe.machine import LEFT
from forethought.recipe.schema import EngineSpec

T = TypeVar("T")
# of the free memory that an estimate may fill: the rest is for what it does not see, and for fragments
SHARE = 0.7
MOST = 4  # times the usual size: what auto goes up to on a GPU; beyond that nothing gets faster
LOOKED_AT = 1 << 28  # bytes of a pack that may be too many
FEWEST = 64  # what an estimate never goes below; running out of memory does
SAID = re.compile(
    "can't allocate memory|not enough memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    # oneDNN's; without a descriptor it is a case that it does not compute
    "|could not create a primitive(?! descriptor)"
)
LESS = (
    "set engine.gradient_checkpointing=true, train adapters instead of whole models (layout=adapters), or "
    "take a smaller model"
)


def peak(device: torch.device, forget: bool) -> int:
    """Bytes held at most since the peak was last forgotten: of the GPU that computes, else of the process."""
    if device.type != "cuda":
        return process_peak(forget)
    if forget:
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    return torch.cuda.max_memory_allocated(device)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of a GPU, of PyTorch's allocator on the CPU, of oneDNN, or
    of numpy."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and SAID.search(str(error)) is not None


@contextmanager
def needed(what: str) -> Iterator[None]:
    """UserError where memory runs out inside for something that cannot be done in smaller pieces."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise UserError(f"out of memory: {what} does not fit; {LESS}") from None
        raise


def free(device: torch.device) -> int | None:
    """Bytes that can still be had on a GPU, those that PyTorch keeps for itself included; None on a CPU,
    where nobody can say."""
    if device.type != "cuda":
        return None
    return (
        torch.cuda.mem_get_info(device)[0]
        + torch.cuda.memory_reserved(device)
        - torch.cuda.memory_allocated(device)
    )


def prefix_bytes(asked: int | Literal["auto"], device: torch.device) -> int:
    """`engine.prefix_cache` (MiB) in bytes. auto: a sixteenth of the memory that the machine, or its GPU,
    has: the same at every start, as far as it decides what is computed again."""
    if asked != "auto":
        return asked << 20
    return _memory(device) // 16


def _memory(device: torch.device) -> int:
    """Bytes that the machine has, a container's share of it, or its GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return int(min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), allowed()))


def activation_bytes(device: torch.device) -> int:
    """Most that sampling may leave of its activations for an update: a quarter of the memory that the machine
    has, the same at every start. An update would hold as much."""
    return _memory(device) // LEFT


@dataclass(frozen=True, slots=True)
class Piece:
    """What is computed in one go: its size, the least that it can be cut to, and what to say where that is
    too much."""

    size: int
    least: int
    alone: str


class Size:
    """The largest piece, in tokens or rows. `name`: its address in the recipe; `usual`: what auto is where
    nothing is known."""

    def __init__(self, name: str, asked: int | Literal["auto"], usual: int):
        self.name, self.asked = name, asked
        self.now = usual if asked == "auto" else asked
        self.most = MOST * usual
        self.shrunk = False
        self.tell: Tell = lambda outcome, reason, numbers: None
        self.running: Callable[[], Piece] = lambda: Piece(self.now, self.now, "")
        self._cost = 0.0

    def estimate(self, room: float | None, cost: Callable[[], float]) -> None:
        """For auto: what `room` bytes hold at `cost` bytes a unit, in powers of two (a little more or less
        free memory must not change a run's sums). Nothing changes where `room` is not known (None), or where
        pieces as dear were seen before."""
        if self.asked != "auto" or room is None or (bytes_ := cost()) <= self._cost:
            return
        self._cost = bytes_
        fits = max(FEWEST, int(SHARE * max(room, 0) / bytes_))
        self.now = min(self.most, 1 << (fits.bit_length() - 1))

    def limit(self, size: int) -> None:
        """At most this from now on: what was learned before a run was resumed."""
        self.now = self.most = min(self.now, size)
        self.shrunk = True

    def estimated(self) -> list[float]:
        """[size, bytes a unit] of the dearest pieces so far; nothing where no memory was looked at. Another
        amount of free memory would cut a resumed run's work otherwise, and its sums would have other last
        bits."""
        return [self.now, self._cost] if self.asked == "auto" and self._cost else []

    def take_up(self, estimated: Sequence[float]) -> None:
        """What `estimated` gave, unless dearer pieces have been seen since (a roll-back makes nothing
        larger)."""
        if self.asked == "auto" and estimated and estimated[1] > self._cost:
            self.now, self._cost = min(self.most, int(estimated[0])), estimated[1]

    def within(self, attempt: Callable[[], T], undo: Callable[[], None] = lambda: None) -> T:
        """What `attempt` returns. It computes in pieces of at most `now` and says by `running` which one is
        next.

        When memory runs out, `undo` takes back what was done and it begins again with half the size. So
        nothing is copied on the way to be able to go back, and the price, part of one call again, is paid
        once: the size is remembered. UserError where the recipe gave the size (it says what fits) and where a
        piece that cannot be cut does not fit.
        """
        begun = 0  # the size before the first failure: an attempt may have estimated it anew
        while True:
            try:
                result = attempt()
                break
            # nothing of it is kept: its traceback holds the frames, and those the tensors
            except Exception as error:
                if not out_of_memory(error):
                    raise
            begun = begun or self.now
            undo()
            _give_back()
            self._halve(begun)
        if begun:
            self._settle(begun, undo)
        return result

    def _halve(self, begun: int) -> None:
        piece = self.running()
        if piece.size <= piece.least or self.now == 1:
            self.now = begun
            raise UserError(f"out of memory: {piece.alone}")
        self.now = max(1, min(self.now, piece.size) // 2)

    def _settle(self, begun: int, undo: Callable[[], None]) -> None:
        """What is smaller now stays so, and is said; a size that the recipe gave is not changed."""
        fits = self.now
        if self.asked != "auto":
            self.now = begun
            undo()
            raise UserError(
                f"out of memory: {self.name} = {begun} does not fit here, {fits} does; set "
                f'{self.name}={fits}, or "auto", which finds what fits by itself'
            )
        self.most, self.shrunk = fits, True
        self.tell(
            "shrink",
            f"out of memory: {self.name} is {fits} from now on, not {begun}; the result is "
            f"the same, in more passes",
            {"from": begun, "to": fits},
        )


def _give_back() -> None:
    """What the failed attempt has left, tensors in cycles included, so that the next one finds the memory
    whole."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


# What a piece is --------------------------------------------------------------------------------------------


def pack_piece(segments: Sequence[Segment]) -> Piece:
    """A pack can be cut between its paths; the longest one is the least."""
    tokens, longest = sum(len(s.token_ids) for s in segments), longest_path(segments)
    return Piece(
        tokens,
        longest,
        f"one path of {longest:,} tokens does not fit alone; {LESS}, or shorten what roles may say "
        "(stage.N.tree.tokens)",
    )


def rows_piece(requests: Sequence[Request], rows: Size) -> Piece:
    """The completions of one request are made together: the most that one asks for are the least."""
    n, context, budget = (
        max(sizes) for sizes in zip(*((r.n, len(r.context), r.max_tokens) for r in requests), strict=True)
    )
    return Piece(
        min(rows.now, sum(r.n for r in requests)),
        n,
        f"{n:,} completions of {budget:,} tokens after a prompt of {context:,} do not fit alone; "
        f"ask for fewer at once "
        "(stage.N.tree), shorten what roles may say (stage.N.tree.tokens), or take a smaller model",
    )


def longest_path(segments: Sequence[Segment]) -> int:
    """Tokens of the longest path of a forest."""
    lengths: list[int] = []
    for s in segments:
        lengths.append(len(s.token_ids) + (lengths[s.parent] if s.parent >= 0 else 0))
    return max(lengths, default=0)


def again(
    spec: EngineSpec, config: PretrainedConfig, segments: Sequence[Segment], room: float | None
) -> bool:
    """Whether a pack's layers are computed again in the backward pass. For auto: where what they would keep
    does not fit; `room` bytes are free, None: of the machine's memory, what the process can still have. Small
    packs are not looked at."""
    if spec.gradient_checkpointing != "auto":
        return spec.gradient_checkpointing
    needs = sum(len(s.token_ids) for s in segments) * token_bytes(config, 4, False, longest_path(segments))
    if needs < LOOKED_AT:
        return False
    room = (free_memory() + held_back()) if room is None else room
    return 0 < room and needs > SHARE * room


# Estimates, in bytes ----------------------------------------------------------------------------------------


def token_bytes(config: PretrainedConfig, number: int, checkpointing: bool, path: int) -> float:
    """Of one token in training: what its layers keep for the backward pass (counted as in arXiv 2205.05198,
    for a gated MLP), which tokens of a path it sees, and its share of the logits. `number`: bytes of one
    computed number; `path`: tokens of the longest one."""
    width, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    head = getattr(config, "head_dim", None) or width // heads
    kv = (getattr(config, "num_key_value_heads", None) or heads) * head
    layer = number * (4 * _inner(config) + 4 * heads * head + 4 * kv + 2 * width) + 16 * width
    kept = 4 * layers * width + layer if checkpointing else layers * layer
    return kept + path * (4 + number) + 2 * number * width


def left_bytes(config: PretrainedConfig) -> int:
    """Of one token that leaves its activations (`forest/activations.py`), its logits among them."""
    width, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or width // heads
    kv = (getattr(config, "num_key_value_heads", None) or heads) * head
    layer = 2 * width + 2 * heads * head + 2 * kv + 2 * _inner(config)
    return 4 * (config.num_hidden_layers * layer + config.vocab_size)


def row_bytes(config: PretrainedConfig, number: int, requests: Sequence[Request]) -> float:
    """Of one row in sampling, at the dearest of these requests: keys and values of its own tokens and of its
    part of the context, what reading the context takes, and its logits, which are drawn from in double
    precision."""
    width, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    head = getattr(config, "head_dim", None) or width // heads
    cached = 2 * layers * number * (getattr(config, "num_key_value_heads", None) or heads) * head
    read = 2 * cached + number * (2 * _inner(config) + 4 * width)
    return (
        max(r.max_tokens * cached + len(r.context) / r.n * read for r in requests) + 28.0 * config.vocab_size
    )


def _inner(config: PretrainedConfig) -> int:
    """Width of the MLP, of all experts that a token visits."""
    usual = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    experts = getattr(config, "num_experts_per_tok", None)
    return experts * (getattr(config, "moe_intermediate_size", None) or usual) if experts else usual


def to_come(optimizer: Optimizer) -> int:
    """Bytes that its next update will take beside the packs: gradients, and two moments a number, that are
    not there yet."""
    begun = any(part.state for _, part, _ in optimizer.parts)
    return sum(
        p.numel() * p.element_size() * ((p.grad is None) + 2 * (not begun))
        for p in optimizer.parameters.values()
    )
