"""Ids drawn on a picture (set of marks, arXiv 2310.11441): a frame around each element, and its number in a
filled field at its corner. Who sees only the picture can name an element by what stands on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from forethought.core.grounding import Box

# 3 x 5 pixels each, a row an octal digit
DIGITS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71222", "75757", "75717")
COLOURS = ((200, 0, 0), (0, 110, 0), (0, 0, 210), (140, 0, 140), (150, 80, 0), (0, 110, 130))
WHITE = (255, 255, 255)


def number(n: int) -> NDArray[np.bool_]:
    """[5, 4 * digits - 1]: the pixels of a number from 0."""
    parts = []
    for digit in str(n):
        rows = [[bool(int(row) >> bit & 1) for bit in (2, 1, 0)] for row in DIGITS[int(digit)]]
        parts.append(np.pad(np.array(rows), ((0, 0), (0, 1))))
    return np.concatenate(parts, axis=1)[:, :-1]


def drawn(
    picture: NDArray[np.uint8], boxes: Sequence[Box], ids: Sequence[int] | None = None, zoom: int = 1
) -> NDArray[np.uint8]:
    """A copy of a picture [height, width, 3] with the marks of boxes; `ids`: their numbers, by default from
    1. `zoom`: pixels of the picture for each of a digit and of a frame. Boxes that lie outside are left out.
    ValueError for a picture without pixels."""
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"a picture of {picture.shape} has no pixels of (height, width, 3)")
    out, taken = picture.copy(), np.zeros(picture.shape[:2], bool)
    for i, (box, n) in enumerate(zip(boxes, ids or range(1, len(boxes) + 1), strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        for inner in range(zoom):
            less = (box[0] + inner, box[1] + inner, box[2] - 2 * inner, box[3] - 2 * inner)
            _frame(out, less, colour)
        _label(out, taken, box, np.kron(number(n), np.ones((zoom, zoom), bool)), colour, zoom)
    return out


def _frame(out: NDArray[np.uint8], box: Box, colour: tuple[int, int, int]) -> None:
    height, width = out.shape[:2]
    left, top, right, bottom = (round(x) for x in (box[0], box[1], box[0] + box[2] - 1, box[1] + box[3] - 1))
    columns = slice(max(left, 0), max(min(right, width - 1) + 1, 0))
    rows = slice(max(top, 0), max(min(bottom, height - 1) + 1, 0))
    for row in (top, bottom):
        if 0 <= row < height:
            out[row, columns] = colour
    for column in (left, right):
        if 0 <= column < width:
            out[rows, column] = colour


def _label(
    out: NDArray[np.uint8],
    taken: NDArray[np.bool_],
    box: Box,
    digits: NDArray[np.bool_],
    colour: tuple[int, int, int],
    edge: int,
) -> None:
    """At the first of the box's corners where no other number stands."""
    tall, wide = digits.shape[0] + 2 * edge, digits.shape[1] + 2 * edge
    height, width = out.shape[:2]
    left, top, right, bottom = round(box[0]), round(box[1]), round(box[0] + box[2]), round(box[1] + box[3])
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        return
    corners = [(left, top), (right - wide, top), (left, bottom - tall), (right - wide, bottom - tall)]
    places = [
        (min(max(x, 0), max(width - wide, 0)), min(max(y, 0), max(height - tall, 0))) for x, y in corners
    ]
    x, y = next(
        (at for at in places if not taken[at[1] : at[1] + tall, at[0] : at[0] + wide].any()), places[0]
    )
    field = out[y : y + tall, x : x + wide]
    field[:] = colour
    inside = field[edge:-edge, edge:-edge]
    inside[digits[: inside.shape[0], : inside.shape[1]]] = WHITE
    taken[y : y + tall, x : x + wide] = True
