"""Makes the file of demonstrations, and the vocabulary, from the oracles in a browser.

    python -m forethought.tasks.web.collect --tasks web-12 --episodes 300 --held 25 [--out FOLDER]

A piece is a word of the vocabulary where a model must know it, in at least 8 % of the episodes of one of the
tasks: it is asked and neither planned nor on the page (`click on the`), planned and not asked (`Submit`), or
a state (`checked`). All else is copied, and is a slot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser, summed
from forethought.envs.web.page import Episode
from forethought.interface.elements import parse
from forethought.interface.result import Parsed
from forethought.tasks.web.demonstrations import Shown, play, read, write
from forethought.tasks.web.splits import FIRST
from forethought.tasks.web.words import MARKS, pieces

SHARE = 0.08
HERE = Path(__file__).parent
ROLES = (
    "button cell checkbox circle ellipse heading iframe img line link menuitem option password path polygon "
    "radio rect select slider spinbutton tab text textarea textbox"
).split()


def must_be_known(one: Shown) -> set[str]:
    """The pieces of an episode that cannot be copied, or that say in what form the question is."""
    asked = _in(one.utterance)
    steps = [step for page in one.pages for step in page.steps]
    planned = {p for step in steps for p in _in(" ".join(_named(step.target))) | _in(step.value or "")}
    lines = [line for page in one.pages for line in page.lines]
    shown = {p for line in lines for p in _in(line.name)}
    states = {p for line in lines for state in line.state if state[:2] != "= " for p in _in(state)}
    return (asked - planned - shown) | (planned - asked) | states


def _in(text: str) -> set[str]:
    return {piece for piece, _ in pieces(text) if piece not in MARKS}


def _named(target: str | None) -> list[str]:
    found = parse(target) if target else None
    return [found.value.name or "", found.value.after or ""] if isinstance(found, Parsed) else []


def shared(episodes: Iterable[Shown], share: float = SHARE) -> list[str]:
    """The pieces that must be known in at least this share of some task's episodes."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    for one in episodes:
        total[one.task] += 1
        seen[one.task].update(must_be_known(one))
    return sorted({p for task, found in seen.items() for p, n in found.items() if n >= share * total[task]})


async def collect(tasks: Iterable[str], train: int, held: int, seconds: float) -> list[Shown]:
    """So many episodes of each task to train on and to evaluate on, for at most so many seconds a task."""
    browser, found = Browser(skip=miniwob.SKIP), []
    try:
        for task in tasks:
            began = time.monotonic()
            for first, wanted in ((0, held), (FIRST, train)):
                good, seed = 0, first
                while good < wanted and time.monotonic() - began < seconds:
                    one = await play(Episode(browser, miniwob.site()), task, seed)
                    seed, good = seed + 1, good + bool(one)
                    found += [one] if one else []
                print(f"{task:28s} {good} of {seed - first} in {time.monotonic() - began:.0f} s", flush=True)
        print(summed(browser.counts))
    finally:
        await browser.close()
    return found


def main() -> None:
    """The command line: plays, writes the file, and counts the words."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", default="web-12")
    parser.add_argument("--episodes", type=int, default=300, help="of each task, to train on")
    parser.add_argument("--held", type=int, default=25, help="of each task, to evaluate on")
    parser.add_argument("--seconds", type=float, default=90.0, help="most for one task")
    parser.add_argument("--out", type=Path, default=HERE)
    chosen = parser.parse_args()
    names = chosen.tasks if chosen.tasks in miniwob.LISTS else chosen.tasks.split(",")
    found = asyncio.run(collect(miniwob.chosen(names), chosen.episodes, chosen.held, chosen.seconds))
    write(chosen.out / "demonstrations.jsonl.gz", found)
    every = list(read(chosen.out / "demonstrations.jsonl.gz"))
    made = {"roles": sorted(ROLES), "pieces": shared(one for one in every if one.seed >= FIRST)}
    (chosen.out / "words.json").write_text(json.dumps(made, ensure_ascii=False, indent=0) + "\n", "utf-8")
    print(f"{len(every)} episodes, {len(made['pieces'])} pieces")


if __name__ == "__main__":
    main()
