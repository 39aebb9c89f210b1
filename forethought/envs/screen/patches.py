"""Which patches of a screenshot are worth reading: the graph of equal patches (ShowUI, arXiv 2411.17465).

A picture is cut into square patches. Neighbours (above, below, left, right) that look alike belong together,
and so do theirs: white space is one component, however large, and a letter is many. Of each component a
share is read, at least one patch. `random_patches` reads as many, wherever they lie: the control.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SIDE = 28  # pixels of a patch of Qwen2-VL
ALIKE = 1.0  # most L2 distance of two patches that look alike, of values from 0 to 1


def cut(picture: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.float32]:
    """Patches [rows, columns, side * side * channels] from 0 to 1, of a picture [height, width, channels].
    The far edges are repeated to the next whole patch. ValueError for a picture without pixels."""
    if picture.ndim != 3 or 0 in picture.shape:
        raise ValueError(f"a picture of {picture.shape} has no pixels of (height, width, channels)")
    more = [-size % side for size in picture.shape[:2]]
    whole = np.pad(picture, ((0, more[0]), (0, more[1]), (0, 0)), mode="edge")
    rows, columns, channels = whole.shape[0] // side, whole.shape[1] // side, whole.shape[2]
    patches = whole.reshape(rows, side, columns, side, channels).swapaxes(1, 2)
    found = patches.reshape(rows, columns, -1).astype(np.float32)
    found /= 255
    return found


def components(patches: NDArray[np.float32], alike: float = ALIKE) -> NDArray[np.int64]:
    """[rows, columns]: the number of each patch's component, from 0, in reading order."""
    rows, columns = patches.shape[:2]
    parent = list(range(rows * columns))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for axis, step in ((1, 1), (0, columns)):
        apart = np.linalg.norm(np.diff(patches, axis=axis), axis=2)
        for row, column in zip(*np.nonzero(apart < alike), strict=True):
            here = int(row) * columns + int(column)
            a, b = sorted((root(here), root(here + step)))
            parent[b] = a
    roots = [root(i) for i in range(rows * columns)]
    number = {one: i for i, one in enumerate(sorted(set(roots)))}
    return np.array([number[one] for one in roots]).reshape(rows, columns)


def of_graph(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which patches are read: `share` of each component, rounded up, drawn with `seed`. ValueError for a
    share outside of 0 to 1."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share is from 0 to 1, found {share}")
    rng, flat = np.random.default_rng(seed), labels.ravel()
    kept = np.zeros(flat.size, dtype=bool)
    for label in range(int(flat.max()) + 1):
        there = np.flatnonzero(flat == label)
        kept[rng.choice(there, max(1, math.ceil(share * there.size)), replace=False)] = True
    return kept.reshape(labels.shape)


def random_patches(shape: tuple[int, ...], n: int, seed: int) -> NDArray[np.bool_]:
    """`n` patches, wherever they lie."""
    kept = np.zeros(math.prod(shape), dtype=bool)
    kept[np.random.default_rng(seed).choice(kept.size, n, replace=False)] = True
    return kept.reshape(shape)


def seen(kept: NDArray[np.bool_], box: tuple[float, float, float, float], side: int = SIDE) -> bool:
    """Whether a patch that is read lies on the box (left, top, width, height in pixels)."""
    left, top, width, height = box
    rows = slice(int(top // side), int((top + max(height, 1) - 1) // side) + 1)
    columns = slice(int(left // side), int((left + max(width, 1) - 1) // side) + 1)
    return bool(kept[rows, columns].any())
