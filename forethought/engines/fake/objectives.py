"""The fake engine's losses: the library's own rows, on numbers whose gradients can be worked out by hand.

The first token of a turn carries all of its log-probability; the others are certain. So a turn has one leaf,
and its gradient on the logits of its role is (slope by that leaf) x ([j = k] - p_j), or (p_j - q_j) where
whole distributions are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from forethought.core.metrics import Mean, Metric, Sum, merge
from forethought.core.types import Batch, Objective, Segment, Term
from forethought.engines.base import UpdateRefused
from forethought.engines.fake.numbers import Numbers
from forethought.engines.fake.rows import entropy, kl
from forethought.learn.losses.terms import measure, needs, split


class Said(NamedTuple):
    """What a policy makes of the tokens of a segment."""

    k: int | None  # which of its choices they are, or begin
    p: list[float]  # the probabilities of all choices
    logprobs: tuple[float, ...]


Say = Callable[[str, int], Said]
"""(policy, segment of the batch) -> what the policy makes of it."""


class Tokens:
    """See `learn.losses.row.Tokens`. `at`: the segments, by their place in the batch."""

    def __init__(self, batch: Batch, at: Sequence[int], term: Term, leaf: Numbers):
        self.segments = [(i, batch.segments[i]) for i in at]
        self.term, self.logp, self.kl = term, leaf, leaf

    @cached_property
    def weight(self) -> Numbers:
        """Share of the loss that each token carries; 0 where the term needs a reference and there is none."""
        known = lambda s: bool(s.ref_logprobs) or not needs(self.term, "ref")  # noqa: E731
        return Numbers([w * known(s) for _, s in self.segments for w in s.weight])

    @cached_property
    def advantage(self) -> Numbers:
        """Advantage of each token, as credit gave it."""
        return self._field("advantage")

    @cached_property
    def ref(self) -> Numbers:
        """Log-probs under the reference policy."""
        return self._field("ref_logprobs")

    @cached_property
    def old(self) -> Numbers:
        """Log-probs at sampling time; where a segment has none, today's, so that the ratio is 1."""
        new = iter(self.logp.values)
        own = [(s, [next(new) for _ in s.token_ids]) for _, s in self.segments]
        return Numbers([x for s, found in own for x in s.old_logprobs or found])

    def mean(self, x: Numbers) -> Numbers:
        """Mean of `x` over the weighted tokens of each sequence, laid out by token again."""
        names, groups = self._sequences()
        means = {}
        for name, own in groups.items():
            means[name] = Numbers([x.values[n] for n in own], [x.slopes[n] for n in own]).sum() / len(own)
        zero = Numbers([0.0])
        found = [means.get(name, zero) for name in names]
        return Numbers([m.values[0] for m in found], [m.slopes[0] for m in found])

    def size(self) -> Numbers:
        """How many weighted tokens the sequence of each token has."""
        names, groups = self._sequences()
        return Numbers([float(len(groups.get(name, ()))) for name in names])

    def _sequences(self) -> tuple[list[tuple[int, int]], dict[tuple[int, int], list[int]]]:
        """(the sequence of each token; the weighted tokens of each sequence)."""
        groups: dict[tuple[int, int], list[int]] = {}
        names = [(s.sequence, -1 if s.sequence >= 0 else i) for i, s in self.segments for _ in s.token_ids]
        for n, name in enumerate(names):
            if self.weight.values[n]:
                groups.setdefault(name, []).append(n)
        return names, groups

    def of_role(self, role: str) -> Numbers:
        """1.0 for tokens of `role`, else 0.0."""
        return Numbers([float(s.role == role) for _, s in self.segments for _ in s.token_ids])

    def roles(self) -> list[str]:
        """Roles that occur, sorted."""
        return sorted({s.role for _, s in self.segments if s.role})

    def _field(self, name: str) -> Numbers:
        return Numbers([x for _, s in self.segments for x in getattr(s, name) or (0.0,) * len(s.token_ids)])


def gradient_of(
    batch: Batch, objective: Objective, say: Say
) -> tuple[list[tuple[str, list[float]]], dict[str, Metric]]:
    """(for each turn that trains, its role and gradient on the role's logits; metrics). ValueError as
    `learn.losses.terms.split`, UpdateRefused where the loss is not finite."""
    trained = [i for i, s in enumerate(batch.segments) if s.stream]
    given, whole = split(objective, batch.policy, {batch.segments[i].stream for i in trained})
    said = {i: say(batch.policy, i) for i in trained}
    gradients: list[tuple[str, list[float]]] = []
    parts: list[dict[str, Metric]] = [_counts(batch)]
    for term in [*given, *whole]:
        at = [i for i in trained if batch.segments[i].stream == term.stream]
        against = {i: say(term.reference, i).p for i in at} if term in whole else {}
        leaf = _leaves(batch.segments, at, said, against)
        total, metrics = measure(term, Tokens(batch, at, term, leaf))
        if not math.isfinite(total.item()):
            raise UpdateRefused(f"the loss of policy {batch.policy!r} is {total.item()}")
        parts.append(metrics)
        for i, slope in total.slopes[0].items():
            k, p, _ = said[i]
            scale = term.weight / term.denominator * slope
            q = against.get(i)
            moves = [p_j - q[j] if q else (j == k) - p_j for j, p_j in enumerate(p)]
            gradients.append((batch.segments[i].role, [scale * move for move in moves]))
    main = {term.stream for term in given if term is objective.terms[0]}
    own = [i for i in trained if batch.segments[i].stream in main]
    parts += [_entropy(batch.segments[i], said[i]) for i in own]
    return gradients, merge(parts)


def _leaves(
    segments: Sequence[Segment], at: Sequence[int], said: dict[int, Said], against: dict[int, list[float]]
) -> Numbers:
    """Log-probs (or, where there is a reference, KL) of the tokens of some segments; the first token of each
    is its leaf, unless it says none of the choices."""
    values, slopes = [], []
    for i in at:
        k, p, logprobs = said[i]
        rest = len(segments[i].token_ids) - 1
        first = kl(against[i], p) * (k is not None) if against else logprobs[0]
        values += [first, *([0.0] * rest if against else logprobs[1:])]
        slopes += [{i: 1.0} if k is not None else {}, *[{}] * rest]
    return Numbers(values, slopes)


def _entropy(s: Segment, said: Said) -> dict[str, Metric]:
    return {f"entropy/{s.role}": Mean(entropy(said.p) if said.k is not None else 0.0, len(s.token_ids))}


def _counts(batch: Batch) -> dict[str, Metric]:
    trained = [s for s in batch.segments if s.stream]
    return {
        "tokens/trained": Sum(sum(w != 0 for s in trained for w in s.weight)),
        "tokens/forward": Sum(sum(len(s.token_ids) for s in batch.segments)),
    }
