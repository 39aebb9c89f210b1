"""Makes the file of screens: pages of MiniWoB++ in Chromium, each photographed before anything is done.

    python -m forethought.tasks.screens.collect [--tasks a,b] [--train 150] [--held 30] [--out shots.xz]

What is right is what the oracle of `tasks.web` clicks first; of shapes, all that fit the description.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forethought.core.grounding import Box
from forethought.envs.screen.png import read as picture_of
from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser, Lost
from forethought.envs.web.page import Episode
from forethought.interface.elements import Line, ground
from forethought.interface.result import Refusal
from forethought.tasks.screens.shots import SIDE, Shot, reduced, write
from forethought.tasks.web.oracles import View, steps
from forethought.tasks.web.oracles.shapes import fits, shapes
from forethought.tasks.web.splits import FIRST

TOP = 50  # pixels that the page's own print of the question takes
WHAT = {  # task -> the words of the question that say what is to be clicked
    "click-button": r'the "(.+?)" button',
    "click-color": r"the (\w+) colored",
    "click-dialog": r'clicking the "(.+?)"',
    "click-shape": r"Click on an? (.*)",
    "click-tab": r"on (.*?)[.]$",
    "click-test-2": r"button (.+?)[.]",
    "focus-text-2": r"the (\w+) input",
    "grid-coordinate": r"(\(.+?\))",
}


def shot(task: str, seed: int, view: View, picture: np.ndarray) -> Shot | None:
    """One page; None where what is right does not lie on the picture."""
    found = re.search(WHAT[task], view.utterance)
    lines = [line for line in view.lines if line.ref and len(line.box) == 4]
    lines = [line for line in lines if on_picture(box_of(line))]
    good = [i for i, line in enumerate(lines) if line.ref in _right(task, view)]
    if not good or found is None:
        return None
    return Shot(
        task=task,
        seed=seed,
        asked=view.utterance,
        what=found[1],
        boxes=tuple(map(box_of, lines)),
        good=tuple(good),
        pixels=reduced(picture[TOP : TOP + SIDE, :SIDE]),
    )


def _right(task: str, view: View) -> set[str]:
    if task == "click-shape":
        words = view.said(WHAT[task]).split()
        return {line.ref for line in shapes(view) if fits(line, words)}
    found = ground(steps(task, view)[0].target or "", view.lines)
    return set() if isinstance(found, Refusal) else {found.value.ref}


def box_of(line: Line) -> Box:
    """On the picture."""
    left, top, width, height = line.box
    return float(left), float(top - TOP), float(width), float(height)


def on_picture(box: Box) -> bool:
    """Whether its middle can be clicked there, and it is an element and not the page."""
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    return 0 <= x < SIDE and 0 <= y < SIDE and 0 < box[2] * box[3] < SIDE * SIDE / 2


async def collect(tasks: Sequence[str], train: int, held: int, seconds: float) -> list[Shot]:
    """So many of each task to train on and to evaluate on, for at most so many seconds a task."""
    browser, found = Browser(skip=miniwob.SKIP), []
    try:
        for task in tasks:
            began = time.monotonic()
            for first, wanted in ((0, held), (FIRST, train)):
                good, seed = 0, first
                while good < wanted and time.monotonic() - began < seconds:
                    one = await _one(Episode(browser, miniwob.site()), task, seed)
                    seed, good = seed + 1, good + bool(one)
                    found += [one] if one else []
                print(f"{task:20s} {good} of {seed - first} in {time.monotonic() - began:.0f} s", flush=True)
    finally:
        await browser.close()
    return found


async def _one(episode: Episode, task: str, seed: int) -> Shot | None:
    try:
        seen = await episode.reset(task, seed)
        png, *_ = await episode.picture((SIDE, TOP + SIDE))
        return shot(task, seed, View(utterance=seen.utterance, lines=tuple(seen.lines)), picture_of(png))
    except (Lost, LookupError):
        return None
    finally:
        await episode.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", default=",".join(WHAT))
    parser.add_argument("--train", type=int, default=150, help="of each task, to train on")
    parser.add_argument("--held", type=int, default=30, help="of each task, to evaluate on")
    parser.add_argument("--seconds", type=float, default=120.0, help="most for one task")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "shots.xz")
    chosen = parser.parse_args()
    tasks = tuple(chosen.tasks.split(","))
    if strange := set(tasks) - set(WHAT):
        parser.error(f"{min(strange)} is none of {', '.join(WHAT)}")
    found = asyncio.run(collect(tasks, chosen.train, chosen.held, chosen.seconds))
    write(chosen.out, found)
    print(f"{len(found)} screens, {chosen.out.stat().st_size:,} bytes in {chosen.out}")


if __name__ == "__main__":
    main()
