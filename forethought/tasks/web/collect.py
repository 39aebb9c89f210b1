"""Makes a file of demonstrations, and its vocabulary, from the oracles in a browser.

    python -m forethought.tasks.web.collect --tasks web-12 --episodes 300 --held 25 [--out FOLDER]
    python -m forethought.tasks.web.collect --tasks miniwob-56 --numbered --more email-inbox-nl-turk=2

A piece is a word of the vocabulary where a model must know it, in at least 8 % of the episodes of one of the
tasks: it is asked and neither planned nor on the page (`click on the`), planned and not asked (`Submit`), or
a state (`checked`). All else is copied, and is a slot. `--numbered` is for the longer pages of many tasks:
elements are told apart by their number (`words.Vocabulary`), what is asked alone is a word from 1 % on (free
wordings, synonyms), and the numbers and months that stand for each other are words.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser, summed
from forethought.envs.web.page import Episode
from forethought.interface.elements import Line, parse
from forethought.interface.result import Parsed
from forethought.tasks.web.demonstrations import Shown, play, read, write
from forethought.tasks.web.oracles.dates import MONTHS
from forethought.tasks.web.splits import FIRST
from forethought.tasks.web.words import DRAWN, MARKS, pieces

SHARE, RARE = 0.08, 0.01
AT_ONCE = 8  # pages of a task: each waits until it is at rest
NUMBERS = [*map(str, range(41)), *(f"0{i}" for i in range(1, 10))]
KNOWN = (*NUMBERS, *MONTHS, "Prev", "Next")
HERE = Path(__file__).parent
ROLES = (
    "button cell checkbox circle ellipse heading iframe img line link menuitem option password path polygon "
    "radio rect select slider spinbutton tab text textarea textbox"
).split()


def only_asked(one: Shown) -> set[str]:
    """The pieces that an episode asks with and that cannot be copied."""
    return _in(one.utterance) - _planned(one) - _shown(one)


def must_be_known(one: Shown) -> set[str]:
    """The pieces of an episode that cannot be copied, or that say in what form the question is."""
    states = {p for line in _lines(one) for s in line.state if s[:2] != "= " for p in _in(s)}
    return only_asked(one) | (_planned(one) - _in(one.utterance)) | states


def _in(text: str) -> set[str]:
    return {piece for piece, _ in pieces(text) if piece not in MARKS}


def _lines(one: Shown) -> list[Line]:
    return [line for page in one.pages for line in page.lines]


def _shown(one: Shown) -> set[str]:
    return {p for line in _lines(one) for p in _in(line.name)}


def _planned(one: Shown) -> set[str]:
    steps = [step for page in one.pages for step in page.steps]
    return {p for step in steps for p in _in(" ".join(_named(step.target))) | _in(step.value or "")}


def _named(target: str | None) -> list[str]:
    found = parse(target) if target else None
    return [found.value.name or "", found.value.after or ""] if isinstance(found, Parsed) else []


def shared(
    episodes: Iterable[Shown], share: float = SHARE, pieces_of: Callable[[Shown], set[str]] = must_be_known
) -> set[str]:
    """The pieces that must be known in at least this share of some task's episodes."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    for one in episodes:
        total[one.task] += 1
        seen[one.task].update(pieces_of(one))
    return {p for task, found in seen.items() for p, n in found.items() if n >= share * total[task]}


def classes(one: Shown) -> set[str]:
    """States that are the class of an element."""
    return {s for line in _lines(one) for s in line.state if s[:1] == "." and " " not in s}


def vocabulary(episodes: Sequence[Shown], numbered: bool) -> dict[str, Any]:
    """The content of a file of words. `numbered`: there are as many slots as the longest episode needs."""
    if not numbered:
        return {"roles": sorted(ROLES), "pieces": sorted(shared(episodes))}
    episodes = [_as_said(one) for one in episodes]
    found = shared(episodes)
    found |= shared(episodes, RARE, only_asked) | shared(episodes, SHARE, classes) | set(KNOWN)
    most = max(len(_other(one, found)) for one in episodes)
    slots = -(-(most + 8) // 16) * 16
    return {"roles": sorted(ROLES), "pieces": sorted(found), "slots": slots, "numbered": True}


def _as_said(one: Shown) -> Shown:
    """Without the states that no numbered page says."""
    pages = []
    for page in one.pages:
        lines = (replace(x, state=tuple(s for s in x.state if not DRAWN.fullmatch(s))) for x in page.lines)
        pages.append(replace(page, lines=tuple(lines)))
    return replace(one, pages=tuple(pages))


def _other(one: Shown, known: set[str]) -> set[str]:
    """The pieces that are slots."""
    states = {p for line in _lines(one) for s in line.state for p in _in(s.removeprefix("= "))}
    return (_in(one.utterance) | _planned(one) | _shown(one) | states) - known


async def collect(
    tasks: Mapping[str, int], held: int, seconds: float, numbered: bool, at_once: int = AT_ONCE
) -> list[Shown]:
    """So many episodes of each task to train on, and `held` to evaluate on, for at most so many seconds a
    task."""
    browser, found = Browser(skip=miniwob.SKIP), []
    try:
        for task, train in tasks.items():
            began = time.monotonic()
            for first, wanted in ((0, held), (FIRST, train)):
                good: list[Shown] = []
                seed = first
                while len(good) < wanted and time.monotonic() - began < seconds:
                    seeds = range(seed, seed + min(at_once, wanted - len(good)))
                    played = (play(Episode(browser, miniwob.site()), task, s, numbered) for s in seeds)
                    good += [one for one in await asyncio.gather(*played) if one]
                    seed = seeds.stop
                print(
                    f"{task:28s} {len(good)} of {seed - first} in {time.monotonic() - began:.0f} s",
                    flush=True,
                )
                found += good
        print(summed(browser.counts))
    finally:
        await browser.close()
    return found


def main() -> None:
    """The command line: plays, writes the file, and counts the words."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", default="web-12")
    parser.add_argument("--episodes", type=int, default=300, help="of each task, to train on")
    parser.add_argument("--more", nargs="*", default=[], metavar="TASK=N", help="N times as many of a task")
    parser.add_argument("--held", type=int, default=25, help="of each task, to evaluate on")
    parser.add_argument("--seconds", type=float, default=90.0, help="most for one task")
    parser.add_argument(
        "--numbered", action="store_true", help="elements that share their words are numbered"
    )
    parser.add_argument("--out", type=Path, default=HERE)
    chosen = parser.parse_args()
    names = chosen.tasks if chosen.tasks in miniwob.LISTS else chosen.tasks.split(",")
    wanted = dict.fromkeys(miniwob.chosen(names), chosen.episodes)
    for task, times in (one.split("=") for one in chosen.more):
        wanted[task] = round(float(times) * chosen.episodes)
    found = asyncio.run(collect(wanted, chosen.held, chosen.seconds, chosen.numbered))
    ends = "-56" if chosen.numbered else ""
    write(chosen.out / f"demonstrations{ends}.jsonl.gz", found)
    every = list(read(chosen.out / f"demonstrations{ends}.jsonl.gz"))
    made = vocabulary([one for one in every if one.seed >= FIRST], chosen.numbered)
    said = json.dumps(made, ensure_ascii=False, indent=0) + "\n"
    (chosen.out / f"words{ends}.json").write_text(said, "utf-8")
    print(f"{len(every)} episodes, {len(made['pieces'])} pieces")


if __name__ == "__main__":
    main()
