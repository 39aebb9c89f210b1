"""How the oracle does a task, page by page: played in a browser, kept in a file, read without one.

The file is gzipped JSON lines, one an episode: {"task", "seed", "utterance", "pages"}; a page is its lines
([role, name, *states]; a line of the role `option` cannot be acted on), and the steps with the number of the
line that each is carried out on.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.envs.web.browser import Lost
from forethought.envs.web.page import Episode
from forethought.interface.actions import Action
from forethought.interface.elements import Line, describe, ground
from forethought.interface.gui import Step
from forethought.interface.result import Parsed, Refusal
from forethought.tasks.web.oracles import View, steps

MOST = 20  # pages of an episode


@dataclass(frozen=True, slots=True)
class Page:
    """What is seen, what is planned, and on which lines each step was carried out (their ids; "": no element,
    a key is pressed). Fewer ids than steps: the episode was over, or a step was not done."""

    lines: tuple[Line, ...]
    steps: tuple[Step, ...]
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One episode of the oracle that ended with success."""

    task: str
    seed: int
    utterance: str
    pages: tuple[Page, ...]


def value_of(step: Step, line: Line | None, lines: tuple[Line, ...]) -> Any:
    """The value of a step as a page takes it: of a list, the options that are chosen."""
    if step.op != "select" or step.value is None or line is None:
        return step.value
    at = lines.index(line) + 1
    options = []
    while at < len(lines) and lines[at].role == "option":
        options.append(lines[at].name)
        at += 1
    return [step.value] if step.value in options else step.value.split(", ")


def in_numbers(step: Step, lines: tuple[Line, ...]) -> Step:
    """The same step, its element told from others by its number and not by what stands above it."""
    found = ground(step.target, lines) if step.target else None
    if not isinstance(found, Parsed):
        return step
    return replace(step, target=describe(found.value, lines, anchors=False))


async def play(episode: Episode, task: str, seed: int, numbered: bool = False) -> Shown | None:
    """The oracle on a task; None where it does not reach its end, or the page was lost. `numbered`: its steps
    are kept with numbers in place of anchors."""
    pages: list[Page] = []
    past: list[Step] = []
    try:
        seen = await episode.reset(task, seed)
        utterance = seen.utterance
        for _ in range(MOST):
            lines = tuple(seen.lines)
            plan = steps(task, View(utterance=utterance, lines=lines, past=tuple(past)))
            refs: list[str] = []
            for step in plan:
                found = ground(step.target or "", lines) if step.target else None
                if isinstance(found, Refusal):
                    break
                line = found.value if found else None
                action = Action(op=step.op, id=line.ref if line else "", value=value_of(step, line, lines))
                done = await episode.act(action, look=False)
                if done.status != "done":
                    break
                refs.append(action.id)
                past.append(step)
                if done.snapshot.done:
                    break
            if not refs:
                return None
            told = tuple(in_numbers(step, lines) for step in plan) if numbered else tuple(plan)
            pages.append(Page(lines=lines, steps=told, refs=tuple(refs)))
            seen = await episode.look()
            if seen.done:
                good = seen.raw >= 1
                return Shown(task=task, seed=seed, utterance=utterance, pages=tuple(pages)) if good else None
        return None
    except Lost:
        return None
    finally:
        await episode.close()


def write(path: Path, shown: Iterable[Shown]) -> None:
    """The file; the same bytes for the same episodes."""
    with gzip.GzipFile(path, "wb", mtime=0) as out:
        for one in shown:
            out.write((json.dumps(_row(one), ensure_ascii=False, separators=(",", ":")) + "\n").encode())


def read(path: Path) -> Iterator[Shown]:
    """The episodes of a file. UserError, with the line, for one that is none."""
    with gzip.open(path, "rt", encoding="utf-8") as rows:
        for number, row in enumerate(rows, 1):
            try:
                yield _shown(json.loads(row))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise UserError(f"{path}, line {number}: no demonstration ({error!r})") from None


def _row(one: Shown) -> dict[str, Any]:
    pages = []
    for page in one.pages:
        at = {line.ref: i for i, line in enumerate(page.lines) if line.ref}
        told = [[s.op, s.target, s.value] for s in page.steps]
        lines = [[line.role, line.name, *line.state] for line in page.lines]
        pages.append([lines, told, [at.get(ref, -1) for ref in page.refs]])
    return {"task": one.task, "seed": one.seed, "utterance": one.utterance, "pages": pages}


def _shown(row: dict[str, Any]) -> Shown:
    pages = []
    for told, planned, numbers in row["pages"]:
        lines = tuple(
            Line(ref="" if role == "option" else f"l{i}", role=role, name=name, state=tuple(state))
            for i, (role, name, *state) in enumerate(told)
        )
        plan = tuple(Step(op=op, target=target, value=value) for op, target, value in planned)
        refs = tuple("" if n < 0 else lines[n].ref for n in numbers)
        pages.append(Page(lines=lines, steps=plan, refs=refs))
    return Shown(task=row["task"], seed=row["seed"], utterance=row["utterance"], pages=tuple(pages))
