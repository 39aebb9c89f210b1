"""Pictures of pages with what is asked of them, kept in one file.

The file is xz: a line of JSON, then the pictures, a byte a pixel, of 216 colours (six steps a channel). What
the page itself prints of its question is cut off: the model is told it anyway.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forethought.core.errors import UserError
from forethought.core.grounding import Box

SIDE = 160  # pixels of a picture, both ways
STEPS = 6
MOST = 100_000  # pictures of one file


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One page. `what`: what is to be clicked, in words; `boxes`: of all elements that can be clicked (left,
    top, width, height); `good`: the numbers of those that are right."""

    task: str
    seed: int
    asked: str
    what: str
    boxes: tuple[Box, ...]
    good: tuple[int, ...]
    pixels: NDArray[np.uint8]  # [side, side]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """[side, side, 3]."""
        return coloured(self.pixels)


def reduced(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[..., 3] to the nearest of 216 colours [...]."""
    steps = (picture.astype(np.uint16) * (STEPS - 1) + 127) // 255
    return (steps[..., 0] * STEPS * STEPS + steps[..., 1] * STEPS + steps[..., 2]).astype(np.uint8)


def coloured(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """And back."""
    parts = [pixels // (STEPS * STEPS), pixels // STEPS % STEPS, pixels % STEPS]
    return (np.stack(parts, axis=-1) * (255 // (STEPS - 1))).astype(np.uint8)


def write(path: Path, shots: Sequence[Shot]) -> None:
    """The file; the same bytes for the same shots."""
    told = ("task", "seed", "asked", "what", "boxes", "good")
    rows = [{key: getattr(shot, key) for key in told} for shot in shots]
    head = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    pixels = b"".join(shot.pixels.tobytes() for shot in shots)
    path.write_bytes(lzma.compress(head + pixels, preset=9 | lzma.PRESET_EXTREME))


def read(path: Path) -> list[Shot]:
    """The shots of a file. UserError for one that is none."""
    try:
        head, _, pixels = lzma.decompress(path.read_bytes()).partition(b"\n")
        rows = json.loads(head)
        size = SIDE * SIDE
        if not isinstance(rows, list) or not 0 < len(rows) <= MOST or len(pixels) != size * len(rows):
            raise ValueError(f"{len(pixels):,} bytes of pictures do not fit its list")
        every = np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE)
        if int(every.max()) >= STEPS**3:
            raise ValueError("a pixel has a colour that there is not")
        return [_shot(row, own) for row, own in zip(rows, every, strict=True)]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no file of screens: {error}") from None


def _shot(row: Any, pixels: NDArray[np.uint8]) -> Shot:
    boxes = tuple(tuple(float(x) for x in box) for box in row["boxes"])
    good = tuple(int(i) for i in row["good"])
    if not good or any(len(box) != 4 for box in boxes) or not all(0 <= i < len(boxes) for i in good):
        raise ValueError(f"{row['task']}, seed {row['seed']}: no box that is right")
    return Shot(
        task=str(row["task"]),
        seed=int(row["seed"]),
        asked=str(row["asked"]),
        what=str(row["what"]),
        boxes=boxes,  # type: ignore[arg-type]
        good=good,
        pixels=pixels,
    )
