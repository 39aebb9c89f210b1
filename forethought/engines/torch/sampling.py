"""Sampling: contexts are computed once as a packed forest (a shared prompt once, a plan once for all its executions), then all
rows decode together, each context's keys and values kept once however many rows read them.

Every request has its own stream of random numbers (counter-based, keyed by its seed), so a row's tokens do not depend on what
else is in the batch and nothing has to be saved to resume. Log-probs of sampled tokens are those of the policy at temperature 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from forethought.engines.torch.attention import Decode, Forest, using
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
    """Works on any model whose attention is `attention.attend`. `inner` gives hidden states, `head` logits."""

    def __init__(self, inner: Callable, head: Callable, device: torch.device, layers: int, eos: set[int]):
        self.inner, self.head, self.device, self.layers, self.eos = inner, head, device, layers, eos

    @torch.inference_mode()
    def wave(self, requests: Sequence[Request], stops: Sequence[Stops], version: int) -> list[list[Completion]]:
        """Requests with the same `n`, decoded together; each has its own `stops`."""
        n = requests[0].n
        logits_BV, state, lengths_B = self._prefill(requests)
        rows = [_Row(r, j) for r in requests for j in range(n)]
        logits_RV = logits_BV.repeat_interleave(n, 0)
        ends = [s.ids | self.eos for s in stops]
        active = list(range(len(requests)))  # contexts still in the state
        last_B = lengths_B + torch.tensor([r.max_tokens - 1 for r in requests], device=self.device)
        most = max(r.max_tokens for r in requests)
        noise_RT = np.concatenate([_uniforms(r, n, most) for r in requests])
        greedy, shape = _shaping(requests, n, self.device)
        for t in range(most):
            live = [b * n + j for b in active for j in range(n)]
            token_R, logp_R = _choose(logits_RV, torch.from_numpy(noise_RT[live, t]).to(self.device), greedy[live],
                                      shape[live] if shape is not None else None)
            for row, token, logp in zip(live, token_R.tolist(), logp_R.tolist(), strict=True):
                rows[row].take(token, logp, ends[row // n], stops[row // n].found)
            still = [i for i, b in enumerate(active) if not all(rows[b * n + j].done for j in range(n))]
            if not still or t + 1 == most:
                break
            if len(still) <= 0.7 * len(active):  # finished contexts leave; moving the rest costs less than carrying them
                keep = torch.tensor(still, device=self.device)
                state.keep(keep)
                token_R = token_R.view(-1, n)[keep].flatten()
                lengths_B, last_B = lengths_B[keep], last_B[keep]
                active = [active[i] for i in still]
            state.t = t
            with using(state):
                at_B = torch.minimum(lengths_B + t, last_B)  # rows that are done may not run out of the model's positions
                hidden = self.inner(input_ids=token_R[:, None], position_ids=at_B.repeat_interleave(n)[:, None],
                                    use_cache=False).last_hidden_state
            logits_RV = self.head(hidden[:, 0]).float()
        return [[rows[b * n + j].completion(version) for j in range(n)] for b in range(len(requests))]

    def _prefill(self, requests: Sequence[Request]) -> tuple[torch.Tensor, Decode, torch.Tensor]:
        segments, paths = forest_of([r.context for r in requests])
        packed = pack(segments, self.device)
        capture: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        with using(Forest(packed.layout, capture)):
            hidden = self.inner(input_ids=packed.ids_N[None], position_ids=packed.positions_N[None],
                                use_cache=False).last_hidden_state[0]
        lengths = [len(r.context) for r in requests]
        longest = max(lengths)
        index = [
            [packed.starts[s] + i for s in path for i in range(len(segments[s].token_ids))] for path in paths
        ]
        last = torch.tensor([tokens[-1] for tokens in index], device=self.device)
        index_BP = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in index], device=self.device)
        lengths_B = torch.tensor(lengths, device=self.device)
        bias_B11P = None
        if min(lengths) < longest:
            hole = torch.arange(longest, device=self.device)[None] >= lengths_B[:, None]
            bias_B11P = torch.zeros(hole.shape, device=self.device).masked_fill(hole, float("-inf"))[:, None, None]
        # In the order in which every step reads them: each product would otherwise move them there first.
        prefix = {layer: tuple(F.embedding(index_BP, x.flatten(1)).unflatten(-1, x.shape[1:]).transpose(1, 2).contiguous() for x in kv)
                  for layer, kv in capture.items()}
        state = Decode(n=requests[0].n, prefix=prefix, bias_B11P=bias_B11P, room=max(r.max_tokens for r in requests))
        return self.head(hidden[last]).float(), state, lengths_B


class _Row:
    """One completion in the making."""

    __slots__ = ("request", "tokens", "logps", "done", "status")

    def __init__(self, request: Request, member: int):
        self.request, self.tokens, self.logps, self.done, self.status = request, [], [], False, "truncated"

    def take(self, token: int, logp: float, ends: set[int], found: Callable[[list[int]], bool]) -> None:
        if self.done:
            return
        if math.isnan(logp):
            raise UserError(f"policy {self.request.policy!r} gives logits that are not finite: its weights have diverged; lower the "
                            "learning rate, and go on from an earlier checkpoint")
        self.tokens.append(token)
        self.logps.append(logp)
        if token in ends or found(self.tokens):
            self.status, self.done = "finished", True
        elif len(self.tokens) == self.request.max_tokens:
            self.done = True

    def completion(self, version: int) -> Completion:
        return Completion(token_ids=tuple(self.tokens), logprobs=tuple(self.logps), status=self.status, version=version)


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
    p_RV = logp_RV.exp()
    if shape_R2 is not None:
        p_RV = (logits_RV / shape_R2[:, :1]).softmax(-1)
        ordered, order = p_RV.sort(-1, descending=True)
        cut = ordered.cumsum(-1) - ordered >= shape_R2[:, 1:]  # the first token always stays
        p_RV = torch.zeros_like(p_RV).scatter(-1, order, ordered.masked_fill(cut, 0))
    cdf_RV = p_RV.double().cumsum(-1)
    target = (uniform_R[:, None] * cdf_RV[:, -1:]).contiguous()
    drawn_R = torch.searchsorted(cdf_RV, target, right=True)[:, 0].clamp(max=logits_RV.shape[-1] - 1)
    token_R = torch.where(greedy_R, logits_RV.argmax(-1), drawn_R)
    return token_R, logp_RV.gather(-1, token_R[:, None])[:, 0]
