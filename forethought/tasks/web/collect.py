"""Makes a file of demonstrations, and its vocabulary, from the oracles in a browser.

    python -m forethought.tasks.web.collect --tasks web-12 --episodes 300 --held 25 [--out FOLDER]
    python -m forethought.tasks.web.collect --tasks miniwob-56 --numbered --more email-inbox-nl-turk=2

A piece is a word of the vocabulary where a model must know it, in at least 8 % of the episodes of one of the
tasks: it is asked and neither planned nor on the page (`click on the`), planned and not asked (`Submit`), or
a state (`checked`). All else is copied, and is a slot. `--numbered` is for the longer pages of many tasks:
elements are told apart by their number (`words.Vocabulary`), what is asked alone is a word from 1 % on (free
wordings), and words are also the numbers and months that stand for each other, what pages say and nothing
copies (`higher`), and all that a task of synonyms says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser, summed
from forethought.envs.web.page import Episode
from forethought.interface.elements import parse
from forethought.interface.result import Parsed
from forethought.tasks.web.demonstrations import Shown, play, read, write
from forethought.tasks.web.oracles.dates import MONTHS
from forethought.tasks.web.splits import FIRST
from forethought.tasks.web.words import DRAWN, MARKS, class_of, pieces

SHARE, RARE, OFTEN = 0.08, 0.01, 0.3
AT_ONCE = 8  # pages of a task: each waits until it is at rest
NUMBERS = [*map(str, range(41)), *(f"0{i}" for i in range(1, 10))]
KNOWN = (*NUMBERS, *MONTHS, "Prev", "Next")
SYNONYMS = "click-checkboxes-soft"  # asks for words by others that mean the same
HERE = Path(__file__).parent
ROLES = (
    "button cell checkbox circle ellipse heading iframe img line link menuitem option password path polygon "
    "radio rect select slider spinbutton tab text textarea textbox"
).split()


@dataclass(frozen=True, slots=True)
class Said:
    """The pieces of an episode, by where they stand."""

    task: str
    asked: frozenset[str]
    planned: frozenset[str]
    shown: frozenset[str]  # as names
    states: frozenset[str]  # but for what fields hold
    held: frozenset[str]  # by fields
    classes: frozenset[str]

    @property
    def only_asked(self) -> frozenset[str]:
        """What cannot be copied of the question."""
        return self.asked - self.planned - self.shown

    @property
    def must_be_known(self) -> frozenset[str]:
        """What cannot be copied, or says in what form the question is."""
        return self.only_asked | (self.planned - self.asked) | self.states


def said(one: Shown, numbered: bool) -> Said:
    """`numbered`: as a vocabulary that numbers says it."""
    name, question = ("name", "question") if numbered else ("", "")
    lines = [line for page in one.pages for line in page.lines]
    told = [s for line in lines for s in line.state if not (numbered and DRAWN.fullmatch(s))]
    steps = [step for page in one.pages for step in page.steps]
    plans = [text for step in steps for text in (" ".join(_named(step.target)), step.value or "")]
    return Said(
        task=one.task,
        asked=_in([one.utterance], question),
        planned=_in(plans, name),
        shown=_in((line.name for line in lines), name),
        states=_in((s for s in told if s[:2] != "= "), name),
        held=_in((s.removeprefix("= ") for s in told if s[:2] == "= "), name),
        classes=frozenset(class_of(line) for line in lines) - {""},
    )


def _in(texts: Iterable[str], kind: str) -> frozenset[str]:
    return frozenset(piece for text in texts for piece, _ in pieces(text, kind) if piece not in MARKS)


def _named(target: str | None) -> list[str]:
    found = parse(target) if target else None
    return [found.value.name or "", found.value.after or ""] if isinstance(found, Parsed) else []


def shared(episodes: Iterable[Said], share: float, pieces_of: Callable[[Said], frozenset[str]]) -> set[str]:
    """The pieces that are so in at least this share of some task's episodes."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    for one in episodes:
        total[one.task] += 1
        seen[one.task].update(pieces_of(one))
    return {p for task, found in seen.items() for p, n in found.items() if n >= share * total[task]}


def vocabulary(episodes: Sequence[Shown], numbered: bool) -> dict[str, Any]:
    """The content of a file of words. `numbered`: there are as many slots as the longest episode needs."""
    every = [said(one, numbered) for one in episodes]
    found = shared(every, SHARE, lambda one: one.must_be_known)
    if not numbered:
        return {"roles": sorted(ROLES), "pieces": sorted(found)}
    copied = frozenset().union(*(one.asked | one.planned for one in every))
    synonyms = [one for one in every if one.task == SYNONYMS]
    found |= shared(every, RARE, lambda one: one.only_asked) | shared(every, SHARE, lambda one: one.classes)
    found |= shared(every, OFTEN, lambda one: one.shown - copied) | set(KNOWN)
    found |= shared(synonyms, RARE, lambda one: one.asked | one.shown)
    most = max(len((x.asked | x.planned | x.shown | x.states | x.held) - found) for x in every)
    slots = -(-(most + 8) // 16) * 16
    return {"roles": sorted(ROLES), "pieces": sorted(found), "slots": slots, "numbered": True}


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
    told = json.dumps(made, ensure_ascii=False, indent=0) + "\n"
    (chosen.out / f"words{ends}.json").write_text(told, "utf-8")
    print(f"{len(every)} episodes, {len(made['pieces'])} pieces")


if __name__ == "__main__":
    main()
