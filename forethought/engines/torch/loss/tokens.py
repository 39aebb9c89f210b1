"""What the segments of a batch say of its tokens, as flat float32 tensors: what a loss sees
(`learn.losses.row.Tokens`).

Axes: _N tokens, _S sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate

import torch

from forethought.core.types import Segment, Term
from forethought.learn.losses.terms import needs

Spans = Sequence[tuple[int, int, int]]  # (segment, first of N, count)


class Tokens:
    """The tokens of `spans`, with their log-probs. `kl`: where a term compares whole distributions. `known`:
    a field without which the tokens of a segment weigh nothing."""

    def __init__(
        self,
        segments: Sequence[Segment],
        spans: Spans,
        logp_N: torch.Tensor,
        kl_N: torch.Tensor | None = None,
        known: str = "",
    ):
        self.segments, self.spans, self.logp, self.kl, self.known = segments, spans, logp_N, kl_N, known
        self._sizes = torch.tensor([n for _, _, n in spans], device=logp_N.device)

    @cached_property
    def weight(self) -> torch.Tensor:
        """Share of the loss that each token carries; 0 where what the term needs (`known`) is missing."""
        weight_N = self._field("weight")
        return weight_N * self.where(lambda s: getattr(s, self.known)) if self.known else weight_N

    @cached_property
    def advantage(self) -> torch.Tensor:
        """Advantage of each token, as credit gave it."""
        return self._field("advantage")

    @cached_property
    def ref(self) -> torch.Tensor:
        """Log-probs under the reference policy; 0 where a segment has none."""
        return self._field("ref_logprobs")

    @cached_property
    def old(self) -> torch.Tensor:
        """Log-probs at sampling time; where a segment has none, today's, so that the ratio is 1."""
        known_N = self.where(lambda s: s.old_logprobs)
        return torch.where(known_N > 0, self._field("old_logprobs"), self.logp.detach())

    def mean(self, x_N: torch.Tensor) -> torch.Tensor:
        """Mean of `x_N` over the weighted tokens of each sequence, laid out by token again (N -> N)."""
        counts_N = (self.weight != 0).to(x_N.dtype)
        sums_S = x_N.new_zeros(self._sequences[1]).index_add(0, self._sequences[0], x_N * counts_N)
        counts_S = x_N.new_zeros(self._sequences[1]).index_add(0, self._sequences[0], counts_N)
        return (sums_S / counts_S.clamp(min=1.0))[self._sequences[0]]

    def size(self) -> torch.Tensor:
        """How many weighted tokens the sequence of each token has (N)."""
        counts_N = (self.weight != 0).to(self.logp.dtype)
        counts_S = counts_N.new_zeros(self._sequences[1]).index_add(0, self._sequences[0], counts_N)
        return counts_S[self._sequences[0]]

    def of_role(self, role: str) -> torch.Tensor:
        """1.0 for tokens of `role`, else 0.0."""
        return self.where(lambda s: s.role == role)

    def roles(self) -> list[str]:
        """Roles that occur, sorted."""
        return sorted({self.segments[i].role for i, _, _ in self.spans if self.segments[i].role})

    def of(self, term: Term) -> Tokens:
        """Those that a term reads; where it needs log-probs of a reference, those without weigh nothing."""
        spans, logp_N = self.spans, self.logp
        if any(self.segments[i].stream != term.stream for i, _, _ in spans):
            own = [span for span in spans if self.segments[span[0]].stream == term.stream]
            logp_N = torch.cat([logp_N[start : start + n] for _, start, n in own])
            firsts = accumulate((n for _, _, n in own), initial=0)
            spans = [(i, first, n) for (i, _, n), first in zip(own, firsts, strict=False)]
        elif not needs(term, "ref"):
            return self
        return Tokens(self.segments, spans, logp_N, None, "ref_logprobs" * needs(term, "ref"))

    @cached_property
    def _sequences(self) -> tuple[torch.Tensor, int]:
        """(the sequence of each token, from 0; how many there are)"""
        names = [
            (self.segments[i].sequence, -1 if self.segments[i].sequence >= 0 else i) for i, _, _ in self.spans
        ]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        own = torch.tensor([numbers[name] for name in names], device=self.logp.device)
        return own.repeat_interleave(self._sizes), len(numbers)

    def _field(self, name: str) -> torch.Tensor:
        """Zeros where a segment does not have it."""
        return self._tensor(
            [x for i, _, n in self.spans for x in (getattr(self.segments[i], name) or (0.0,) * n)]
        )

    def where(self, test: Callable[[Segment], object]) -> torch.Tensor:
        """1 on the tokens of the segments that pass the test, else 0."""
        return self._tensor(
            [float(bool(test(self.segments[i]))) for i, _, _ in self.spans]
        ).repeat_interleave(self._sizes)

    def _tensor(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.logp.device)
