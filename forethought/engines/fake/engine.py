"""An engine without torch, for tests of everything above it: scripted words, or a tiny policy that really
learns. Always exact.

The parameters of a policy are one row of logits per role, over whole continuations (`choices`). A
continuation is chosen with its first token, which carries all of its log-probability; the tokens after it are
certain. So gradients can be worked out by hand: d log p_k / d logit_j = [j = k] - p_j."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from forethought.core.errors import UserError
from forethought.core.metrics import Last, Metric
from forethought.core.types import Batch, Completion, Objective, Request, Segment, Side, TokenStats
from forethought.engines.base import BASE, Tell, UpdateRefused, overlong, room_of
from forethought.engines.fake import objectives
from forethought.engines.fake import rows as fake_rows
from forethought.engines.fake.rows import Rows, entropy, softmax
from forethought.engines.fake.surgery import Surgery

Choices = Callable[[str, str], Sequence[str]]
"""(text of the path so far, role) -> continuations; a role has equally many of them in every context, in the
same order."""

Script = Callable[[str, str, int, int], str]
"""(policy, text of the path so far, index of the sample, seed of the request) -> what the policy says."""


class FakeEngine(Surgery):
    """See `engines.base.Engine`. One token per word; no clock, no threads, no global state.

    `choices`: by default the first three words of the vocabulary, each with the role's stop word. `script`
    replaces the drawing (not the training). `nan_losses`, `nan_gradients`: which calls of forward_backward
    and of optim_step, counted from 0, find numbers that are not finite. What is none of the choices has
    probability 1 and no gradient. The optimizer is SGD with `betas[0]` as momentum, so that it has a state to
    restore. `sample` speaks with published weights only.
    """

    exact = True

    def __init__(
        self,
        words: Sequence[str],
        stops: Mapping[str, str],
        *,
        choices: Choices | None = None,
        script: Script | None = None,
        context: int = 4096,
        nan_losses: Collection[int] = (),
        nan_gradients: Collection[int] = (),
    ):
        super().__init__()
        self.words, self.end, self.ends, self.begin, self.notes = list(words), None, frozenset(), (), []
        self.ids = {word: i for i, word in enumerate(self.words)}
        self.roles = {stop: role for role, stop in stops.items()}
        self.choices = choices or (lambda text, role: [f"{word} {stops[role]}" for word in self.words[:3]])
        self.script, self.context, self.nan_losses, self.nan_gradients = (
            script,
            context,
            nan_losses,
            nan_gradients,
        )

    # ---- words

    def encode(self, text: str) -> tuple[int, ...]:
        """One id per word (split at spaces). UserError for words outside the vocabulary."""
        self.check_words(text.split(), ())
        return tuple(self.ids[word] for word in text.split())

    def decode(self, ids: Sequence[int], special: bool = True) -> str:
        """Words joined by single spaces; none of them is special."""
        return " ".join(self.words[i] for i in ids)

    def plain(self, text: str, own: Collection[str] = (), turn: bool = False) -> tuple[int, ...]:
        """As `encode`: the fake has no special tokens."""
        return self.encode(text)

    def chat(self, messages: Sequence[Mapping[str, str]], own: Collection[str] = (), opens: str = "") -> None:
        """None: the fake has no chat template."""
        return None

    def observation(self, text: str | None, said: Sequence[int], side: Side = "user") -> None:
        """None: the fake has no chat template."""
        return None

    def check_words(self, words: Sequence[str], stops: Sequence[str]) -> None:
        """UserError that lists the words outside the vocabulary."""
        if lost := [word for word in [*words, *stops] if word not in self.ids]:
            raise UserError(f"the fake's vocabulary lacks {', '.join(lost)}")

    # ---- sampling

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Scripted words in order, or draws from the tiny policy; each depends on its request alone."""
        return [[self._say(request, i) for i in range(request.n)] for request in requests]

    def forget_paths(self) -> None:
        """Nothing is kept."""

    def _say(self, r: Request, i: int) -> Completion:
        if not (room := room_of(r, self.context)):
            return overlong(self.versions[r.policy])
        text, role = self.decode(r.context), self.roles[r.stops[0]]
        said = self.script(r.policy, text, i, r.seed) if self.script else self._draw(r, i, text, role)
        tokens = self.encode(said)[:room]
        ends = [t for t, token in enumerate(tokens) if self.words[token] in r.stops]
        tokens = tokens[: ends[0] + 1] if ends else tokens
        logprobs = self._logprobs(self.served[r.policy], text, role, tokens)
        return Completion(
            token_ids=tokens,
            logprobs=logprobs,
            status="finished" if ends else "truncated",
            version=self.versions[r.policy],
        )

    def _draw(self, r: Request, i: int, text: str, role: str) -> str:
        choices = self.choices(text, role)
        logits = self.served[r.policy].get(role, [0.0] * len(choices))
        settings = r.temperature, r.top_p, r.top_k, r.min_p
        return choices[fake_rows.pick(logits, *settings, seed=f"{r.seed}/{i}")]

    # ---- training

    def logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        """For each segment with a stream, log softmax of the rows of logits of its role."""
        rows = self.weights[batch.policy]
        return [
            self._logprobs(rows, self._text(batch, s.parent), s.role, s.token_ids) if s.stream else ()
            for s in batch.segments
        ]

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, Metric]:
        """Add the exact gradient of the objective. UpdateRefused where the loss is not finite, and at the
        calls listed in `nan_losses`."""
        self.losses += 1
        if self.losses - 1 in self.nan_losses:
            self._forget()
            raise UpdateRefused(f"the loss of policy {batch.policy!r} is nan")
        try:
            gradients, metrics = objectives.gradient_of(batch, objective, partial(self._said, batch))
        except UpdateRefused:
            self._forget()
            raise
        for role, gradient in gradients:
            self._gather(batch.policy, role, gradient)
        return metrics

    def _said(self, batch: Batch, policy: str, at: int) -> objectives.Said:
        s, rows = batch.segments[at], self.weights[policy]
        text = self._text(batch, s.parent)
        k, p = self._chosen(rows, text, s.role, s.token_ids)
        return objectives.Said(k, p, self._logprobs(rows, text, s.role, s.token_ids))

    def _gather(self, policy: str, role: str, gradient: list[float]) -> None:
        row = self.gradients.setdefault(policy, {}).setdefault(role, [0.0] * len(gradient))
        for j, g in enumerate(gradient):
            row[j] += g

    def check_gradients(self, policies: Sequence[str]) -> None:
        """UpdateRefused, before any policy moves, where a gradient is not finite, and at the steps listed in
        `nan_gradients`."""
        for k, policy in enumerate(policies):
            norm = math.nan if self.steps + k in self.nan_gradients else _norm(self.gradients[policy])
            if not math.isfinite(norm):
                self.steps += k + 1
                self._forget()
                raise UpdateRefused(f"the gradient norm of policy {policy!r} is {norm}")

    def optim_step(self, policy: str, lr_scale: float = 1.0) -> dict[str, Metric]:
        """Clip the gradient, then one step of SGD with momentum, on the numbers that no region holds."""
        self.check_gradients([policy])
        self.steps += 1
        spec, gradient = self.optimizers[policy], self.gradients[policy]
        self.gradients[policy] = {}
        held = {
            role: indices for role, (_, indices) in self.regions.get(self.holds.get(policy, ""), {}).items()
        }
        gradient = {
            role: [0.0 if j in held.get(role, ()) else g for j, g in enumerate(row)]
            for role, row in gradient.items()
        }
        norm = _norm(gradient)
        clip = min(1.0, spec.clip_norm / norm) if norm else 1.0
        for role, row in gradient.items():
            logits = self.weights[policy].setdefault(role, [0.0] * len(row))
            momentum = self.momentum[policy].setdefault(role, [0.0] * len(row))
            for j, g in enumerate(row):
                if j in held.get(role, ()):
                    continue
                momentum[j] = spec.betas[0] * momentum[j] + clip * g
                logits[j] -= spec.lr * lr_scale * momentum[j]
        return {f"grad_norm/{policy}": Last(norm), "lr": Last(spec.lr * lr_scale)}

    def inspect(self, batch: Batch, against: Sequence[str] = ()) -> list[TokenStats | None]:
        """Entropy, log-probs and exact KL, for each segment with a stream."""
        return [self._stats(batch, s, against) if s.stream else None for s in batch.segments]

    def _stats(self, batch: Batch, s: Segment, against: Sequence[str]) -> TokenStats:
        """All uncertainty is in the first token. Greedy never says what is none of the choices."""
        text, rows = self._text(batch, s.parent), self.weights[batch.policy]
        k, p = self._chosen(rows, text, s.role, s.token_ids)
        first = lambda value: (value if k is not None else 0.0, *[0.0] * (len(s.token_ids) - 1))  # noqa: E731
        others = {name: self._chosen(self.weights[name], text, s.role, s.token_ids)[1] for name in against}
        return TokenStats(
            logprobs=self._logprobs(rows, text, s.role, s.token_ids),
            entropies=first(entropy(p)),
            hits=(k == p.index(max(p)), *[True] * (len(s.token_ids) - 1)),
            kl={name: first(fake_rows.kl(p, q)) for name, q in others.items()},
        )

    # ---- what the tokens of a segment are

    def _text(self, batch: Batch, at: int) -> str:
        """The words of the path that ends with segment `at`."""
        words: list[str] = []
        while at >= 0:
            words = [self.words[i] for i in batch.segments[at].token_ids] + words
            at = batch.segments[at].parent
        return " ".join(words)

    def _chosen(
        self, rows: Rows, text: str, role: str, tokens: Sequence[int]
    ) -> tuple[int | None, list[float]]:
        """(index of the choice that `tokens` are, or begin: None if they are no choice; the probabilities of
        all choices)"""
        choices = [self.encode(choice) for choice in self.choices(text, role)]
        same = [k for k, c in enumerate(choices) if c == tuple(tokens)]
        begun = [k for k, c in enumerate(choices) if tokens and c[: len(tokens)] == tuple(tokens)]
        return next(iter(same + begun), None), softmax(rows.get(role, [0.0] * len(choices)))

    def _logprobs(self, rows: Rows, text: str, role: str, tokens: Sequence[int]) -> tuple[float, ...]:
        k, p = self._chosen(rows, text, role, tokens)
        return () if not tokens else (math.log(p[k]) if k is not None else 0.0, *[0.0] * (len(tokens) - 1))

    def chosen(self) -> Mapping[str, object]:
        """Nothing is chosen here."""
        return {}

    def listen(self, tell: Tell) -> None:
        """It decides nothing by itself."""

    def facts(self) -> Mapping[str, object]:
        """A model named "fake", with its number of logits."""
        return {
            "model": "fake",
            "device": "none",
            "parameters": sum(len(row) for row in self.weights[BASE].values()),
        }


def _norm(gradient: Rows) -> float:
    return math.sqrt(sum(g * g for row in gradient.values() for g in row))
