"""What a picture of a page gives away: elements that contours and OCR find, against the accessible tree; and
patches that the graph of equal ones keeps, against as many random ones.

    pip install "forethought[web,screen]"
    python benchmarks/parsed_screens.py [--tasks web-12] [--seeds 5] [--json FILE]

Pages of MiniWoB++ as they are before anything is done, photographed with two pixels for each of CSS. Wanted
are all elements of the snapshot that can be acted on and are no plain text. An element is found where a
parsed box covers at least half of it (intersection over union), or its middle lies in one that is at most
four times as large; its label is read where the parsed label is its name, whatever case and spaces.

`contours`, `ocr` and `both` are parsers; `both` is merged by `envs.screen.parsed`. An element is seen where a
patch that is kept lies on it. The tree has all elements and names by definition: it is what they are compared
with.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from pathlib import Path

import numpy as np

from forethought.core.grounding import Box
from forethought.envs.screen.parsed import Found, iou, merge, recall
from forethought.envs.screen.parsers import contours, texts
from forethought.envs.screen.patches import components, cut, of_graph, random_patches, seen
from forethought.envs.screen.png import read
from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser, Window
from forethought.envs.web.page import Episode
from forethought.interface.elements import Line
from forethought.tasks.web.pages import room

SCALE = 2
SHARES = (0.1, 0.3, 0.5)


async def pages(tasks: tuple[str, ...], seeds: int) -> list[tuple[str, tuple[Line, ...], np.ndarray]]:
    """(task, lines, picture) of each page."""
    browser, found = Browser("", Window(scale=SCALE), skip=miniwob.SKIP), []
    try:
        for task in tasks:
            for seed in range(seeds):
                episode = Episode(browser, miniwob.site())
                lines = (await episode.reset(task, seed)).lines
                png, *_ = await episode.picture(room(lines))
                await episode.close()
                found.append((task, lines, read(png)))
    finally:
        await browser.close()
    return found


def wanted(lines: tuple[Line, ...]) -> list[tuple[str, Box]]:
    """(name, box in pixels of the picture) of what can be acted on."""
    return [
        (line.name, tuple(x * SCALE for x in line.box))  # type: ignore[misc]
        for line in lines
        if line.ref and line.role != "text" and len(line.box) == 4 and line.box[2] and line.box[3]
    ]


def labels(found: list[Found], elements: list[tuple[str, Box]]) -> tuple[int, int]:
    """(names that are read, elements with a name)."""
    bare = lambda text: "".join(text.casefold().split())  # noqa: E731
    named = [(name, box) for name, box in elements if name]
    right = 0
    for name, box in named:
        near = max(found, key=lambda one: iou(one.box, box), default=None)
        right += near is not None and bare(near.label) == bare(name)
    return right, len(named)


def measured(lines: tuple[Line, ...], picture: np.ndarray) -> dict[str, float]:
    """One page; {} where nothing on it can be acted on."""
    elements = wanted(lines)
    boxes = [box for _, box in elements]
    if not boxes:
        return {}
    outlines, said = contours(picture, SCALE), texts(picture)
    parsed = {"contours": merge([], outlines), "ocr": said, "both": merge(said, outlines)}
    row: dict[str, float] = {"boxes/tree": len(boxes)}
    for name, found in parsed.items():
        row[f"recall/{name}"], row[f"boxes/{name}"] = recall(found, boxes), len(found)
        row[f"read/{name}"], row["named"] = labels(found, elements)
    graph = components(cut(picture))
    for share in SHARES:
        kept = of_graph(graph, share, seed=0)
        other = random_patches(kept.shape, int(kept.sum()), seed=0)
        row[f"kept@{share}"] = float(kept.mean())
        for name, some in (("graph", kept), ("random", other)):
            row[f"seen/{name}@{share}"] = statistics.mean(seen(some, box) for box in boxes)
    return row


def summed(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means over pages, of labels over elements."""
    rows = [row for row in rows if row]
    found = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
    named = found.pop("named")
    for name in ("contours", "ocr", "both"):
        found[f"label/{name}"] = found.pop(f"read/{name}") / named if named else 0.0
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", default="web-12")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tasks = miniwob.chosen(args.tasks if args.tasks in miniwob.LISTS else args.tasks.split(","))
    shots = asyncio.run(pages(tasks, args.seeds))
    rows = [(task, measured(lines, picture)) for task, lines, picture in shots]
    every = {"all": summed([row for _, row in rows])}
    for task in tasks:
        every[task] = summed([row for own, row in rows if own == task])
    print(f"{len(shots)} pages of {len(tasks)} tasks")
    for name, value in every["all"].items():
        print(f"{name:18} {value:7.3f}")
    print(f"\n{'task':20} contours    ocr   both  labels (both)")
    for task in tasks:
        one = every[task]
        shares = "".join(f"{one[f'recall/{name}']:7.3f}" for name in ("contours", "ocr", "both"))
        print(f"{task:20} {shares} {one['label/both']:7.3f}")
    if args.json:
        args.json.write_text(json.dumps(every) + "\n", "utf-8")


if __name__ == "__main__":
    main()
