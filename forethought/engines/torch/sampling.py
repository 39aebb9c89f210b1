"""Sampling: contexts are computed once as a packed forest (a shared prompt once, a plan once for all its executions), then all
rows decode together, each context's keys and values kept once however many rows read them.

Every request has its own stream of random numbers (counter-based, keyed by its seed), so a row's tokens do not depend on what
else is in the batch and nothing has to be saved to resume. Log-probs of sampled tokens are those of the policy at temperature 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from forethought.engines.torch.attention import Forest, using
from forethought.engines.torch.caches import Apart, Together, cache, prefix_of
from forethought.engines.torch.decoder import Decoder
from forethought.engines.torch.packing import pack
from forethought.engines.torch.stops import Stops
from forethought.errors import UserError
from forethought.types import Completion, Request, Segment


def forest_of(contexts: Sequence[tuple[int, ...]]) -> tuple[list[Segment], list[list[int]]]:
    """A radix tree over token sequences: (segments, for each context its path of segment indices). Equal contexts share all."""
    segments: list[Segment] = []
    paths: dict[tuple[int, ...], list[int]] = {}

    def grow(members: list[tuple[int, ...]], start: int, parent: int, path: list[int]) -> None:
        groups: dict[int, list[tuple[int, ...]]] = {}
        for c in members:
            if len(c) == start:
                paths[c] = path
            else:
                groups.setdefault(c[start], []).append(c)
        for group in groups.values():
            shortest = min(len(c) for c in group)
            first, end = group[0], start + 1
            while end < shortest and all(c[end] == first[end] for c in group):
                end += 1
            segments.append(Segment(parent=parent, token_ids=first[start:end]))
            here = len(segments) - 1
            if len(group) == 1:
                paths[first] = [*path, here]
            else:
                grow(group, end, here, [*path, here])

    grow(list(dict.fromkeys(contexts)), 0, -1, [])
    return segments, [paths[c] for c in contexts]


class Sampler:
    """Works on any model whose attention is `attention.attend`: `inner` gives hidden states, `head` logits. Where the model has a
    written-out forward (`decoder.py`), that runs instead of `inner`."""

    def __init__(self, inner: Callable, head: Callable, device: torch.device, eos: set[int], decoder: Decoder | None = None):
        self.inner, self.head, self.device, self.eos, self.decoder = inner, head, device, eos, decoder

    @torch.inference_mode()
    def wave(self, requests: Sequence[Request], stops: Sequence[Stops], version: int) -> list[list[Completion]]:
        """Requests with the same `n`, decoded together; each has its own `stops`."""
        n, most = requests[0].n, max(r.max_tokens for r in requests)
        steps, logits_BV = self._prefill(requests, most)
        logits_RV = logits_BV.repeat_interleave(n, 0)
        rows = _Rows(requests, stops, self.eos, most, logits_RV.shape[-1])
        active = np.arange(len(requests))  # contexts still in the cache
        noise_RT = np.concatenate([_uniforms(r, n, most) for r in requests])
        greedy, shape = _shaping(requests, n, self.device)
        for t in range(most):
            live = (active[:, None] * n + np.arange(n)).ravel()
            uniform_R = torch.from_numpy(noise_RT[live, t]).to(self.device)
            at = torch.from_numpy(live).to(self.device) if len(live) < len(noise_RT) else slice(None)
            token_R, logp_R = _choose(logits_RV, uniform_R, greedy[at], shape[at] if shape is not None else None)
            rows.take(t, live, token_R, logp_R)
            going = ~rows.done[live].reshape(-1, n).all(1)
            if not going.any() or t + 1 == most:
                break
            if going.sum() <= 0.7 * len(active):  # finished contexts leave; moving the rest costs less than carrying them
                keep = torch.from_numpy(going.nonzero()[0]).to(self.device)
                steps.keep(keep)
                token_R, active = token_R.view(-1, n)[keep].flatten(), active[going]
            logits_RV = self.head(steps.step(t, token_R)).float()
        return rows.completions(version)

    def _prefill(self, requests: Sequence[Request], most: int) -> tuple[Steps, torch.Tensor]:
        """Every context once, as a forest: (how to go on, the logits after each context)."""
        segments, paths = forest_of([r.context for r in requests])
        packed = pack(segments, self.device)
        captured: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        if self.decoder:
            hidden = self.decoder.hidden(packed.ids_N, packed.positions_N, packed.layout, captured)
        else:
            with using(Forest(packed.layout, captured)):
                hidden = self.inner(input_ids=packed.ids_N[None], position_ids=packed.positions_N[None],
                                    use_cache=False).last_hidden_state[0]
        index = [[packed.starts[s] + i for s in path for i in range(len(segments[s].token_ids))] for path in paths]
        longest = max(map(len, index))
        index_BP = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in index], device=self.device)
        lengths_B = torch.tensor([len(tokens) for tokens in index], device=self.device)
        bias_B11P = None
        if min(map(len, index)) < longest:
            hole = torch.arange(longest, device=self.device)[None] >= lengths_B[:, None]
            bias_B11P = torch.zeros(hole.shape, device=self.device).masked_fill(hole, float("-inf"))[:, None, None]
        kept = cache(requests[0].n, prefix_of(captured, index_BP), bias_B11P, most)
        last_B = lengths_B + torch.tensor([r.max_tokens - 1 for r in requests], device=self.device)
        run = self.decoder.steps(kept, int(last_B.max())) if self.decoder else _modules(self.inner, kept)
        ends = torch.tensor([tokens[-1] for tokens in index], device=self.device)
        return Steps(run, kept, lengths_B, last_B), self.head(hidden[ends]).float()


class Steps:
    """One token a row at a time. `run(token_R, at_R)` gives hidden states [R, H] and keeps keys and values in `cache`."""

    def __init__(self, run: Callable, cache: Apart | Together, lengths_B: torch.Tensor, last_B: torch.Tensor):
        self._run, self._cache, self._lengths_B, self._last_B = run, cache, lengths_B, last_B

    def keep(self, contexts: torch.Tensor) -> None:
        self._cache.keep(contexts)
        self._lengths_B, self._last_B = self._lengths_B[contexts], self._last_B[contexts]

    def step(self, t: int, token_R: torch.Tensor) -> torch.Tensor:
        self._cache.t = t
        at_B = torch.minimum(self._lengths_B + t, self._last_B)  # rows that are done may not run out of the model's positions
        return self._run(token_R, at_B.repeat_interleave(self._cache.n))


def _modules(inner: Callable, kept: Apart | Together) -> Callable:
    def run(token_R: torch.Tensor, at_R: torch.Tensor) -> torch.Tensor:
        with using(kept):
            return inner(input_ids=token_R[:, None], position_ids=at_R[:, None], use_cache=False).last_hidden_state[:, 0]

    return run


class _Rows:
    """All completions in the making, as arrays: what a step costs in Python does not grow with the rows."""

    def __init__(self, requests: Sequence[Request], stops: Sequence[Stops], eos: set[int], most: int, vocabulary: int):
        n = requests[0].n
        self.requests, self.n = requests, n
        self.tokens = np.zeros((len(requests) * n, most), dtype=np.int64)
        self.logps = np.zeros(self.tokens.shape, dtype=np.float32)
        self.length = np.zeros(len(self.tokens), dtype=np.int64)
        self.done, self.finished = np.zeros(len(self.tokens), dtype=bool), np.zeros(len(self.tokens), dtype=bool)
        self.most = np.repeat([r.max_tokens for r in requests], n)
        kinds = list({id(s): s for s in stops}.values())
        self.kind = np.repeat([next(i for i, kind in enumerate(kinds) if kind is s) for s in stops], n)
        self.ends = np.zeros((len(kinds), vocabulary), dtype=bool)
        for i, kind in enumerate(kinds):
            self.ends[i, [token for token in kind.ids | eos if token < vocabulary]] = True
        self.texts = [kind if kind.texts else None for kind in kinds]

    def take(self, t: int, live: np.ndarray, token_R: torch.Tensor, logp_R: torch.Tensor) -> None:
        token, logp = token_R.cpu().numpy(), logp_R.cpu().numpy()
        open_ = ~self.done[live]
        rows, token, logp = live[open_], token[open_], logp[open_]
        if np.isnan(logp).any():
            policy = self.requests[rows[np.isnan(logp)][0] // self.n].policy
            raise UserError(f"policy {policy!r} gives logits that are not finite: its weights have diverged; lower the learning rate, and "
                            "go on from an earlier checkpoint")
        self.tokens[rows, t], self.logps[rows, t], self.length[rows] = token, logp, t + 1
        ended = self.ends[self.kind[rows], token]
        for i in (~ended).nonzero()[0] if any(self.texts) else ():
            kind = self.texts[self.kind[rows[i]]]
            ended[i] = kind is not None and kind.found(self.tokens[rows[i], : t + 1].tolist())
        self.finished[rows] = ended
        self.done[rows] = ended | (self.most[rows] == t + 1)

    def completions(self, version: int) -> list[list[Completion]]:
        out = [Completion(token_ids=tuple(tokens[:size]), logprobs=tuple(logps[:size]), status="finished" if finished else "truncated",
                          version=version)
               for tokens, logps, size, finished in zip(self.tokens.tolist(), self.logps.tolist(), self.length.tolist(), self.finished,
                                                        strict=True)]
        return [out[i : i + self.n] for i in range(0, len(out), self.n)]


def _uniforms(request: Request, n: int, most: int) -> np.ndarray:
    """[n, most] uniform numbers that depend on the request alone (drawn step by step, so `most` changes none of them)."""
    return np.random.Generator(np.random.Philox(key=[request.seed, n])).random((most, n)).T


def _shaping(requests: Sequence[Request], n: int, device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(greedy rows, [rows, 2] of temperature and top-p, or None where every row samples plainly)."""
    greedy = torch.tensor([r.temperature == 0 for r in requests], device=device).repeat_interleave(n)
    if all(r.temperature in (0, 1) and r.top_p == 1 for r in requests):
        return greedy, None
    shape = torch.tensor([[r.temperature or 1.0, r.top_p] for r in requests], device=device)
    return greedy, shape.repeat_interleave(n, 0)


def _choose(logits_RV: torch.Tensor, uniform_R: torch.Tensor, greedy_R: torch.Tensor, shape_R2: torch.Tensor | None):
    """Inverse-CDF sampling with the row's own uniform number; greedy rows take the mode."""
    logp_RV = logits_RV.log_softmax(-1)
    if greedy_R.all():
        best = logp_RV.max(-1)
        return best.indices, best.values
    p_RV = logp_RV.exp()
    if shape_R2 is not None:
        p_RV = (logits_RV / shape_R2[:, :1]).softmax(-1)
        ordered, order = p_RV.sort(-1, descending=True)
        cut = ordered.cumsum(-1) - ordered >= shape_R2[:, 1:]  # the first token always stays
        p_RV = torch.zeros_like(p_RV).scatter(-1, order, ordered.masked_fill(cut, 0))
    cdf_RV = p_RV.double().cumsum(-1)
    target = (uniform_R[:, None] * cdf_RV[:, -1:]).contiguous()
    drawn_R = torch.searchsorted(cdf_RV, target, right=True)[:, 0].clamp(max=logits_RV.shape[-1] - 1)
    token_R = torch.where(greedy_R, logits_RV.argmax(-1), drawn_R) if greedy_R.any() else drawn_R
    return token_R, logp_RV.gather(-1, token_R[:, None])[:, 0]
