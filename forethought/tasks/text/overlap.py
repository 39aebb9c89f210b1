"""Contamination: problems to train on that say what a test problem says.

Two problems overlap when their words are equal, or when a share of the test problem's 13-grams stands in one
training problem (13 words in a row are the customary unit since GPT-3, arXiv 2005.14165, appendix C).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GRAM = 13  # words
THRESHOLD = 0.8  # share of a test problem's 13-grams from which a training problem counts as the same
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|[-+*/^=<>]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A training problem, the test problem that it repeats, and how much of that (1.0: word for word, or
    every 13-gram)."""

    train: str
    test: str
    share: float

    def __str__(self) -> str:
        return f"{self.train} repeats {self.test} ({self.share:.0%})"


def words(problem: str) -> tuple[str, ...]:
    """Words, numbers and operators, without case, punctuation and the signs of LaTeX."""
    return tuple(_WORD.findall(re.sub(r"(?<=\d),(?=\d{3})", "", problem).lower()))


def overlap(train: Mapping[str, str], test: Mapping[str, str], threshold: float = THRESHOLD) -> list[Overlap]:
    """Every pair (ids of `train` and `test`, which map an id to a problem's text) that overlaps, in the order
    of `train`.

    ValueError unless 0 < threshold <= 1. A test problem of fewer than 13 words has no 13-grams: only its
    equal counts.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a share above 0 and at most 1 is needed, found {threshold}")
    equals: dict[tuple[str, ...], list[str]] = defaultdict(list)
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)  # 13-gram -> test problems
    sizes: dict[str, int] = {}
    for name, problem in test.items():
        equals[words(problem)].append(name)
        grams = set(_grams(words(problem)))
        sizes[name] = len(grams)
        for gram in grams:
            holders[gram].append(name)
    found = []
    for name, problem in train.items():
        said = words(problem)
        common = Counter(other for gram in set(_grams(said)) if gram in holders for other in holders[gram])
        shares = {
            other: count / sizes[other]
            for other, count in common.items()
            if count >= threshold * sizes[other]
        }
        shares |= dict.fromkeys(equals.get(said, ()), 1.0)
        found += [Overlap(train=name, test=other, share=share) for other, share in sorted(shares.items())]
    return found


def _grams(said: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    return (said[i : i + GRAM] for i in range(len(said) - GRAM + 1))
