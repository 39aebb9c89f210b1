"""Patches of pictures as tokens of a decoder from scratch.

The embedding of a patch is what a projector computes from its pixels and its place: two linear maps with a
GELU between them, and a vector for its row and for its column. The kernels for sampling read a table of
words, so such a model samples through PyTorch. How patches have ids: `pictures.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from forethought.core.sight import MARK, Seen, Sight
from forethought.engines.torch.models import pictures

INNER = 256  # width of the projector
STD = 0.5  # of an embedding, as `small.EMBEDDING_STD`
KEPT = 1024  # pictures whose pixels are kept


class Pictures(pictures.Pictures[Seen]):
    """Of one size, from a taskset."""

    def __init__(self, sight: Sight, picture: Callable[[str], Seen], first: int):
        super().__init__(first, KEPT)
        self.sight = sight
        self._picture = picture

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

    def read(self, word: str) -> Seen:
        """See `Pictures.read`."""
        seen = self._picture(word.removeprefix(MARK))
        _check(word, seen, self.sight)
        return seen

    def count(self, look: Seen) -> int:
        """See `Pictures.count`."""
        return len(look.patches)

    def gather(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Patches [n, numbers] uint8 and their places [n, 2]."""
        patches = np.empty((len(ids), self.sight.numbers), np.uint8)
        places = np.empty((len(ids), 2), np.int64)
        for word, rows, own in self.owners(ids):
            seen = self.look(word)
            patches[rows], places[rows] = seen.patches[own], seen.places[own]
        return patches, places


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

    def of_copy(self, model: torch.nn.Module) -> Sighted:
        """The same for a copy of the model, whose weights come later."""
        return Sighted(model.get_input_embeddings(), self.pictures)

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
