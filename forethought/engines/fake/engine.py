"""An engine without torch, for tests of everything above it: scripted words, or a tiny policy that really
learns. Always exact.

The parameters of a policy are one row of logits a role, over whole continuations (`choices`). A continuation
is chosen with its first token, which carries all of its log-probability; the tokens after it are certain. So
gradients can be worked out by hand: d log p_k / d logit_j = [j = k] - p_j.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from forethought.core.errors import UserError
from forethought.core.metrics import Last, Max, Mean, Metric, Sum, merge
from forethought.core.types import Batch, Completion, Objective, Request, Segment, TokenStats
from forethought.engines import vectors
from forethought.engines.base import BASE, Kind, Tell, UpdateRefused, overlong, room_of
from forethought.engines.fake import rows as fake_rows
from forethought.engines.fake.rows import Region, Rows, entropy, softmax
from forethought.recipe.schema import OptimSpec

Choices = Callable[[str, str], Sequence[str]]
"""(text of the path so far, role) -> continuations; a role has equally many of them in every context, in the
same order."""

Script = Callable[[str, str, int, int], str]
"""(policy, text of the path so far, index of the sample, seed of the request) -> what the policy says."""


class FakeEngine:
    """See `engines.base.Engine`. One token a word; no clock, no threads, no global state.

    `choices`: by default the first three words of the vocabulary, each with the role's stop word. `script`
    replaces the drawing (not the training). `nan_losses`, `nan_gradients`: which calls of forward_backward
    and of optim_step, counted from 0, find numbers that are not finite. What is none of the choices has
    probability 1 and no gradient. The optimizer is SGD with `betas[0]` as momentum, so that it has a state to
    restore. `sample` speaks with published weights only.
    """

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
        self.weights: dict[str, Rows] = {BASE: {}}  # a row that is absent is all zeros
        self.served: dict[str, Rows] = {BASE: {}}
        self.versions = {BASE: 0}
        self.frozen: list[str] = []
        # what the kind of a policy allows is checked; its weights are whole in any case
        self.adapters: list[str] = []
        self.optimizers: dict[str, OptimSpec] = {}
        self.momentum: dict[str, Rows] = {}
        self.gradients: dict[str, Rows] = {}
        self.aside: dict[str, dict[str, Rows]] = {}  # policy -> name -> gradient
        self.regions: dict[str, Region] = {}
        self.holds: dict[str, str] = {}  # policy -> region
        self.losses = self.steps = 0  # calls of forward_backward and optim_step

    # ---- words

    def encode(self, text: str) -> tuple[int, ...]:
        self.check_words(text.split(), ())
        return tuple(self.ids[word] for word in text.split())

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> None:
        return None

    def check_words(self, words: Sequence[str], stops: Sequence[str]) -> None:
        if lost := [word for word in [*words, *stops] if word not in self.ids]:
            raise UserError(f"the fake's vocabulary lacks {', '.join(lost)}")

    # ---- policies

    def policies(self) -> dict[str, int]:
        return dict(self.versions)

    def fork(self, src: str, dst: str, kind: Kind = "adapter") -> None:
        if dst in self.versions:
            raise ValueError(f"policy {dst!r} exists already")
        if kind not in get_args(Kind):
            raise ValueError(f"a policy cannot be forked as {kind!r}; known: {', '.join(get_args(Kind))}")
        whole = self._is_whole(src)
        if kind == "adapter" and whole and src != BASE:
            raise ValueError(f"an adapter lies on the base; {src!r} is a whole model of its own")
        self.weights[dst], self.served[dst] = (
            copy.deepcopy(self.weights[src]),
            copy.deepcopy(self.weights[src]),
        )
        self.versions[dst] = 0
        self.frozen += [dst] * (kind == "frozen")
        self.adapters += [dst] * (kind == "adapter" or (kind == "frozen" and not whole))
        if kind == "model" and src in self.optimizers and whole:
            self.prepare(dst, self.optimizers[src])
            self.momentum[dst] = copy.deepcopy(self.momentum[src])

    def assign(self, dst: str, src: str) -> None:
        if self._is_whole(dst) != self._is_whole(src):
            raise ValueError(
                f"{dst!r} and {src!r} are an adapter and a whole model; the weights of one "
                f"cannot become the other's"
            )
        if dst in self.frozen:
            raise ValueError(f"policy {dst!r} is frozen; its weights stay as they are")
        self.weights[dst] = copy.deepcopy(self.weights[src])

    def factor(self, dst: str, start: str) -> float:
        """Here an adapter holds everything: the share is 1."""
        if not self._is_whole(start) or start == BASE:
            raise ValueError(f"the base can become a whole copy of it again; {start!r} is none")
        self.fork(BASE, dst, "adapter")
        self.assign(BASE, start)
        self.publish(BASE)
        return 1.0

    def _is_whole(self, name: str) -> bool:
        if name not in self.versions:
            raise KeyError(f"no policy {name!r}; there are {sorted(self.versions)}")
        return name not in self.adapters

    def drop(self, name: str) -> None:
        if name == BASE or name not in self.versions:
            raise KeyError(f"policy {name!r} cannot be dropped; there are {sorted(self.versions)}")
        for table in (
            self.weights,
            self.served,
            self.versions,
            self.optimizers,
            self.momentum,
            self.gradients,
            self.aside,
            self.holds,
        ):
            table.pop(name, None)
        self.frozen, self.adapters = (
            [n for n in names if n != name] for names in (self.frozen, self.adapters)
        )

    def prepare(self, policy: str, optim: OptimSpec) -> None:
        if policy not in self.versions or policy in self.frozen:
            raise ValueError(
                f"policy {policy!r} cannot train; there are {sorted(self.versions)}, frozen {self.frozen}"
            )
        self.optimizers[policy], self.momentum[policy], self.gradients[policy] = optim, {}, {}

    def release(self, policy: str) -> None:
        self.optimizers.pop(policy, None)
        self.momentum.pop(policy, None)

    def publish(self, policy: str) -> int:
        self.served[policy] = copy.deepcopy(self.weights[policy])
        self.versions[policy] += 1
        return self.versions[policy]

    # ---- sampling

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        return [[self._say(request, i) for i in range(request.n)] for request in requests]

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

    def _forget(self) -> None:
        self.gradients, self.aside = {name: {} for name in self.gradients}, {}

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

    # ---- gradients by objective

    def set_aside(self, policy: str, name: str) -> None:
        mine = self.aside.setdefault(policy, {})
        if name in mine:
            raise ValueError(
                f"a gradient {name!r} of policy {policy!r} is set aside already; combine or forget it first"
            )
        mine[name], self.gradients[policy] = self.gradients.get(policy, {}), {}

    def conflict(self, policy: str, a: str, b: str, part: bool = False) -> dict[str, float]:
        """Logits are all there is: the only group is the head."""
        g, h = self._set_aside(policy, (a, b))
        three = (fake_rows.dot(g, h), fake_rows.dot(g, g), fake_rows.dot(h, h))
        found = vectors.cosine(*(vectors.rest(*three) if part else three))
        return {} if found is None else {"all": found, "head": found}

    def combine(
        self, policy: str, names: Sequence[str], method: str = "sum", seed: int = 0
    ) -> dict[str, Metric]:
        if len(set(names)) != len(names):
            raise ValueError(f"combine needs different names of gradients, not {list(names)}")
        if method not in ("sum", "pcgrad"):
            raise ValueError(f"no way {method!r} to combine gradients; there are sum and pcgrad")
        parts = self._set_aside(policy, names)
        factors, metrics = [1.0] * len(parts), {}
        if method == "pcgrad":
            gram = [[fake_rows.dot(g, h) for h in parts] for g in parts]
            factors, projections = vectors.pcgrad(gram, seed)
            metrics = vectors.report(gram, projections)
        self.gradients[policy] = fake_rows.weighted(parts, factors)
        self.aside.pop(policy, None)
        return metrics

    def forget(self, policy: str) -> None:
        self.gradients[policy] = {}
        self.aside.pop(policy, None)

    def _set_aside(self, policy: str, names: Sequence[str]) -> list[Rows]:
        mine = self.aside.get(policy, {})
        if lost := [name for name in names if name not in mine]:
            raise ValueError(
                f"no gradient {lost[0]!r} of policy {policy!r} was set aside; there are {sorted(mine)}"
            )
        return [mine[name] for name in names]

    # ---- regions

    def find_region(self, name: str, policy: str, start: str, share: float) -> int:
        if not 0 < share <= 1:
            raise ValueError(f"the share of a region is above 0 and at most 1, not {share}")
        self.regions[name] = fake_rows.largest(self.weights[policy], self.weights[start], share)
        return sum(len(indices) for _, indices in self.regions[name].values())

    def random_region(self, name: str, like: str, seed: int) -> int:
        self.regions[name] = fake_rows.drawn(self._region(like), seed)
        return sum(len(indices) for _, indices in self.regions[name].values())

    def overlap(self, a: str, b: str) -> float:
        return fake_rows.overlap(self._region(a), self._region(b))

    def hold(self, policy: str, region: str) -> None:
        self.holds.pop(policy, None)
        if region:
            self._check_trainable(policy)
            self._region(region)
            self.holds[policy] = region
            for role, (_, indices) in self.regions[region].items():
                for j in indices if role in self.momentum.get(policy, {}) else ():
                    self.momentum[policy][role][j] = 0.0

    def transplant(self, dst: str, src: str, region: str) -> None:
        self._check_trainable(dst)
        self.weights[dst] = fake_rows.transplanted(self.weights[dst], self.weights[src], self._region(region))

    def slerp(self, dst: str, src: str, weight: float, outside: str = "") -> None:
        self._check_trainable(dst)
        self.weights[dst] = fake_rows.moved(
            self.weights[dst], self.weights[src], weight, self._region(outside) if outside else {}
        )

    def _region(self, name: str) -> Region:
        if name not in self.regions:
            raise ValueError(f"no region {name!r}; there are {sorted(self.regions)}")
        return self.regions[name]

    def _check_trainable(self, policy: str) -> None:
        if policy in self.frozen or policy not in self.versions:
            raise ValueError(
                f"policy {policy!r} is frozen or unknown; there are {sorted(self.versions)}, "
                f"frozen {self.frozen}"
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

    # ---- files

    def finite(self) -> str:
        trains = {name: rows for name, rows in self.weights.items() if name not in self.frozen}
        return fake_rows.not_finite("the logits", trains) or fake_rows.not_finite(
            "the momentum", self.momentum
        )

    def save(self, directory: Path) -> None:
        state = {
            "weights": self.weights,
            "served": self.served,
            "versions": self.versions,
            "frozen": self.frozen,
            "adapters": self.adapters,
            "optimizers": {name: asdict(spec) for name, spec in self.optimizers.items()},
            "momentum": self.momentum,
            "losses": self.losses,
            "steps": self.steps,
            "regions": self.regions,
            "holds": self.holds,
        }
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "fake.json").write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")

    def load(self, directory: Path) -> None:
        state = json.loads((directory / "fake.json").read_text(encoding="utf-8"))
        specs = {
            name: OptimSpec(**{**spec, "betas": tuple(spec["betas"])})
            for name, spec in state.pop("optimizers").items()
        }
        known = self.versions
        for key, value in state.items():
            setattr(self, key, value)
        self.versions = {k: v if known.get(k, 0) <= v else known[k] + 1 for k, v in self.versions.items()}
        self.optimizers, self.gradients, self.aside = specs, {name: {} for name in specs}, {}

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
