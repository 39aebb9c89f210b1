"""An engine without torch, for tests of everything above it: scripted words, or a tiny policy that really
learns. Always exact.

The parameters of a policy are one row of logits a role, over whole continuations (`choices`). A continuation
is chosen with its first token, which carries all of its log-probability; the tokens after it are certain. So
gradients can be worked out by hand: d log p_k / d logit_j = [j = k] - p_j.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from forethought.core.errors import UserError
from forethought.core.metrics import Last, Max, Mean, Metric, Sum, merge
from forethought.core.types import Batch, Completion, Objective, Request, Segment, TokenStats
from forethought.engines.base import BASE, Side, Tell, UpdateRefused, overlong, room_of
from forethought.engines.fake import rows as fake_rows
from forethought.engines.fake.rows import Rows, entropy, softmax
from forethought.engines.fake.surgery import Surgery

Choices = Callable[[str, str], Sequence[str]]
"""(text of the path so far, role) -> continuations; a role has equally many of them in every context, in the
same order."""

Script = Callable[[str, str, int, int], str]
"""(policy, text of the path so far, index of the sample, seed of the request) -> what the policy says."""


class FakeEngine(Surgery):
    """See `engines.base.Engine`. One token a word; no clock, no threads, no global state.

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
        self.check_words(text.split(), ())
        return tuple(self.ids[word] for word in text.split())

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> None:
        return None

    def observation(self, text: str | None, said: Sequence[int], side: Side = "user") -> None:
        return None

    def check_words(self, words: Sequence[str], stops: Sequence[str]) -> None:
        if lost := [word for word in [*words, *stops] if word not in self.ids]:
            raise UserError(f"the fake's vocabulary lacks {', '.join(lost)}")

    # ---- sampling

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
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
        return choices[fake_rows.pick(logits, r.temperature, r.top_p, f"{r.seed}/{i}")]

    # ---- training

    def logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        rows = self.weights[batch.policy]
        return [
            self._logprobs(rows, self._text(batch, s.parent), s.role, s.token_ids) if s.stream else ()
            for s in batch.segments
        ]

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, Metric]:
        self.losses += 1
        if self.losses - 1 in self.nan_losses:
            self._forget()
            raise UpdateRefused(f"the loss of policy {batch.policy!r} is nan")
        trained = [s for s in batch.segments if s.stream]
        parts: list[dict[str, Metric]] = [
            {
                "tokens/trained": Sum(sum(w != 0 for s in trained for w in s.weight)),
                "tokens/forward": Sum(sum(len(s.token_ids) for s in batch.segments)),
            }
        ]
        return merge(parts + [self._learn(batch, s, objective) for s in trained])

    def _learn(self, batch: Batch, s: Segment, o: Objective) -> dict[str, Metric]:
        """Add the gradient of one segment; its loss, gap to the sampler, and entropy (of pg where the
        objective has it, else sft)."""
        text, rows = self._text(batch, s.parent), self.weights[batch.policy]
        if s.stream == "keep":
            return self._pull_back(batch.policy, text, s, o)
        k, p = self._chosen(rows, text, s.role, s.token_ids)
        logps = self._logprobs(rows, text, s.role, s.token_ids)
        scale = o.weights.get(s.stream, 1.0) / o.denominators[s.stream]
        metrics: dict[str, Metric] = {}
        if s.stream == "sft":
            losses, slope = [-w * logp for w, logp in zip(s.weight, logps, strict=True)], -s.weight[0]
        else:
            ratios = [math.exp(new - old) for new, old in zip(logps, s.old_logprobs or logps, strict=True)]
            low_high = [min(max(r, 1 - o.clip_low), 1 + o.clip_high) for r in ratios]
            losses = [
                -w * min(r * a, c * a)
                for w, r, c, a in zip(s.weight, ratios, low_high, s.advantage, strict=True)
            ]
            held = [
                w * (c * a < r * a)
                for w, r, c, a in zip(s.weight, ratios, low_high, s.advantage, strict=True)
            ]
            slope = 0.0 if held[0] else -s.weight[0] * ratios[0] * s.advantage[0]
            gaps = [abs(new - old) for new, old in zip(logps, s.old_logprobs or logps, strict=True)]
            metrics = {
                "clip/share": Mean(sum(held), sum(s.weight)),
                "gap/sampler_max": Max(max(gaps)),
                "gap/sampler": Mean(
                    sum(w * gap for w, gap in zip(s.weight, gaps, strict=True)), sum(s.weight)
                ),
            }
        if o.ref_kl and s.ref_logprobs:
            away = [math.exp(ref - new) for new, ref in zip(logps, s.ref_logprobs, strict=True)]
            metrics["kl/ref"] = Mean(
                sum(w * (x - math.log(x) - 1) for w, x in zip(s.weight, away, strict=True)), sum(s.weight)
            )
            slope += o.ref_kl * s.weight[0] * (1 - away[0])
        if k is not None:
            self._gather(batch.policy, s.role, [scale * slope * ((j == k) - p_j) for j, p_j in enumerate(p)])
        if s.stream == ("pg" if "pg" in o.denominators else "sft"):
            metrics[f"entropy/{s.role}"] = Mean(entropy(p) if k is not None else 0.0, len(logps))
        return metrics | {f"loss/{s.stream}": Mean(sum(losses), sum(s.weight))}

    def _pull_back(self, policy: str, text: str, s: Segment, o: Objective) -> dict[str, Metric]:
        """The keep stream: d KL(q || p) / d logit_j = p_j - q_j, at the token that chooses."""
        if not o.keep or o.keep == policy or "keep" not in o.denominators:
            raise ValueError(
                f"the keep stream needs a policy other than {policy!r} to keep to (here "
                f"{o.keep!r}) and a denominator"
            )
        k, p = self._chosen(self.weights[policy], text, s.role, s.token_ids)
        _, q = self._chosen(self.weights[o.keep], text, s.role, s.token_ids)
        if k is None:
            return {"kl/keep": Mean(0.0, sum(s.weight))}
        scale = o.weights.get("keep", 1.0) * s.weight[0] / o.denominators["keep"]
        self._gather(policy, s.role, [scale * (p_j - q_j) for p_j, q_j in zip(p, q, strict=True)])
        return {"kl/keep": Mean(s.weight[0] * fake_rows.kl(q, p), sum(s.weight))}

    def _gather(self, policy: str, role: str, gradient: list[float]) -> None:
        row = self.gradients.setdefault(policy, {}).setdefault(role, [0.0] * len(gradient))
        for j, g in enumerate(gradient):
            row[j] += g

    def check_gradients(self, policies: Sequence[str]) -> None:
        for k, policy in enumerate(policies):
            if self.steps + k in self.nan_gradients:
                self.steps += k + 1
                self._forget()
                raise UpdateRefused(f"the gradient norm of policy {policy!r} is nan")

    def optim_step(self, policy: str, lr_scale: float = 1.0) -> dict[str, Metric]:
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
        norm = math.sqrt(sum(g * g for row in gradient.values() for g in row))
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
        return {}

    def listen(self, tell: Tell) -> None:
        """It decides nothing by itself."""

    def facts(self) -> Mapping[str, object]:
        return {
            "model": "fake",
            "device": "none",
            "parameters": sum(len(row) for row in self.weights[BASE].values()),
        }
