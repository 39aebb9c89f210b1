"""The environments of `web`: the page in Chromium, and its recording."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from forethought.core.types import Outcome, Task
from forethought.envs.adapters.bridge import Bridge
from forethought.envs.base import Environment, Observation
from forethought.envs.screen import png
from forethought.envs.screen.marks import drawn
from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser, Lost
from forethought.envs.web.page import Done, Episode, is_key
from forethought.interface.actions import Action
from forethought.interface.elements import Line
from forethought.interface.result import Refusal
from forethought.recipe.options.web import Disturb
from forethought.tasks.web.demonstrations import value_of
from forethought.tasks.web.walk import IN_THE_WAY, Luck, Walk, kept, still
from forethought.tasks.web.watching import Reel
from forethought.tasks.web.words import PLACE, Act, Full

AGAIN = "the page asks for more"  # which is no mistake: the next plan is for the new page
AREA, MARGIN = (160, 100), 4  # CSS pixels: what a page of MiniWoB++ has at least, and what is left beside it


class Recorded(Environment):
    """A recorded episode: acts are right where they are the oracle's on that page, and lead to the next one.
    Nothing is carried out, so another way to the same end counts as wrong. `stepwise`: one act a turn, after
    which only what has changed is read. `disturb`: what goes wrong on the way."""

    def __init__(
        self,
        state: Any,
        stop: str,
        reel: Reel | None = None,
        stepwise: bool = False,
        disturb: Disturb | None = None,
    ):
        self.state, self.stop, self.reel = state, stop, reel or Reel()
        self.stepwise, self.disturb = stepwise, disturb

    def reset(self, task: Task, seed: int | str) -> None:
        """The first page is the task's prompt."""
        self.speech, _ = self.state.begin()
        self.walk = Walk(self.state.shown, Luck(self.disturb, seed) if self.disturb else None)

    def step(self, action: str) -> Outcome:
        """The acts of one page, or one of them."""
        walk = self.walk
        before, page, wanted = walk.lines, walk.page, walk.wanted()
        self.reel.shot(before, action).needed = len(wanted)
        read = self.speech.read_acts(action, self.stop)
        if isinstance(read, Refusal):
            return self._over(str(read))
        if self.stepwise and len(read.value) > 1:
            return self._over(f"{len(read.value)} acts in a turn that does one")
        status = "done"
        for number, act in enumerate(read.value, 1):
            slipped, status = status == "slipped", walk.do(act)
            if status == "wrong":
                what = "before one that slipped" if slipped else "on another element or with another value"
                return self._over(f"act {number}: {act.op} {what}")
            if status == "covered":
                return self._shown(before, not self.stepwise, f"act {number}: covered, {IN_THE_WAY}")
            if walk.over:
                return self._over("", success=True)
            if walk.page != page:
                return self._shown(before, True, AGAIN)
        if len(walk.lines) < len(before):  # a popup was closed
            return self._shown(before, True, AGAIN)
        if self.stepwise:
            return self._shown(before, False, "")
        if status == "slipped":
            return self._shown(before, True, AGAIN)
        return self._over(f"{len(read.value)} acts where {len(wanted)} are needed")

    def _shown(self, before: Sequence[Line], anew: bool, reason: str) -> Outcome:
        lines, speech = self.walk.lines, self.speech
        seen = speech.next_page(lines) if anew else speech.changes(before, lines)
        return Outcome(
            done=False, observation=seen, reason=reason, replan=bool(reason), parts=parts(self.walk.luck)
        )

    def _over(self, reason: str, success: bool = False) -> Outcome:
        return Outcome(done=True, success=success, reason=reason, parts=parts(self.walk.luck))


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
        stepwise: bool = False,
        disturb: Disturb | None = None,
        pause: float = 0.0,
    ):
        self.state, self.attempts, self.stop, self.bridge = state, attempts, stop, bridge
        self.pause = pause  # seconds before each act, and at the end, for who watches
        self.reel, self.stepwise, self.disturb = reel or Reel(), stepwise, disturb
        self.episode = Episode(browser, miniwob.site(limit), events)  # type: ignore[arg-type]
        self.taken, self.popup = 0, ""
        self.luck: Luck | None = None

    async def reset(self, task: Task, seed: int) -> Observation:  # type: ignore[override]
        """The first page must be the one that was recorded: the prompt was made of it."""
        shown = self.state.shown
        seen = await self.bridge.there(self.episode.reset(shown.task, shown.seed))
        self.speech, _ = self.state.begin()
        self.luck = Luck(self.disturb, seed) if self.disturb else None
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
        if self.stepwise and len(read.value) > 1:
            return await self._next(f"{len(read.value)} acts in a turn that does one")
        for number, act in enumerate(read.value, 1):
            if act.op == "press" and not is_key(act.value):
                shot.became.append(("refused", "no such key"))
                return await self._next(f"act {number}: refused, no such key: {act.value!r:.40}")
            done = await self._carried_out(act)
            shot.became.append((done.status, done.reason))
            if done.status == "slipped":
                continue
            if done.status != "done":
                came = done.reason == IN_THE_WAY
                return await self._next(f"act {number}: {done.status}, {done.reason}", replan=came)
            if done.snapshot.done:
                shot.needed = number
                return self._over(done.snapshot.raw)
        return await self._next("" if self.stepwise else AGAIN, replan=not self.stepwise)

    async def _carried_out(self, act: Act) -> Done:
        """With what came between."""
        luck, line = self.luck, next((x for x in self.lines if act.ref and x.ref == act.ref), None)
        if luck and not self.popup:
            if came := luck.popup():
                await self.bridge.there(self.episode.interrupt(*came))
                self.popup = came[1]
                return Done(status="covered", snapshot=self.episode.snapshot, reason=IN_THE_WAY)
            if luck.slipped:
                return Done(status="slipped", snapshot=self.episode.snapshot)
        closes = line is not None and (act.op, line.role, line.name) == ("click", "button", self.popup)
        if self.popup and not closes:
            return Done(status="covered", snapshot=self.episode.snapshot, reason=IN_THE_WAY)
        action = Action(op=act.op, id=self.ref.get(act.ref, ""), value=value_of(act, line, self.lines))
        if self.pause:
            await self.bridge.there(self.episode.point(action.id, self.pause))
        done = await self.bridge.there(self.episode.act(action, look=False))
        if done.status == "done" and closes:
            self.popup = ""
        return done

    async def close(self) -> None:  # type: ignore[override]
        """Give the page back."""
        try:
            if self.pause:
                await self.bridge.there(asyncio.sleep(self.pause))
            if self.popup:
                await self.bridge.there(self.episode.interrupt("", ""))
        except Lost:
            pass  # and the popup with it
        finally:
            await self.bridge.there(self.episode.close())

    async def _next(self, reason: str, replan: bool = False) -> Outcome:
        if self.taken >= self.attempts:
            last = f"no end within {self.attempts} attempts; at last: {reason}"
            return Outcome(done=True, reason=last, parts=parts(self.luck))
        seen = await self.bridge.there(self.episode.look())
        if seen.done:
            return self._over(seen.raw)
        before, lines = self.lines, still(seen.lines) if self.stepwise or self.luck else seen.lines
        same = kept(before, lines, str(self.taken)) if self.stepwise else None
        self.lines = lines if same is None else same
        self.ref = {own.ref: x.ref for own, x in zip(self.lines, lines, strict=True) if own.ref}
        if self.stepwise and same is None:
            reason, replan = reason or AGAIN, True
        try:
            said = self.speech.next_page(lines) if same is None else self.speech.changes(before, same)
        except Full as full:
            return Outcome(done=True, reason=f"the page cannot be said: {full}", parts=parts(self.luck))
        return Outcome(done=False, observation=said, reason=reason, replan=replan, parts=parts(self.luck))

    def _over(self, raw: float) -> Outcome:
        reason = "" if raw >= 1 else f"the page says {raw:g}"
        return Outcome(done=True, success=raw >= 1, reason=reason, parts=parts(self.luck))


def parts(luck: Luck | None) -> dict[str, float]:
    """What a turn notes of its luck: so many popups and slips in the episode so far."""
    return luck.parts if luck else {}


def what(line: Line) -> tuple[str, str, tuple[str, ...]]:
    """What a line is. A drawing that moves is another one at each look, so its states do not count."""
    drawn = any(map(PLACE.fullmatch, line.state))
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
