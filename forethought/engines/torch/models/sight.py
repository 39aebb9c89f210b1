"""Patches of pictures as tokens of a decoder from scratch.

A patch has an id beyond the vocabulary, and an embedding that a projector computes from its pixels and its
place: two linear maps with a GELU between them, and a vector for its row and for its column. So everything
that knows tokens by id, the packed forest and the paths kept between calls, takes patches as it takes words;
nothing samples them, since the model's head has no rows for them. The kernels for sampling read a table of
words, so such a model samples through PyTorch.

The ids of a picture are given once and never to another picture. Pixels are asked for again when they have
been let go of.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from forethought.core.sight import MARK, Seen, Sight

INNER = 256  # width of the projector
STD = 0.5  # of an embedding, as `small.EMBEDDING_STD`
KEPT = 1024  # pictures whose pixels are kept


class Pictures:
    """The pictures that were named so far. `first`: the id of the first patch of all."""

    def __init__(self, sight: Sight, picture: Callable[[str], Seen], first: int):
        self.sight, self.first = sight, first
        self._picture = picture
        self._starts: list[int] = []
        self._names: list[str] = []
        self._ids: dict[str, range] = {}  # one number takes as much room as a patch: they are not kept
        self._kept: OrderedDict[str, Seen] = OrderedDict()
        self._next = first

    def __deepcopy__(self, memo: object) -> Pictures:
        return self  # a copy of a model reads the same pictures

    def encode(self, text: str, words: Callable[[str], tuple[int, ...]]) -> tuple[int, ...]:
        """Token ids of a text that names pictures."""
        ids: list[int] = []
        said: list[str] = []
        for word in text.split():
            if word.startswith(MARK):
                ids += [*words(" ".join(said)), *self.ids(word)] if said else self.ids(word)
                said = []
            else:
                said.append(word)
        return (*ids, *words(" ".join(said))) if said else tuple(ids)

    def ids(self, word: str) -> tuple[int, ...]:
        """Those of one picture's patches."""
        if word not in self._ids:
            n = len(self.look(word).patches)
            self._starts.append(self._next)
            self._names.append(word)
            self._ids[word] = range(self._next, self._next + n)
            self._next += n
        return tuple(self._ids[word])

    def look(self, word: str) -> Seen:
        """The picture. ValueError where the taskset gives none that fits."""
        seen = self._kept.get(word)
        if seen is None:
            seen = self._picture(word.removeprefix(MARK))
            _check(word, seen, self.sight)
            self._kept[word] = seen
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return seen

    def gather(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Patches [n, numbers] uint8 and their places [n, 2]."""
        patches = np.empty((len(ids), self.sight.numbers), np.uint8)
        places = np.empty((len(ids), 2), np.int64)
        at = np.asarray(ids)
        owner = np.searchsorted(self._starts, at, side="right") - 1
        for one in np.unique(owner):
            rows = owner == one
            seen, own = self.look(self._names[one]), at[rows] - self._starts[one]
            patches[rows], places[rows] = seen.patches[own], seen.places[own]
        return patches, places

    def name(self, id: int) -> str:
        """The word of the picture that a patch belongs to."""
        return self._names[bisect.bisect_right(self._starts, id) - 1]


def _check(word: str, seen: Seen, sight: Sight) -> None:
    n = len(seen.patches)
    if seen.patches.shape != (n, sight.numbers) or seen.places.shape != (n, 2):
        raise ValueError(
            f"{word}: patches of {seen.patches.shape} at places of {seen.places.shape}; "
            f"{sight.numbers} numbers and 2 are needed"
        )
    if not 1 <= n <= sight.most:
        raise ValueError(f"{word}: {n} patches; a picture has 1 to {sight.most}")
    if seen.places.min() < 0 or (seen.places.max(0) >= (sight.rows, sight.columns)).any():
        raise ValueError(f"{word}: a patch lies outside of {sight.rows} x {sight.columns}")


class Sighted(torch.nn.Module):
    """The embedding of words, and of patches beside it."""

    def __init__(self, words: torch.nn.Embedding, pictures: Pictures):
        super().__init__()
        width, sight = words.weight.shape[1], pictures.sight
        normal = lambda *shape, std: torch.nn.Parameter(torch.randn(*shape) * std)  # noqa: E731
        self.weight = words.weight
        self.inward = normal(INNER, sight.numbers, std=sight.numbers**-0.5)
        self.inward_bias = torch.nn.Parameter(torch.zeros(INNER))
        self.outward = normal(width, INNER, std=2 * STD * INNER**-0.5)
        self.row = normal(sight.rows, width, std=STD)
        self.column = normal(sight.columns, width, std=STD)
        self.pictures = pictures

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[...] -> [..., H]."""
        first = self.pictures.first
        # what is recorded for a GPU are single steps, which sample words
        if ids.is_cuda and torch.cuda.is_current_stream_capturing():
            return F.embedding(ids, self.weight)
        patch = ids >= first
        if not patch.any():
            return F.embedding(ids, self.weight)
        x = F.embedding(ids.masked_fill(patch, 0), self.weight)
        return x.index_put((patch,), self.patches(ids[patch]).to(x.dtype))

    def patches(self, ids_N: torch.Tensor) -> torch.Tensor:
        """[N, H] of patches."""
        pixels, places = (torch.from_numpy(a) for a in self.pictures.gather(ids_N.tolist()))
        pixels, places = pixels.to(self.weight.device), places.to(self.weight.device)
        x = F.linear(
            1 - pixels.to(self.weight.dtype) / 255, self.inward, self.inward_bias
        )  # white is nothing
        return F.linear(F.gelu(x), self.outward) + self.row[places[:, 0]] + self.column[places[:, 1]]


def with_sight(
    model: torch.nn.Module,
    sight: Sight,
    picture: Callable[[str], Seen],
    seed: int,
    encode: Callable[[str], Sequence[int]],
) -> Pictures:
    """A decoder from scratch reads pictures from here on; `picture` gives them by name. `encode`: token ids
    of a word."""
    words = model.get_input_embeddings()
    pictures = Pictures(sight, picture, words.weight.shape[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        sighted = Sighted(words, pictures)
    _begin_with_words(sighted.row, sight.row_words, words.weight, encode)
    _begin_with_words(sighted.column, sight.column_words, words.weight, encode)
    model.set_input_embeddings(sighted)
    model.config.forethought_sight = [sight.side, sight.channels, sight.rows, sight.columns]
    return pictures


@torch.no_grad()
def _begin_with_words(
    places: torch.Tensor,
    said: Sequence[Sequence[str]],
    words: torch.Tensor,
    encode: Callable[[str], Sequence[int]],
) -> None:
    """A row begins as the words that say a place in it. So who attends to a patch has its place to say, and
    need not first learn which words are whose. The sum of n words is as long as one after a division by the
    root of n."""
    for own, some in zip(places, said, strict=False):
        ids = [encode(word)[0] for word in some]
        own.copy_(words[ids].sum(0) / len(ids) ** 0.5)
