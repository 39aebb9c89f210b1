"""Which elements of a page matter, found from demonstrations: the data of Blink (BTL-UI, arXiv 2509.15566).

There a detector and a large model choose them. Here nobody has to: what matters are the elements that the
oracle's steps touch, in their order, and then those by which its words tell them from others (anchors). At
most five, as there.

    look    :textbox Username e7 :button Login e31 </blink>        lines of the page, without their states

    python -m forethought.tasks.web.blinking [--tasks web-12] [--n 2] [--out FILE]

writes them as JSON lines: task, seed, page, and of each focus its place in the page (from 0), its words, and
why it is there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forethought.core.scripts import ended
from forethought.core.types import Verdict
from forethought.interface.elements import Line, parse
from forethought.interface.result import Parsed, Refusal
from forethought.tasks.web.demonstrations import Page, read

MOST = 5
STOP = "</blink>"
_REF = re.compile(r"e[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Focus:
    """One element. `rank`: from 1, the most important first."""

    line: Line
    rank: int
    why: Literal["touched", "anchor"]


def focuses(page: Page, most: int = MOST) -> tuple[Focus, ...]:
    """What matters on a page of a demonstration."""
    by_ref = {line.ref: line for line in page.lines if line.ref}
    touched = [by_ref[ref] for ref in page.refs if ref in by_ref]
    anchors = [line for step in page.steps[: len(page.refs)] for line in _anchor(step.target, page.lines)]
    found: dict[str, Literal["touched", "anchor"]] = {}
    for lines, why in ((touched, "touched"), (anchors, "anchor")):
        for line in lines:
            found.setdefault(line.ref, why)  # type: ignore[arg-type]
    some = list(found.items())[:most]
    return tuple(Focus(by_ref[ref], rank, why) for rank, (ref, why) in enumerate(some, 1))


def _anchor(target: str | None, lines: Sequence[Line]) -> Iterator[Line]:
    read_ = parse(target) if target else None
    if isinstance(read_, Parsed) and read_.value.after is not None:
        yield from (line for line in lines if line.ref and line.name == read_.value.after)


# ---- in words


def said(found: Sequence[Focus], speech: Any) -> str:
    """A look. `speech`: in which the page has been said last."""
    words = [speech.named(one.line) for one in found]
    return " ".join([*words, STOP])


def parsed(text: str) -> list[str] | Refusal:
    """The ids of a look, as the model says them."""
    words = text.split()
    if not words or words[-1] != STOP:
        return Refusal(position=len(words) + 1, reason=f"a look ends with {STOP}", unit="word")
    refs: list[str] = []
    start = True
    for at, word in enumerate(words[:-1], 1):
        if start and word[0] != ":":
            return Refusal(position=at, reason="an element begins with its role", unit="word")
        start = bool(_REF.fullmatch(word))
        if start:
            if word in refs:
                return Refusal(position=at, reason=f"{word} is named twice", unit="word")
            refs.append(word)
    if not start:
        return Refusal(position=len(words), reason="an element ends with its id", unit="word")
    if len(refs) > MOST:
        return Refusal(position=len(words), reason=f"{len(refs)} elements; at most {MOST}", unit="word")
    return refs


def judged(text: str, found: Sequence[Focus], speech: Any) -> Verdict:
    """1 where exactly what matters is named, in any order; else 0 with the first mistake."""
    refs = parsed(text)
    if isinstance(refs, Refusal):
        return Verdict(score=0.0, reason=str(refs))
    wanted = {speech.ref_of(one.line): one for one in found}
    for ref in refs:
        if ref not in wanted:
            return Verdict(score=0.0, reason=f"{ref} does not matter")
    missing = [ref for ref in wanted if ref not in refs]
    return Verdict(score=float(not missing), reason=f"{missing[0]} is missing" if missing else "")


# ---- the command


def rows(path: Path, tasks: Sequence[str], n: int) -> Iterator[dict[str, Any]]:
    """Of the first n episodes of each task."""
    counts: dict[str, int] = {}
    for one in read(path):
        if one.task not in tasks or counts.get(one.task, 0) >= n:
            continue
        counts[one.task] = counts.get(one.task, 0) + 1
        for number, page in enumerate(one.pages):
            told = [
                {
                    "line": page.lines.index(focus.line),
                    "role": focus.line.role,
                    "name": focus.line.name,
                    "why": focus.why,
                }
                for focus in focuses(page)
            ]
            yield {
                "task": one.task,
                "seed": one.seed,
                "page": number,
                "asked": one.utterance,
                "focuses": told,
            }


def main(given: Sequence[str] | None = None) -> int:
    """The command line."""
    from forethought.envs.web import miniwob
    from forethought.tasks.web.shipped import shipped

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", default="web-12")
    parser.add_argument("--n", type=int, default=10**9, help="episodes of each task (default: all)")
    parser.add_argument("--out", type=Path, help="a file (default: the terminal)")
    chosen = parser.parse_args(given)

    def work() -> None:
        names = miniwob.chosen(chosen.tasks if chosen.tasks in miniwob.LISTS else chosen.tasks.split(","))
        path, _ = shipped(names)
        lines = [json.dumps(row, ensure_ascii=False) for row in rows(path, names, chosen.n)]
        if chosen.out:
            chosen.out.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        else:
            print(*lines, sep="\n")

    return ended(work, chosen.out)


if __name__ == "__main__":
    sys.exit(main())
