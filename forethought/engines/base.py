"""The one protocol that algorithms know. Policies are addressed by name; `base` always exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from forethought.errors import ForethoughtError
from forethought.metrics import Metric
from forethought.recipe.schema import OptimSpec
from forethought.types import Batch, Completion, Objective, Request

BASE = "base"


class UpdateRefused(ForethoughtError):
    """A loss or gradient was not finite: the policy's weights were not touched, and the gradients of every policy are cleared."""


class Engine(Protocol):
    context: int  # most tokens of a path

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of text, without special tokens. Pieces are encoded apart and joined as ids, never as text."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def check_words(self, words: Sequence[str], stops: Sequence[str]) -> None:
        """UserError naming the words of a task that the tokenizer cannot write."""

    def policies(self) -> dict[str, int]:
        """Name -> version (the number of `publish` calls)."""

    def fork(self, src: str, dst: str, *, frozen: bool = False) -> None:
        """A new policy that behaves exactly like `src`: a LoRA adapter on the base, or, if `frozen`, a copy that never trains
        (the reference of a KL term). Names are never reused for something else while a run lasts."""

    def drop(self, name: str) -> None: ...

    def prepare(self, policy: str, optim: OptimSpec) -> None:
        """A fresh optimizer for `policy`, which becomes trainable."""

    def release(self, policy: str) -> None:
        """Forget the optimizer of a policy whose stage is over (nothing happens where there is none)."""

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`n` completions for each request, in order. Contexts that share a prefix compute it once."""

    def logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        """For each segment with a stream: log p of its tokens under `batch.policy` (nats, temperature 1), else ()."""

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, Metric]:
        """Add the gradient of the objective to the policy's. Raises UpdateRefused when the loss is not finite."""

    def optim_step(self, policy: str, lr_scale: float = 1.0) -> dict[str, Metric]:
        """Clip, check, update, clear. Raises UpdateRefused when the gradient is not finite."""

    def publish(self, policy: str) -> int:
        """Make the newest weights what `sample` uses; returns the new version."""

    def save(self, directory: Path) -> None:
        """Everything needed to go on: weights of every policy in Hugging Face and PEFT layout, optimizers, versions."""

    def load(self, directory: Path) -> None:
        """Back to what `save` wrote. A policy that has published more often since gets a new version, never an old one: a version
        number names one set of weights for as long as the engine lives."""

    def facts(self) -> Mapping[str, object]:
        """What the run's summary says about model and machine."""
