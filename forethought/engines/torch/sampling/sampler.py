"""Sampling with continuous batching: contexts enter as long as there is room, all rows in the making take a
token together, and each leaves when it has ended.

How a token is computed is `steps`' affair: by the kernels (`native/`) on a CPU, else by PyTorch
(`cohorts.py`; on a GPU `slots.py`). All compute a context once, however many rows stand below it; rows of
several policies are in the making together (`routes.py`). Every request has its own stream of random numbers
(counter-based, keyed by its seed), so a row's tokens do not depend on what else is in the batch, and nothing
has to be saved to resume.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from forethought.core import waiting as waiting_for
from forethought.core.errors import Diverged
from forethought.core.types import Completion, Request
from forethought.engines.base import BASE
from forethought.engines.torch.forest.absent import DrawnWords
from forethought.engines.torch.forest.activations import Activations, ByPolicy
from forethought.engines.torch.forest.decoder import Decoder, decoder_of
from forethought.engines.torch.forest.native.rows import Settings
from forethought.engines.torch.forest.native.steps import NativeSteps
from forethought.engines.torch.forest.native.weights import Weights, angles_of, runs
from forethought.engines.torch.forest.paths import Paths, PolicyPaths
from forethought.engines.torch.sampling.choice import Choice
from forethought.engines.torch.sampling.routes import Routes
from forethought.engines.torch.sampling.slots import by_torch
from forethought.engines.torch.sampling.stops import Stops

ENTER_TOKENS = 32_768  # of contexts that enter together


class Steps(Protocol):
    """Rows in the order in which they entered."""

    def enter(
        self, contexts: Sequence[tuple[int, ...]], n: Sequence[int], room: Sequence[int]
    ) -> torch.Tensor:
        """n[i] rows of at most room[i] tokens below each context: the logits [contexts, V] after each."""

    def step(self, token_R: np.ndarray) -> torch.Tensor:
        """The next token of each row: the logits [R, V] after it."""

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows (a mask) alone."""


@dataclass(slots=True)
class _Read:
    """A policy's weights as they were when it was last sampled from, and as the kernels read them."""

    model: torch.nn.Module
    tensors: list[torch.Tensor]
    places: list[int]
    versions: list[int]
    weights: Weights | None = None


class KernelWeights:
    """The weights of each policy as the kernels read them, and the paths that were sampled with them: both
    are brought up to date when weights have moved. `left`: what was sampled for an update leaves its
    activations there."""

    def __init__(self, paths: Paths | None = None, left: ByPolicy | None = None):
        self.paths, self.left = paths or Paths(0), left or ByPolicy(0)
        self.named: set[str] = set()  # policies that somebody has sampled from
        self._seen: dict[str, _Read] = {}
        self._angles: tuple[int, tuple[torch.Tensor, torch.Tensor]] = (0, ())

    def steps(
        self,
        policy: str,
        model: torch.nn.Module,
        bf16: bool,
        threads: int,
        context: int,
        update: int | None = None,
    ) -> Steps:
        """The fastest way to sample from `model`, which speaks for `policy`, here, in paths of at most
        `context` tokens. `update`: the number of the one that learns from what is said; None: none does."""
        decoder = decoder_of(model)
        if not runs(decoder, model):
            return by_torch(model, decoder, kept={"": self.kept(policy, model)})
        seen, moved = self._look(policy, model)
        if seen.weights is None or (moved and not seen.weights.refresh()):
            self._reach(decoder, context)
            seen.weights = Weights(decoder, model, bf16, self._angles[1])
        if seen.weights.positions < context:
            self._reach(decoder, context)
            seen.weights.turn(self._angles[1])
        read = update is not None and decoder.trains_by_kernels()
        left = self.left.begun(policy, update) if read else None
        return NativeSteps(seen.weights, threads, PolicyPaths(self.paths, policy), left)

    def left_by(self, policy: str) -> Activations | None:
        """What was sampled from a policy has left, unless its weights have moved since."""
        seen = self._seen.get(policy)
        if seen is None or seen.versions != [p._version for p in seen.tensors]:
            return None
        return self.left.of(policy)

    def kept(self, policy: str, model: torch.nn.Module) -> PolicyPaths:
        """The paths of a policy, of which `model` holds all weights; none where one of these has moved."""
        self._look(policy, model)
        return PolicyPaths(self.paths, policy)

    def _look(self, policy: str, model: torch.nn.Module) -> tuple[_Read, bool]:
        """The policy's weights, and whether they have moved since they were last looked at."""
        seen = self._seen.get(policy)
        tensors = seen.tensors if seen and seen.model is model else _weights_of(policy, model)
        places, versions = [p.data_ptr() for p in tensors], [p._version for p in tensors]
        if not seen or seen.model is not model or seen.places != places:
            seen = self._seen[policy] = _Read(model, tensors, places, [])
        moved = seen.versions != versions
        if moved:
            self.paths.drop(policy)
            self.left.drop(policy)
        seen.versions = versions
        return seen, moved

    def _reach(self, decoder: Decoder, context: int) -> None:
        """Angles of so many positions; a position's do not depend on how many there are."""
        if self._angles[0] < context:
            self._angles = (context, angles_of(decoder, context))

    def moved(self, policy: str) -> None:
        """To be told after an optimizer's step: PyTorch's fused ones do not count it in a tensor's version,
        as every other change does."""
        for name in [policy] if policy != BASE else list(self._seen):  # adapters stand on the base
            if name in self._seen:
                self._seen[name].versions = []
                self.left.drop(name)

    def forget(self) -> None:
        """What was kept of what was sampled, to have its memory."""
        self.paths.clear()
        self.left.clear()

    def drop(self, policy: str) -> None:
        """Forget a policy that is gone."""
        self._seen.pop(policy, None)
        self.paths.drop(policy)
        self.left.drop(policy)


def _weights_of(policy: str, model: torch.nn.Module) -> list[torch.Tensor]:
    """Without the adapters of others."""
    own = re.compile(rf"\.lora_\w+\.{re.escape(policy)}(\.|$)")
    return [p for name, p in model.named_parameters() if "lora_" not in name or own.search(name)]


class Sampler:
    """`eos`: tokens that end any row. `rows`: most rows in the making at once. `drawn`: words that a row says
    only where they stand in its context."""

    def __init__(
        self, steps: Steps | Routes, eos: set[int], rows: int = 1024, drawn: DrawnWords | None = None
    ):
        self.steps, self.eos, self.rows, self.drawn = steps, eos, rows, drawn

    @torch.inference_mode()
    def run(
        self, requests: Sequence[Request], stops: Sequence[Stops], version: int | Mapping[str, int]
    ) -> list[list[Completion]]:
        """Each request's completions; each has its own `stops`. `version`: of the weights, or of each
        policy's."""
        rows, live = _Rows(requests, stops, self.eos, self.drawn), np.zeros(0, dtype=np.int64)
        # neighbours share most
        waiting = deque(sorted(range(len(requests)), key=lambda i: (requests[i].n, requests[i].context)))
        while waiting or len(live):
            if len(live) and rows.by_ids and getattr(self.steps, "advances", False):
                self.steps.advance(rows, live, self._few(waiting, requests))
                rows.check(live)
            elif len(live):
                rows.take(live, self.steps.step(rows.last(live)))
            if entering := self._entering(waiting, requests, len(live)):
                # contexts of one policy are computed together
                entering.sort(key=lambda i: requests[i].policy)
                asked = [requests[i] for i in entering]
                logits_BV = self._enter(asked)
                new = np.concatenate([rows.of(i) for i in entering])
                rows.take(new, logits_BV, np.array([r.n for r in asked]))
                live = np.concatenate([live, new])
            if waiting_for.heard():
                waiting_for.tell(*rows.far())
            going = ~rows.done[live]
            if not going.all():
                if hasattr(self.steps, "end"):
                    self.steps.end(rows, live)
                self.steps.keep(going)
                live = live[going]
        return rows.completions(version)

    def _enter(self, asked: Sequence[Request]) -> torch.Tensor:
        given = [r.context for r in asked], [r.n for r in asked], [r.max_tokens for r in asked]
        return (
            self.steps.enter(*given, [r.policy for r in asked])
            if isinstance(self.steps, Routes)
            else self.steps.enter(*given)
        )

    def _few(self, waiting: deque[int], requests: Sequence[Request]) -> int:
        """Rows at which others can enter beside them."""
        return max(0, self.rows - max(requests[waiting[0]].n, self.rows // 8)) if waiting else 0

    def _entering(self, waiting: deque[int], requests: Sequence[Request], live: int) -> list[int]:
        """Who fits beside the live rows. Not one by one: contexts are computed faster together."""
        out: list[int] = []
        if waiting and live > self._few(waiting, requests):
            return out
        tokens = 0
        while waiting and (not live or live + requests[waiting[0]].n <= self.rows) and tokens < ENTER_TOKENS:
            i = waiting.popleft()
            out.append(i)
            live += requests[i].n
            tokens += len(requests[i].context)
        return out


class _Rows:
    """All completions in the making, as arrays: what a step costs in Python does not grow with the rows."""

    def __init__(
        self, requests: Sequence[Request], stops: Sequence[Stops], eos: set[int], drawn: DrawnWords | None
    ):
        self.requests, self.choice = requests, Choice()
        n, most = np.array([r.n for r in requests]), max(r.max_tokens for r in requests)
        self.ends = n.cumsum()
        total = int(self.ends[-1])
        self.request = np.repeat(np.arange(len(requests)), n)
        self.tokens = np.zeros((total, most), dtype=np.int64)
        self.logps, self.drawn_logps = (np.zeros(self.tokens.shape, dtype=np.float32) for _ in range(2))
        self.length = np.zeros(total, dtype=np.int64)
        self.done, self.finished = np.zeros(total, dtype=bool), np.zeros(total, dtype=bool)
        self.most = np.array([r.max_tokens for r in requests])[self.request]
        self.noise = np.ascontiguousarray(np.concatenate([_uniforms(r, r.n, most) for r in requests]))
        self.settings = Settings(*(x[self.request] for x in _settings(requests)))
        self.context = np.array([len(r.context) for r in requests])[self.request]
        self.words = drawn
        self.drawn, self.absent = np.zeros(0, dtype=np.int32), np.zeros((total, 0), dtype=bool)
        if drawn is not None:  # what a row says stands in its context already
            self.drawn = drawn.ids_S
            self.absent = np.stack([~drawn.standing(r.context) for r in requests])[self.request]
        kinds = list({id(s): s for s in stops}.values())
        self.kind = np.array([next(i for i, kind in enumerate(kinds) if kind is s) for s in stops])[
            self.request
        ]
        self.ending = [sorted(kind.ids | eos) for kind in kinds]
        # whether a token ends a row of this kind, once the vocabulary is known
        self.ends_KV: np.ndarray | None = None
        self.texts = [kind if kind.texts else None for kind in kinds]
        self.by_ids = not any(self.texts)  # whether single tokens say when a row ends

    def of(self, request: int) -> np.ndarray:
        return np.arange(self.ends[request] - self.requests[request].n, self.ends[request])

    def far(self) -> tuple[int, int]:
        """(tokens so far, the most that they can be): what a row that is done has not used counts as done,
        so that rows which end together are not told of at their end alone."""
        return int(np.where(self.done, self.most, self.length).sum()), int(self.most.sum())

    def last(self, rows: np.ndarray) -> np.ndarray:
        """The token that each row got last."""
        return self.tokens[rows, self.length[rows] - 1]

    def take(self, rows: np.ndarray, logits: torch.Tensor, repeats: np.ndarray | None = None) -> None:
        """Draw each row's next token. `repeats`: how many rows each line of the logits is for."""
        t = self.length[rows]
        if self.words is not None:
            lines = rows if repeats is None else rows[np.cumsum(repeats) - repeats]
            self.words.hide(logits, torch.from_numpy(self.absent[lines]).to(logits.device))
        token, logp, drawn_logp = self.choice(
            logits, repeats, self.noise[rows, t], Settings(*(x[rows] for x in self.settings))
        )
        self.tokens[rows, t], self.logps[rows, t], self.drawn_logps[rows, t] = token, logp, drawn_logp
        self.length[rows] = t + 1
        self.check(rows)
        ended = self._ended(rows, token, logits.shape[-1])
        self.finished[rows] = ended
        self.done[rows] = ended | (self.most[rows] == t + 1)

    def check(self, rows: np.ndarray) -> None:
        """Diverged where a row's last token came from logits that are not finite."""
        bad = rows[np.isnan(self.logps[rows, self.length[rows] - 1])]
        if len(bad):
            policy = self.requests[self.request[bad[0]]].policy
            raise Diverged(f"policy {policy!r} gives logits that are not finite")

    def _ended(self, rows: np.ndarray, token: np.ndarray, vocabulary: int) -> np.ndarray:
        if self.ends_KV is None:
            self.ends_KV = np.zeros((len(self.ending), vocabulary), dtype=bool)
            for own, ids in zip(self.ends_KV, self.ending, strict=True):
                own[[i for i in ids if i < vocabulary]] = True
        ended = self.ends_KV[self.kind[rows], token]
        for i in () if self.by_ids else (~ended).nonzero()[0]:
            text = self.texts[self.kind[rows[i]]]
            ended[i] = text is not None and text.found(self.tokens[rows[i], : self.length[rows[i]]].tolist())
        return ended

    def completions(self, version: int | Mapping[str, int]) -> list[list[Completion]]:
        versions = [version if isinstance(version, int) else version[r.policy] for r in self.requests]
        out = [
            Completion(
                token_ids=tuple(tokens[:size]),
                logprobs=tuple(logps[:size]),
                drawn_logprobs=tuple(drawn[:size]),
                status="finished" if finished else "truncated",
                version=versions[request],
            )
            for tokens, logps, drawn, size, finished, request in zip(
                self.tokens.tolist(),
                self.logps.tolist(),
                self.drawn_logps.tolist(),
                self.length.tolist(),
                self.finished,
                self.request.tolist(),
                strict=True,
            )
        ]
        return [out[end - r.n : end] for end, r in zip(self.ends, self.requests, strict=True)]


def _settings(requests: Sequence[Request]) -> Settings:
    of = lambda name: np.array([getattr(r, name) for r in requests], dtype=np.float32)  # noqa: E731
    top_k = np.array([min(r.top_k, np.iinfo(np.int64).max) for r in requests], dtype=np.int64)
    return Settings(of("temperature"), of("top_p"), of("min_p"), top_k)


def _uniforms(request: Request, n: int, most: int) -> np.ndarray:
    """[n, most] uniform numbers that depend on the request alone (drawn step by step, so `most` changes none
    of them)."""
    return np.random.Generator(np.random.Philox(key=[request.seed, n])).random((most, n)).T
