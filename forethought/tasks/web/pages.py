"""The environments of `web`: the page in Chromium, and its recording."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from forethought.core.types import Outcome, Task
from forethought.envs.adapters.bridge import Bridge
from forethought.envs.base import Environment, Observation
from forethought.envs.screen import png
from forethought.envs.screen.marks import drawn
from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser
from forethought.envs.web.page import Episode, is_key
from forethought.interface.actions import Action
from forethought.interface.elements import Line
from forethought.interface.result import Refusal
from forethought.tasks.web.demonstrations import value_of
from forethought.tasks.web.watching import Reel
from forethought.tasks.web.words import Act, Full

AGAIN = "the page asks for more"  # which is no mistake: the next plan is for the new page
_PLACE = re.compile(r"-?\d+,-?\d+")  # a state of what is drawn: its centre
AREA, MARGIN = (160, 100), 4  # CSS pixels: what a page of MiniWoB++ has at least, and what is left beside it


class Recorded(Environment):
    """A recorded episode: acts are right where they are the oracle's on that page, and lead to the next one.
    Nothing is carried out, so another way to the same end counts as wrong."""

    def __init__(self, state: Any, stop: str, reel: Reel | None = None):
        self.state, self.stop, self.at, self.reel = state, stop, 0, reel or Reel()

    def reset(self, task: Task, seed: int) -> None:
        """The first page is the task's prompt."""
        self.speech, _ = self.state.begin()

    def step(self, action: str) -> Outcome:
        """The acts of one page."""
        page = self.state.shown.pages[self.at]
        wanted = [(s.op, ref, s.value) for s, ref in zip(page.steps, page.refs, strict=False)]
        self.reel.shot(page.lines, action).needed = len(wanted)
        read = self.speech.read_acts(action, self.stop)
        if isinstance(read, Refusal):
            return Outcome(done=True, reason=str(read))
        for number, (want, act) in enumerate(zip(wanted, read.value, strict=False), 1):
            if want != (act.op, act.ref, act.value):
                return Outcome(
                    done=True, reason=f"act {number}: {act.op} on another element or with another value"
                )
        if len(read.value) < len(wanted):
            return Outcome(done=True, reason=f"{len(read.value)} acts where {len(wanted)} are needed")
        self.at += 1
        if self.at == len(self.state.shown.pages):
            return Outcome(done=True, success=True)
        seen = self.speech.next_page(self.state.shown.pages[self.at].lines)
        return Outcome(done=False, observation=seen, reason=AGAIN, replan=True)


class Live(Environment):
    """The page itself: it is played from the beginning with the seed of the task, and judges. After the acts
    of a plan, or one that could not be carried out, the page is shown as it is, for the next plan."""

    def __init__(
        self,
        state: Any,
        attempts: int,
        stop: str,
        events: str,
        limit: str,
        bridge: Bridge,
        browser: Browser,
        reel: Reel | None = None,
    ):
        self.state, self.attempts, self.stop, self.bridge = state, attempts, stop, bridge
        self.reel = reel or Reel()
        self.episode = Episode(browser, miniwob.site(limit), events)  # type: ignore[arg-type]
        self.taken = 0

    async def reset(self, task: Task, seed: int) -> Observation:  # type: ignore[override]
        """The first page must be the one that was recorded: the prompt was made of it."""
        shown = self.state.shown
        seen = await self.bridge.there(self.episode.reset(shown.task, shown.seed))
        self.speech, _ = self.state.begin()
        if list(map(what, seen.lines)) != list(map(what, shown.pages[0].lines)):
            raise RuntimeError(f"{shown.task}, seed {shown.seed}: the page is not the one that was recorded")
        # ids stand for lines, in order: those of the recording are those of the page
        self.ref = {own.ref: x.ref for own, x in zip(shown.pages[0].lines, seen.lines, strict=True)}
        self.lines: tuple[Line, ...] = tuple(
            replace(x, ref=own.ref) for own, x in zip(shown.pages[0].lines, seen.lines, strict=True)
        )
        return Observation()

    async def step(self, action: str) -> Outcome:  # type: ignore[override]
        """Carry the acts out, one after the other, until the page says that it is over."""
        self.taken += 1
        shot = self.reel.shot(self.lines, action)
        if self.reel.pictures:
            taken = await self.bridge.there(self.episode.picture(room(self.lines)))
            shot.picture, shot.width, shot.height = taken
            if self.reel.marks:
                ids = {line.ref: int(self.speech.ref_of(line)[1:]) for line in self.lines if line.ref}
                shot.picture = marked(shot.picture, shot.width, self.lines, ids)
        read = self.speech.read_acts(action, self.stop)
        if isinstance(read, Refusal):
            return await self._next(str(read))
        for number, act in enumerate(read.value, 1):
            if act.op == "press" and not is_key(act.value):
                shot.became.append(("refused", "no such key"))
                return await self._next(f"act {number}: refused, no such key: {act.value!r:.40}")
            done = await self.bridge.there(self.episode.act(self._action(act), look=False))
            shot.became.append((done.status, done.reason))
            if done.status != "done":
                return await self._next(f"act {number}: {done.status}, {done.reason}")
            if done.snapshot.done:
                shot.needed = number
                return self._over(done.snapshot.raw)
        return await self._next(AGAIN, replan=True)

    async def close(self) -> None:  # type: ignore[override]
        """Give the page back."""
        await self.bridge.there(self.episode.close())

    def _action(self, act: Act) -> Action:
        line = next((x for x in self.lines if act.ref and x.ref == act.ref), None)
        return Action(op=act.op, id=self.ref.get(act.ref, ""), value=value_of(act, line, self.lines))

    async def _next(self, reason: str, replan: bool = False) -> Outcome:
        if self.taken >= self.attempts:
            return Outcome(done=True, reason=f"no end within {self.attempts} attempts; at last: {reason}")
        seen = await self.bridge.there(self.episode.look())
        if seen.done:
            return self._over(seen.raw)
        self.lines, self.ref = seen.lines, {x.ref: x.ref for x in seen.lines if x.ref}
        try:
            return Outcome(
                done=False, observation=self.speech.next_page(seen.lines), reason=reason, replan=replan
            )
        except Full as full:
            return Outcome(done=True, reason=f"the page cannot be said: {full}")

    def _over(self, raw: float) -> Outcome:
        return Outcome(done=True, success=raw >= 1, reason="" if raw >= 1 else f"the page says {raw:g}")


def what(line: Line) -> tuple[str, str, tuple[str, ...]]:
    """What a line is. A drawing that moves is another one at each look, so its states do not count."""
    drawn = any(_PLACE.fullmatch(state) for state in line.state)
    return line.role, line.name, () if drawn else line.state


def marked(picture: bytes, width: int, lines: Iterable[Line], ids: Mapping[str, int]) -> bytes:
    """A picture of a page, so many CSS pixels wide, with the ids of its elements drawn on it."""
    found = png.read(picture)
    scale = found.shape[1] / width
    some = [line for line in lines if line.ref in ids and len(line.box) == 4]
    boxes = [(x * scale, y * scale, w * scale, h * scale) for x, y, w, h in (line.box for line in some)]
    return png.write(drawn(found, boxes, [ids[line.ref] for line in some], max(1, round(scale))))


def room(lines: Iterable[Line]) -> tuple[int, int]:
    """Width and height of what holds all lines, at least `AREA`."""
    boxes = [line.box for line in lines if len(line.box) == 4]
    right = max((x + width for x, _, width, _ in boxes), default=0)
    bottom = max((y + height for _, y, _, height in boxes), default=0)
    return max(right + MARGIN, AREA[0]), max(bottom + MARGIN, AREA[1])
