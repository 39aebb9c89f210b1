"""Where the grams of a list stand in a text: whole words, whatever their case and spacing (see `words`).

Matching is done on text, never on token ids: "let's" at the start of an answer and " Let's" inside it are
different tokens, and a search for the ids of one misses the other, as a port of the published method does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from forethought.grams.words import Word, words


class Match(NamedTuple):
    gram: int  # index in the list
    start: int  # characters of the text, from the first word's first to the last word's last
    end: int


class Matcher:
    """`find` takes time in proportion to the text, not to the list. ValueError for grams that are the same
    words: a match has one."""

    def __init__(self, grams: Sequence[str]):
        self.grams = tuple(grams)
        # first word -> number of words -> words -> index
        self._starting: dict[str, dict[int, dict[tuple[str, ...], int]]] = {}
        for i, gram in enumerate(self.grams):
            forms = tuple(word.form for word in words(gram))
            if not forms:
                raise ValueError(f"gram {i} has no words: {gram!r}")
            same = self._starting.setdefault(forms[0], {}).setdefault(len(forms), {})
            if same.setdefault(forms, i) != i:
                raise ValueError(f"grams {same[forms]} and {i} are the same words: {gram!r}")

    def find(self, text: str) -> list[Match]:
        """Every occurrence of every gram, those that overlap too, by where they begin."""
        found: list[Match] = []
        said = words(text)
        forms = [word.form for word in said]
        for i, form in enumerate(forms):
            lengths = self._starting.get(form)
            if not lengths:
                continue
            reach = _reach(said, i, max(lengths))
            for length in sorted(lengths):
                gram = lengths[length].get(tuple(forms[i : i + length])) if length <= reach else None
                if gram is not None:
                    found.append(Match(gram, said[i].start, said[i + length - 1].end))
        return found


def _reach(said: Sequence[Word], i: int, most: int) -> int:
    """How many words from word `i` on follow each other as neighbours, `most` at most."""
    n = 1
    while n < most and i + n < len(said) and said[i + n].joined:
        n += 1
    return n


def merged_spans(matches: Sequence[Match]) -> list[tuple[int, int]]:
    """The stretches of characters that the matches cover, in order; those that overlap are one."""
    out: list[tuple[int, int]] = []
    for _, start, end in sorted(matches, key=lambda m: (m.start, m.end)):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out
