"""Positions of words and of patches (M-RoPE, arXiv 2409.12191).

A word stands at one position. The patches of a picture stand at the position where the picture begins, plus
their row and their column, in three numbers: time, height, width. What follows a picture stands behind its
longer side, however many of its patches are read.

Axes: _N tokens of a packed row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
import torch

from forethought.core.types import Segment


class Patches(NamedTuple):
    """Of one picture that a path reads: the id of the first, rows and columns [2, n], and how many positions
    the picture takes."""

    first: int
    places: np.ndarray
    span: int


class Grid(Protocol):
    """Who knows where patches lie. Ids from `first` on are patches."""

    first: int

    def patches(self, id: int) -> Patches:
        """Those of the picture that a patch belongs to."""


def grid_of(model: torch.nn.Module) -> Grid | None:
    """That of a model whose positions count rows and columns; None: they count tokens."""
    embed = getattr(model, "get_input_embeddings", None)
    return getattr(embed(), "grid", None) if embed else None


def positions(
    grid: Grid, segments: Sequence[Segment], order: Sequence[int], starts: Sequence[int]
) -> np.ndarray | None:
    """[3, N] of a packed forest whose segments lie in this order, each from its start on; None where no
    segment has patches, so that positions are those of the tokens."""
    if not any(max(s.token_ids) >= grid.first for s in segments):
        return None
    found = np.empty((3, sum(len(s.token_ids) for s in segments)), np.int64)
    ends: dict[int, tuple[int, int, int]] = {-1: (0, -1, 0)}
    """Segment -> (position of the word that follows; the picture that its last token belongs to, by its first
    id, and where that begins)."""
    for i in order:
        after, shown, begin = ends[segments[i].parent]
        at = starts[i]
        for patches, ids in _runs(grid, segments[i].token_ids):
            place = found[:, at : at + len(ids)]
            at += len(ids)
            if patches is None:
                place[:] = np.arange(after, after + len(ids))
                after, shown = after + len(ids), -1
                continue
            n = ids[0] - patches.first
            if not (n and shown == patches.first):
                begin = after
            place[0] = begin
            place[1:] = begin + patches.places[:, n : n + len(ids)]
            after, shown = begin + patches.span, patches.first
        ends[i] = after, shown, begin
    return found


def _runs(grid: Grid, ids: Sequence[int]) -> Iterator[tuple[Patches | None, list[int]]]:
    """Words, and the patches of each picture."""
    known: dict[int, Patches] = {}
    last: Patches | None = None

    def first_of(id: int) -> int:
        nonlocal last
        if id < grid.first:
            return -1
        if last is None or not last.first <= id < last.first + last.places.shape[1]:
            last = grid.patches(id)
            known[last.first] = last
        return last.first

    for first, run in groupby(ids, key=first_of):
        yield known.get(first), list(run)
