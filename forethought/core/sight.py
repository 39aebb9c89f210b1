"""Pictures that a model reads: patches in the place of a word.

A prompt names a picture by one word (`@picture:click-color/17`), so that it stays text for everybody who
reads it. The engine puts the picture's patches there, and asks the taskset for them (`tasks.base.Sees`), or
for the whole picture where the model cuts it itself (`tasks.base.Shows`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MARK = "@picture:"
# kinds of models of `transformers` whose pictures are read here (`engines/torch/models/vlm`)
SEEING = ("qwen2_vl", "qwen2_5_vl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The pictures of a taskset: at most `rows` x `columns` patches of `side` x `side` pixels with so many
    channels, of which at most `most` are read. `row_words`, `column_words`: for each row and column the words
    that say a place in it, where turns say places; what stands for a row begins as these."""

    side: int
    rows: int
    columns: int
    most: int
    channels: int = 3
    row_words: tuple[tuple[str, ...], ...] = ()
    column_words: tuple[tuple[str, ...], ...] = ()

    @property
    def numbers(self) -> int:
        """Of one patch."""
        return self.side * self.side * self.channels


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture as it is read: `patches` [n, numbers] of 0 to 255, `places` [n, 2] with the row and the
    column of each. n is at least 1."""

    patches: NDArray[np.uint8]
    places: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shown:
    """A whole picture, for a vision-language model, which cuts it itself: `pixels` [height, width, 3] of 0 to
    255. `kept`: which of the model's patches are read, [rows, columns], from all of them
    [rows, columns, numbers] of 0 to 1; None: all."""

    pixels: NDArray[np.uint8]
    kept: Callable[[NDArray[np.float32]], NDArray[np.bool_]] | None = None
