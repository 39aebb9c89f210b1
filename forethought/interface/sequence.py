"""The simplest plan grammar: one to n words of an allowed set, then the stop word."""

from __future__ import annotations

from dataclasses import dataclass

from forethought.types import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """`words` allowed, at least `least` and at most `most` of them (each at most once if `distinct`), then `stop`."""

    words: frozenset[str]
    stop: str
    least: int = 1
    most: int = 32
    distinct: bool = False

    def parse(self, text: str) -> Verdict:
        """Score 1.0, or 0.0 with the first word that breaks the grammar. Positions count words from 1."""
        words = text.split()
        if not words or words[-1] != self.stop:
            return Verdict(score=0.0, reason=f"the plan does not end with {self.stop!r}")
        body = words[:-1]
        for i, word in enumerate(body, start=1):
            if word not in self.words:
                return Verdict(score=0.0, reason=f"word {i}: {word!r} may not stand in a plan")
            if self.distinct and word in body[: i - 1]:
                return Verdict(score=0.0, reason=f"word {i}: {word!r} stands in the plan twice")
        if not self.least <= len(body) <= self.most:
            return Verdict(score=0.0, reason=f"{len(body)} words; a plan has {self.least} to {self.most}")
        return Verdict(score=1.0)
