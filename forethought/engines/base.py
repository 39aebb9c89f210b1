"""What the rest of the library knows of an engine: four small faces. `Words` writes and reads tokens,
`Sampler` continues contexts, `Trainer` moves weights, and `Surgery`, which an engine may lack, compares and
cuts gradients and weights. A recipe that needs a face its engine lacks is refused before anything is sampled
(`lacks`).

Policies are addressed by name; `base` always exists. Log-probs, entropies and KL are in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast

from forethought.core.errors import ForethoughtError, UserError
from forethought.core.metrics import Metric
from forethought.core.types import Batch, Completion, Objective, Request, Side, TokenStats
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


class Words(Protocol):
    """Text to token ids and back."""

    context: int  # most tokens of a path
    end: int | None  # the token with which the model ends what it says
    ends: frozenset[int]  # every token that ends it
    begin: tuple[int, ...]  # what stands before a text that no chat template begins (a BOS, or nothing)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of text, without special tokens. Pieces are encoded apart and joined as ids,
        never as text."""

    def decode(self, ids: Sequence[int], special: bool = True) -> str:
        """The text of token ids; `special`: special tokens included."""

    def plain(self, text: str, own: Collection[str] = (), turn: bool = False) -> tuple[int, ...]:
        """As `encode`, of free text: the name of a special token in it is text, unless it is one of `own`
        (the taskset's words). `turn`: the model's own words, in which only what ends its turn is text."""

    def chat(
        self, messages: Sequence[Mapping[str, str]], own: Collection[str] = (), opens: str = ""
    ) -> tuple[int, ...] | None:
        """Token ids of a conversation ({"role", "content"}) up to where the assistant speaks, by the
        tokenizer's chat template; None where it has none. The name of a special token in a content is text,
        unless it is one of `own`. `opens`: what the turn begins with, so that a mark of thinking stands there
        once where the template writes it too."""

    def observation(
        self, text: str | None, said: Sequence[int], side: Side = "user"
    ) -> tuple[int, ...] | None:
        """Token ids of what follows the turn `said` in a conversation that `chat` has begun: the end of the
        turn where the model has not ended it itself, `text` as a message of the other side (None: no message,
        the same side goes on), and the opening of the next turn; None where the tokenizer has no chat
        template. Nothing in `text` becomes a special token. UserError where the template does not take it."""

    def check_words(self, words: Sequence[str], stops: Sequence[str]) -> None:
        """UserError naming the words and stops of a task that the tokenizer cannot write."""


class Sampler(Protocol):
    """Continues contexts with published weights."""

    @property
    def exact(self) -> bool:
        """Whether a completion depends, in no bit, on the requests beside it that share nothing with it, on
        threads, and on what was sampled before. Who lacks it gives the same up to rounding."""

    def policies(self) -> dict[str, int]:
        """Name -> version of its weights (the number of `publish` calls)."""

    def publish(self, policy: str) -> int:
        """Make the newest weights what `sample` uses; returns the new version. KeyError for an unknown
        name."""

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`n` completions for each request, in order. What contexts share, within the call or with earlier
        calls under the same weights, need not be computed again; the engine finds it by token ids. Where the
        model's context leaves less room than `max_tokens`, that is the budget (`room_of`); where it leaves
        none, the completions are `overlong`."""

    def forget_paths(self) -> None:
        """The rollouts are over: let go of what was kept to continue them. Only time and memory depend on it
        where the engine is `exact`."""


class Trainer(Protocol):
    """Makes policies, and moves their weights."""

    def fork(self, src: str, dst: str, kind: Kind = "adapter") -> None:
        """A new policy that behaves exactly like `src`. An adapter lies on the base (src: the base, or an
        adapter to copy). A model takes a copy of src's optimizer along, if it has one. Names are never reused
        for something else while a run lasts. ValueError for a name that is taken, KeyError for an unknown
        `src`."""

    def assign(self, dst: str, src: str) -> None:
        """The weights of `dst` become those of `src`, bit for bit; its optimizer stays. ValueError unless
        both are whole models or both are adapters. `publish` makes them what samples."""

    def factor(self, dst: str, start: str) -> float:
        """What the base has learned since `start`, a frozen copy of it, moves into a new adapter `dst`: the
        nearest one of the recipe's rank, by singular values; the base is `start` again, bit for bit. Returns
        the share of the squared difference that the adapter holds (what moved outside its targets is
        lost)."""

    def drop(self, name: str) -> None:
        """Forget a policy, with its optimizer. KeyError for the base and for an unknown name."""

    def prepare(self, policy: str, optim: OptimSpec) -> None:
        """A fresh optimizer for `policy`, which becomes trainable. ValueError for a frozen one."""

    def release(self, policy: str) -> None:
        """Forget the optimizer of a policy whose stage is over (nothing happens where there is none)."""

    def logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        """For each segment with a stream: log p of its tokens under `batch.policy` (temperature 1), else
        ()."""

    def inspect(self, batch: Batch, against: Sequence[str] = ()) -> list[TokenStats | None]:
        """For each segment with a stream, what `batch.policy` makes of its tokens, with the exact KL to each
        policy in `against`; else None. Nothing trains."""

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, Metric]:
        """Add the gradient of the objective to the policy's. Raises UpdateRefused when the loss is not
        finite."""

    def check_gradients(self, policies: Sequence[str]) -> None:
        """Before several policies move in one step: UpdateRefused, and none of them has moved, where the
        gradient of one is not finite."""

    def optim_step(self, policy: str, lr_scale: float = 1.0) -> dict[str, Metric]:
        """Clip, check, update, clear. Raises UpdateRefused when the gradient is not finite."""

    def forget(self, policy: str) -> None:
        """Drop the gathered gradient, and those that were set aside."""

    def finite(self) -> str:
        """ "" where every number that training can move, weights and optimizers, is finite; else the first
        tensor that holds another, in words. To be asked before `save`: what is not finite must not take the
        place of what is."""

    def save(self, directory: Path) -> None:
        """Everything needed to go on: weights of every policy in Hugging Face and PEFT layout, optimizers,
        versions."""

    def load(self, directory: Path) -> None:
        """Back to what `save` wrote; CheckpointError where it is of another model. A policy that has
        published more often since gets a new version, never an old one: a version number names one set of
        weights for as long as the engine lives."""


class Surgery(Protocol):
    """Gradients by objective (gather one with `forward_backward`, set it aside, gather the next), and
    regions: sets of single weights, by name, saved with the checkpoint (CPI-FT, arXiv 2508.21741)."""

    def set_aside(self, policy: str, name: str) -> None:
        """Put the gradient gathered so far aside under `name`; the next forward_backward starts from
        nothing. ValueError for a name that is taken."""

    def conflict(self, policy: str, a: str, b: str, part: bool = False) -> dict[str, float]:
        """cos(a, b) of two gradients that were set aside (`part`: cos(a - b, b)): "all", and by layer group
        ("embed", "early", "middle", "late", "head": the layers in thirds; groups in which either is zero are
        left out)."""

    def combine(
        self, policy: str, names: Sequence[str], method: Literal["sum", "pcgrad"] = "sum", seed: int = 0
    ) -> dict[str, Metric]:
        """The policy's gradient becomes the sum of the named ones; all that were set aside are forgotten.
        "pcgrad" (arXiv 2001.06782): each is first projected, over the others in an order drawn with `seed`,
        off every one that it conflicts with. ValueError for a name that was not set aside."""

    def find_region(self, name: str, policy: str, start: str, share: float) -> int:
        """The `share` of the policy's numbers that differ most from `start`'s, over all its tensors together;
        returns how many."""

    def random_region(self, name: str, like: str, seed: int) -> int:
        """The control: as many numbers of each tensor as region `like` has there, drawn at random; returns
        how many."""

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


def surgery_of(engine: Engine) -> Surgery:
    """The optional face of an engine that has it."""
    return cast(Surgery, engine)


class Engine(Words, Sampler, Trainer, Protocol):
    """What a run needs, and what it says of it."""

    notes: list[str]  # what a run says of the model at its start

    def chosen(self) -> Mapping[str, object]:
        """What it has chosen by itself, or found on its machine, and what changes bits (`engines.chosen`);
        saved with a checkpoint. Under the name of a key of the recipe's engine table stands what "auto"
        became."""

    def listen(self, tell: Tell) -> None:
        """From now on `tell` hears what the engine decides by itself: sizes that it makes smaller when memory
        runs out."""

    def facts(self) -> Mapping[str, object]:
        """What the run's summary says about model and machine."""


def lacks(engine: object, face: type) -> list[str]:
    """Names of what a face asks for and `engine` has not, sorted; [] where it has the face."""
    asked = {name for one in face.__mro__ for name in (*vars(one), *vars(one).get("__annotations__", ()))}
    return sorted(name for name in asked if not name.startswith("_") and not hasattr(engine, name))


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
        or request.top_k < 0
        or not 0 <= request.min_p <= 1
        or not 0 <= request.seed < 1 << 64
    ):
        raise ValueError(
            "a request needs n >= 1, temperature >= 0, 0 < top_p <= 1, top_k >= 0, 0 <= min_p <= 1 and a "
            f"seed of 64 bits; found n = {request.n}, temperature = {request.temperature}, top_p = "
            f"{request.top_p}, top_k = {request.top_k}, min_p = {request.min_p}, seed = {request.seed}"
        )
    if not request.context:
        raise UserError(
            "a prompt of 0 tokens cannot be continued; check what the tokenizer makes of the task"
        )
    return max(0, min(request.max_tokens, context - len(request.context)))


def overlong(version: int) -> Completion:
    """What comes back where the context leaves no room for a token."""
    return Completion(token_ids=(), logprobs=(), status="overlong", version=version)
