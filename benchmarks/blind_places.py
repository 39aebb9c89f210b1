"""How often a screen is clicked right without looking at it: what a grounder that sees has to beat.

    python benchmarks/blind_places.py

For each task of `screens`, the one place that is right on most training pictures, and one such place for each
wording of what is asked; both on the held-out pictures. A place is the middle of a square of 4 x 4 pixels, as
acts of `web-vision` say it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from forethought.tasks.screens.shots import Shot
from forethought.tasks.screens.taskset import CELLS, FILE, STEP, shots_of
from forethought.tasks.web.splits import FIRST

MIDDLES = STEP * np.arange(CELLS) + STEP / 2


def right(shot: Shot) -> np.ndarray:
    """Which places are right: [x, y]."""
    found = np.zeros((CELLS, CELLS), dtype=bool)
    for left, top, width, height in (shot.boxes[i] for i in shot.good):
        across = (left <= MIDDLES) & (left + width >= MIDDLES)
        found |= np.outer(across, (top <= MIDDLES) & (top + height >= MIDDLES))
    return found


def best(shots: Sequence[Shot]) -> tuple[int, int]:
    """The place that is right on most of them."""
    hits = np.sum([right(shot) for shot in shots], axis=0)
    return np.unravel_index(hits.argmax(), hits.shape)  # type: ignore[return-value]


def measured(shots: Sequence[Shot]) -> tuple[float, float]:
    """The share of one task's held-out pictures on which the one place is right, and that of the wording."""
    training, held = ([s for s in shots if (s.seed >= FIRST) is trained] for trained in (True, False))
    worded: dict[str, list[Shot]] = defaultdict(list)
    for shot in training:
        worded[shot.what].append(shot)
    one, own = best(training), {what: best(some) for what, some in worded.items()}
    hits = [(right(shot)[one], right(shot)[own.get(shot.what, one)]) for shot in held]
    return tuple(np.mean(hits, axis=0).tolist())  # type: ignore[return-value]


def main() -> None:
    """The table."""
    by_task: dict[str, list[Shot]] = defaultdict(list)
    for shot in shots_of(Path(str(files("forethought.tasks.screens"))) / FILE):
        by_task[shot.task].append(shot)
    print(f"{'':20s} one place  by wording")
    for task, shots in sorted(by_task.items()):
        print(f"{task:20s} {measured(shots)[0]:9.3f} {measured(shots)[1]:11.3f}")


if __name__ == "__main__":
    main()
