"""The pictures that prompts name, as ids beyond the vocabulary.

Each patch that is read of a picture has an id of its own, which no other picture ever gets. So everything
that knows tokens by id, the packed forest and the paths kept between calls, takes patches as it takes words;
nothing samples them, since no head has rows for them. What a picture holds is asked for again when it has
been let go of.
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

Look = TypeVar("Look")
"""A picture as a model reads it."""

Words = Callable[[str], tuple[int, ...]]


class Pictures(ABC, Generic[Look]):
    """The pictures that were named so far. `first`: the id of the first patch of all. `room`: how much is
    kept of them, in units of `weight`."""

    around: tuple[int, ...] = ()
    """Tokens that stand around each in a text."""

    def __init__(self, first: int, room: int):
        self.first, self._room = first, room
        self._starts: list[int] = []
        self._names: list[str] = []
        self._ids: dict[str, range] = {}  # one number takes as much room as a patch: they are not kept
        self._kept: OrderedDict[str, Look] = OrderedDict()
        self._held = 0
        self._next = first

    def __deepcopy__(self, memo: object) -> Pictures:
        return self  # a copy of a model reads the same pictures

    @abstractmethod
    def encode(self, text: str, words: Words) -> tuple[int, ...]:
        """Token ids of a text that names pictures."""

    @abstractmethod
    def read(self, word: str) -> Look:
        """The picture of a word. ValueError for one that does not fit."""

    @abstractmethod
    def count(self, look: Look) -> int:
        """Patches that are read of it."""

    def weight(self, look: Look) -> int:
        """What keeping it takes."""
        return 1

    def ids(self, word: str) -> tuple[int, ...]:
        """Those of one picture's patches."""
        if word not in self._ids:
            n = self.count(self.look(word))
            self._starts.append(self._next)
            self._names.append(word)
            self._ids[word] = range(self._next, self._next + n)
            self._next += n
        return tuple(self._ids[word])

    def look(self, word: str) -> Look:
        """The picture. ValueError where the taskset gives none that fits."""
        found = self._kept.get(word)
        if found is None:
            found = self.read(word)
            self._kept[word] = found
            self._held += self.weight(found)
            while self._held > self._room and len(self._kept) > 1:
                self._held -= self.weight(self._kept.popitem(last=False)[1])
        return found

    def owners(self, ids: Sequence[int]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """The pictures whose patches these are: (word, which of the ids, their numbers in the picture)."""
        at = np.asarray(ids)
        owner = np.searchsorted(self._starts, at, side="right") - 1
        for one in np.unique(owner):
            mask = owner == one
            yield self._names[one], mask, at[mask] - self._starts[one]

    def owner(self, id: int) -> tuple[str, int]:
        """(the word of the picture that a patch belongs to, the id of its first patch)."""
        one = bisect.bisect_right(self._starts, id) - 1
        return self._names[one], self._starts[one]

    def name(self, id: int) -> str:
        """The word of the picture that a patch belongs to."""
        return self.owner(id)[0]
