"""Words that mean nothing but where they stand: those that a taskset draws anew for each prompt (slots for
what the vocabulary does not know, ids of elements). With `model.masks_absent` one that does not stand in
what was read so far is never said.

Which those are follows from the tokens before a token alone, so sampler and trainer find the same ones: they
get probability 0 in both, in divergences too, and no gradient. A demonstration that says such a word all the
same, as none that copies does, is learned as a word that stands there.

Axes: _N tokens, _S drawn words, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from forethought.core.types import Segment
from forethought.engines.torch.forest.vocabulary import NEVER

KEY = "forethought_drawn"  # of a model's configuration: the ids of these words


class DrawnWords:
    """The ids of a model's drawn words, each once."""

    def __init__(self, ids: Sequence[int]):
        self.ids_S = np.array(ids, dtype=np.int32)
        self._column = {token: i for i, token in enumerate(ids)}
        cuts = (np.flatnonzero(np.diff(self.ids_S) != 1) + 1).tolist()  # neighbours are masked together
        ends = zip([0, *cuts], [*cuts, len(ids)], strict=True)
        self._runs = [(slice(a, b), slice(ids[a], ids[b - 1] + 1)) for a, b in ends]

    def standing(self, tokens: Sequence[int]) -> np.ndarray:
        """Which of them are among these tokens: bool [S]."""
        seen_S = np.zeros(len(self.ids_S), dtype=bool)
        seen_S[[self._column[token] for token in self._column.keys() & tokens]] = True
        return seen_S

    def absent(self, segments: Sequence[Segment], spans: Sequence[tuple[int, int, int]]) -> torch.Tensor:
        """bool [N, S]: those that each token of `spans` (segment, first of N, count) cannot be. Spans are
        whole segments."""
        standing: list[np.ndarray] = []  # behind each segment
        for s in segments:
            own_S = self.standing(s.token_ids)
            standing.append(own_S | standing[s.parent] if s.parent >= 0 else own_S)
        absent_NS = np.empty((sum(n for *_, n in spans), len(self.ids_S)), dtype=bool)
        for i, first, n in spans:
            tokens, parent = segments[i].token_ids, segments[i].parent
            seen_TS = np.zeros((n, len(self.ids_S)), dtype=bool)
            if parent >= 0:
                seen_TS[0] = standing[parent]
            for t, token in enumerate(tokens):
                if (column := self._column.get(token)) is not None:
                    seen_TS[t, column] = True
            absent_NS[first : first + n] = ~np.logical_or.accumulate(seen_TS, axis=0)
        return torch.from_numpy(absent_NS)

    def hide(self, logits_NV: torch.Tensor, absent_NS: torch.Tensor) -> None:
        """Probability 0 for what is absent, in place."""
        for columns, ids in self._runs:
            logits_NV[:, ids].masked_fill_(absent_NS[:, columns], NEVER)


@lru_cache(8)
def _drawn(ids: tuple[int, ...]) -> DrawnWords:
    return DrawnWords(ids)


def drawn_of(model: torch.nn.Module) -> DrawnWords | None:
    """The words that a model never says where they do not stand; None: it may say any."""
    ids = getattr(model.config, KEY, None)
    return _drawn(tuple(ids)) if ids else None
