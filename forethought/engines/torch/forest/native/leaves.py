"""Where the rows of one run of the sampler leave their activations (`forest/activations.py`), as the kernels
write them (`activations.h`)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import repeat

import numpy as np

from forethought.engines.torch.forest.activations import Activations, Block
from forethought.engines.torch.forest.native.library import address
from forethought.engines.torch.forest.native.weights import Weights

STEPS = 16  # of all rows, whose activations stand in one block


class _Activations(ctypes.Structure):
    _fields_ = [
        ("at", ctypes.c_void_p),
        ("last", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("room", ctypes.c_long),
        ("used", ctypes.c_long),
    ]


def pointer(block: Block | None):
    """For one call, which fills the block from its beginning; None: nothing is left."""
    if block is None:
        return None
    return ctypes.byref(_Activations(*map(address, (block.at, block.last, block.logits)), block.room, 0))


class Leaves:
    """`found`: what is left, by path. `places`: of each row, the last token that was read of it."""

    def __init__(self, found: Activations, weights: Weights):
        self.found, self.places = found, []
        self._shape = [getattr(weights.model, name) for name in ("hidden", "heads", "kv_heads", "d", "inner")]
        self._layers, self._width = weights.layers, weights.lib.ft_left_width(*self._shape)
        self._vocabulary = weights.vocabulary

    def block(self, tokens: int) -> Block | None:
        """Room for what so many tokens leave; None where memory is used up."""
        return self.found.block(self._layers, tokens, self._width, self._shape[0], self._vocabulary)

    def enter(self, contexts: Sequence[tuple[int, ...]], n: Sequence[int]) -> None:
        """n[i] rows stand below each context, behind those there are."""
        for context, k in zip(contexts, n, strict=True):
            self.places += [self.found.place(context)] * k

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows (a mask) alone."""
        self.places = [place for place, kept in zip(self.places, rows, strict=True) if kept]

    def read(self, jobs: Sequence, block: Block | None) -> None:
        """These contexts were computed, one after another; the last layer to its end for those tokens alone
        after which logits were asked for."""
        first = 0
        for job in jobs if block else ():
            n = len(job.tokens)
            under = self.found.place(job.path[: job.position])
            self.found.put(
                under, job.tokens, block, range(first, first + n), [job.at + k in job.outs for k in range(n)]
            )
            first += n

    def step(self, tokens: Sequence[int], block: Block | None) -> None:
        """Each row has read a token."""
        for i, token in enumerate(tokens if block else ()):
            self.places[i] = self.found.put(self.places[i], [token], block, [i], [True])

    def run(self, rows, live: np.ndarray, first: int, few: int, left: np.ndarray, call: Callable) -> None:
        """`call(block)` until no more than `few` rows go on: it ends where the block is full, and writes into
        `left` where each token stands. `live`: the rows' lines in `rows`; `first`: the first row's number."""
        while (going := int((~rows.done[live]).sum())) > few:
            block, before = self.block(going * STEPS), rows.length[live] - 1
            call(block)
            if block is None:  # it went on to the end
                return
            for i, (line, start) in enumerate(zip(live, before, strict=True)):
                read = slice(start, rows.length[line] - 1)
                tokens = rows.tokens[line, read].tolist()
                self.places[first + i] = self.found.put(
                    self.places[first + i], tokens, block, left[i, read].tolist(), repeat(True, len(tokens))
                )
