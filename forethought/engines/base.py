"""The one protocol that algorithms know. Policies are addressed by name; `base` always exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from forethought.core.errors import ForethoughtError, UserError
from forethought.core.metrics import Metric
from forethought.core.types import Batch, Completion, Objective, Request, TokenStats
from forethought.recipe.schema import OptimSpec

BASE = "base"
Kind = Literal["adapter", "model", "frozen"]
"""adapter: LoRA on the base; model: every weight once more, trainable; frozen: a copy that never trains (a
reference)."""


class UpdateRefused(ForethoughtError):
    """A loss or gradient was not finite: the policy's weights were not touched, and the gradients of every
    policy are cleared."""


Tell = Callable[[str, str, Mapping[str, float]], None]
"""(outcome, reason, numbers) of something that the engine decided by itself, for the run's decisions."""


def room_of(request: Request, context: int) -> int:
    """Tokens that a completion may have: the request's budget, cut to what the model's context leaves it; 0:
    it is overlong.

    UserError for an empty prompt, which gives a model nothing to go on from; ValueError for numbers that ask
    for nothing.
    """
    if (
        request.n < 1
        or not request.temperature >= 0
        or not 0 < request.top_p <= 1
        or not 0 <= request.seed < 1 << 64
    ):
        raise ValueError(
            f"a request needs n >= 1, temperature >= 0, 0 < top_p <= 1 and a seed of 64 bits; "
            f"found n = {request.n}, "
            f"temperature = {request.temperature}, top_p = {request.top_p}, seed = "
            f"{request.seed}"
        )
    if not request.context:
        raise UserError(
            "a prompt of 0 tokens cannot be continued; check what the tokenizer makes of the task"
        )
    return max(0, min(request.max_tokens, context - len(request.context)))


def overlong(version: int) -> Completion:
    """What comes back where the context leaves no room for a token."""
    return Completion(token_ids=(), logprobs=(), status="overlong", version=version)


class Engine(Protocol):
    context: int  # most tokens of a path
    end: int | None  # the token with which the model ends what it says
    ends: frozenset[int]  # every token that ends it
    begin: tuple[int, ...]  # what stands before a text that no chat template begins (a BOS, or nothing)
    notes: list[str]  # what a run says of the model at its start

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of text, without special tokens. Pieces are encoded apart and joined as ids,
        never as text."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...] | None:
        """Token ids of a conversation ({"role", "content"}) up to where the assistant speaks, by the
        tokenizer's chat template; None where it has none."""

    def check_words(self, words: Sequence[str], stops: Sequence[str]) -> None:
        """UserError naming the words of a task that the tokenizer cannot write."""

    def policies(self) -> dict[str, int]:
        """Name -> version (the number of `publish` calls)."""

    def fork(self, src: str, dst: str, kind: Kind = "adapter") -> None:
        """A new policy that behaves exactly like `src`. An adapter lies on the base (src: the base, or an
        adapter to copy). A model takes a copy of src's optimizer along, if it has one. Names are never reused
        for something else while a run lasts."""

    def assign(self, dst: str, src: str) -> None:
        """The weights of `dst` become those of `src`, bit for bit; its optimizer stays. ValueError unless
        both are whole models or both are adapters. `publish` makes them what samples."""

    def factor(self, dst: str, start: str) -> float:
        """What the base has learned since `start`, a frozen copy of it, moves into a new adapter `dst`: the
        nearest one of the recipe's rank, by singular values; the base is `start` again, bit for bit. Returns
        the share of the squared difference that the adapter holds (what moved outside its targets is
        lost)."""

    def drop(self, name: str) -> None: ...

    def prepare(self, policy: str, optim: OptimSpec) -> None:
        """A fresh optimizer for `policy`, which becomes trainable."""

    def release(self, policy: str) -> None:
        """Forget the optimizer of a policy whose stage is over (nothing happens where there is none)."""

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`n` completions for each request, in order. Contexts that share a prefix compute it once. Where the
        model's context leaves less room than `max_tokens`, that is the budget (`room_of`); where it leaves
        none, the completions are `overlong`."""

    def logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        """For each segment with a stream: log p of its tokens under `batch.policy` (nats, temperature 1),
        else ()."""

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, Metric]:
        """Add the gradient of the objective to the policy's. Raises UpdateRefused when the loss is not
        finite."""

    def check_gradients(self, policies: Sequence[str]) -> None:
        """Before several policies move in one step: UpdateRefused, and none of them has moved, where the
        gradient of one is not finite."""

    def optim_step(self, policy: str, lr_scale: float = 1.0) -> dict[str, Metric]:
        """Clip, check, update, clear. Raises UpdateRefused when the gradient is not finite."""

    # Gradients by objective: gather one with forward_backward, set it aside, gather the next.

    def set_aside(self, policy: str, name: str) -> None:
        """Put the gradient gathered so far aside under `name`; the next forward_backward starts from
        nothing."""

    def conflict(self, policy: str, a: str, b: str, part: bool = False) -> dict[str, float]:
        """Cosine of two gradients that were set aside (`part`: b is a part of a, and what is compared with it
        is the rest of a): "all", and by layer group ("embed", "early", "middle", "late", "head": the layers
        in thirds; groups in which either is zero are left out)."""

    def combine(
        self, policy: str, names: Sequence[str], method: Literal["sum", "pcgrad"] = "sum", seed: int = 0
    ) -> dict[str, Metric]:
        """The policy's gradient becomes the sum of the named ones; all that were set aside are forgotten.
        "pcgrad" (arXiv 2001.06782): each is first projected, over the others in an order drawn with `seed`,
        off every one that it conflicts with."""

    def forget(self, policy: str) -> None:
        """Drop the gathered gradient and those set aside."""

    # Regions: sets of single weights, by name, saved with the checkpoint (CPI-FT, arXiv 2508.21741).

    def find_region(self, name: str, policy: str, start: str, share: float) -> int:
        """The `share` of the policy's numbers that differ most from `start`'s, over all its tensors together;
        returns how many."""

    def random_region(self, name: str, like: str, seed: int) -> int:
        """The control: as many numbers of each tensor as region `like` has there, drawn at random."""

    def overlap(self, a: str, b: str) -> float:
        """Jaccard index of two regions, |both| / |either|; two random ones of share p have p / (2 - p)."""

    def hold(self, policy: str, region: str) -> None:
        """From now on `optim_step` leaves these numbers as they are, bit for bit: no gradient, moment or
        decay reaches them. "" lets go."""

    def transplant(self, dst: str, src: str, region: str) -> None:
        """Inside `region`, the numbers of `dst` become those of `src`."""

    def slerp(self, dst: str, src: str, weight: float, outside: str = "") -> None:
        """Outside the region (everywhere for ""), each tensor of `dst` moves by `weight` along the arc to
        `src`'s (a straight line where the angle is too small to divide by)."""

    def inspect(self, batch: Batch, against: Sequence[str] = ()) -> list[TokenStats | None]:
        """For each segment with a stream, what `batch.policy` makes of its tokens, with the exact KL to each
        policy in `against`; nothing trains."""

    def publish(self, policy: str) -> int:
        """Make the newest weights what `sample` uses; returns the new version."""

    def finite(self) -> str:
        """ "" where every number that training can move, weights and optimizers, is finite; else the first
        tensor that holds another, in words. To be asked before `save`: what is not finite must not take the
        place of what is."""

    def save(self, directory: Path) -> None:
        """Everything needed to go on: weights of every policy in Hugging Face and PEFT layout, optimizers,
        versions."""

    def load(self, directory: Path) -> None:
        """Back to what `save` wrote. A policy that has published more often since gets a new version, never
        an old one: a version number names one set of weights for as long as the engine lives."""

    def chosen(self) -> Mapping[str, object]:
        """What it has chosen by itself, or found on its machine, and what changes bits (`engines.kept`);
        saved with a checkpoint. Under the name of a key of the recipe's engine table stands what "auto"
        became."""

    def listen(self, tell: Tell) -> None:
        """From now on `tell` hears what the engine decides by itself: sizes that it makes smaller when memory
        runs out."""

    def facts(self) -> Mapping[str, object]:
        """What the run's summary says about model and machine."""
