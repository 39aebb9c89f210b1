"""One episode on one page: begin, act, look, and give the page back.

What becomes of an action is a status with a name:

    done        it was carried out
    stale       the id is none of the last snapshot, or its element is gone
    hidden      it has no size, or cannot be seen
    covered     another element lies over it (mouse only)
    moving      it does not keep still under the pointer (mouse only)
    disabled    it takes no input
    refused     the field does not take this value, or the list has no such option

Only the first changes the page. What costs the whole episode is raised as `browser.Lost`: crashed, hung,
lost, dialogs, navigated, unreachable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from forethought.envs.web.browser import LEFT, Browser, Lost, Page
from forethought.envs.web.snapshot import Snapshot, read
from forethought.interface.actions import Action

Events = Literal["js", "mouse"]
OPS = ("click", "hover", "type", "select", "press")
KEYS = (
    "Enter",
    "Tab",
    "Escape",
    "Backspace",
    "Delete",
    "Home",
    "End",
    "PageUp",
    "PageDown",
    "ArrowUp",
    "ArrowDown",
    "ArrowLeft",
    "ArrowRight",
    "Space",
)
REFUSED = {"no field", "no list", "no such option", "not accepted"}
REASONS = {
    "stale": "there is no such element on the page now",
    "hidden": "the element cannot be seen",
    "covered": "another element lies over it",
    "moving": "the element does not keep still",
    "disabled": "the element takes no input",
    "no field": "nothing can be typed into the element",
    "no list": "the element is no list of options",
    "no such option": "the list has no such option",
    "not accepted": "the field does not take this value",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long the page is waited for. The page is at rest when no timer is due within a second and two looks
    `gap` seconds apart are equal; at most `most` seconds. `answer`: seconds for one script in the page."""

    gap: float = 0.03
    most: float = 1.5
    answer: float = 10.0
    load: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where tasks are played. `address` of the page of a task. `begin`: a script that starts an episode, of
    [seed]; "": the page is loaded, no more. `look`: a script that gives a snapshot, of [seed, refs]."""

    address: Callable[[str], str]
    begin: str = ""
    look: str = "([seed, refs]) => forethought.snapshot(seed, refs)"
    over: str = "() => [false, 0]"  # a script that says whether the episode is over, and its raw reward


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of an action, and the page after it."""

    status: str
    snapshot: Snapshot
    reason: str = ""


class Episode:
    """One episode of a task. `events`: "js" dispatches events on the element itself, so that a click always
    hits what is meant; "mouse" moves a real pointer and types on a real keyboard. `refs`: ids are drawn from
    so many numbers."""

    def __init__(
        self, browser: Browser, site: Site, events: Events = "js", pace: Pace | None = None, refs: int = 200
    ):
        self.browser, self.site, self.events, self.refs = browser, site, events, refs
        self.pace = pace or Pace()
        self._page: Page | None = None
        self._seed = self._looks = 0
        self.snapshot = Snapshot(lines=())

    async def reset(self, task: str, seed: int) -> Snapshot:
        """The page of the task, drawn with `seed`; ids are drawn with it too."""
        self._page = await self.browser.take(self.site.address(task), self.pace.load)
        self._seed, self._looks = seed, 0
        if self.site.begin:
            await self._call(self.site.begin, [seed])
        return await self.look()

    async def look(self) -> Snapshot:
        """The page as it is now, at rest, with new ids."""
        await self._call("([gap, most]) => forethought.rest(gap, most)", self._waits())
        self._looks += 1
        found = await self._call(self.site.look, [(self._seed * 1009 + self._looks) % 2**31, self.refs])
        self._stay()
        self.snapshot = read(found)
        return self.snapshot

    async def act(self, action: Action, look: bool = True) -> Done:
        """Carry the action out, and look (`look` false: ids stay as they are). ValueError for an op or a
        value that no page takes."""
        check(action)
        status = await (self._mouse(action) if self.events == "mouse" else self._script(action))
        why = REASONS.get(status, "")
        status = "refused" if status in REFUSED else status or "done"
        return Done(status=status, snapshot=await (self.look() if look else self._over()), reason=why)

    async def _over(self) -> Snapshot:
        """The last snapshot, whose ids still hold, and whether the episode is over."""
        await self._call("([gap, most]) => forethought.rest(gap, most)", self._waits())
        done, raw = await self._call(self.site.over)
        self._stay()
        return replace(self.snapshot, done=bool(done), raw=float(raw))

    def _stay(self) -> None:
        if self._at.left:
            self._at.status = "navigated"
            raise Lost("navigated", LEFT)

    async def picture(self, room: tuple[int, int] | None = None) -> tuple[bytes, int, int]:
        """A PNG of what the window shows, with its width and height in CSS pixels. `room`: no more than so
        many from the left and from the top."""
        window = self.browser.window
        width, height = (
            min(a, b) for a, b in zip(room or (10**6,) * 2, (window.width, window.height), strict=True)
        )
        clip = {"x": 0, "y": 0, "width": width, "height": height}
        taken = await self._at.within(self._at.page.screenshot(clip=clip), self.pace.answer)
        return taken, width, height

    async def point(self, ref: str, seconds: float) -> None:
        """Frame an element for so long, for who watches the window. What stands there is not changed."""
        await self._call("([ref, on]) => forethought.point(ref, on)", [ref, True])
        await asyncio.sleep(seconds)
        await self._call("([ref, on]) => forethought.point(ref, on)", [ref, False])

    async def interrupt(self, text: str, button: str) -> None:
        """A popup over the whole page, until its button is clicked; "": none any more."""
        await self._call("([text, button]) => forethought.popup(text, button)", [text, button])

    async def close(self) -> None:
        """Give the page back."""
        page, self._page = self._page, None
        if page is not None:
            await self.browser.give_back(page)

    # ---- actions

    async def _script(self, action: Action) -> str:
        if action.op == "press":
            return await self._press(action)
        if action.op in ("click", "hover"):
            return await self._call(f"ref => forethought.{action.op}(ref)", action.id)
        if action.op == "type":
            return await self._call("([ref, text]) => forethought.fill(ref, text)", [action.id, action.value])
        return await self._call("([ref, values]) => forethought.select(ref, values)", self._choice(action))

    async def _mouse(self, action: Action) -> str:
        if action.op == "press":
            return await self._press(action)
        if action.op == "select":
            return await self._call(
                "([ref, values]) => forethought.select(ref, values)", self._choice(action)
            )
        at = await self._still(action.id)
        if isinstance(at, str):
            return at
        mouse, keyboard = self._at.page.mouse, self._at.page.keyboard
        if action.op == "hover":
            return ""
        await self._at.within(mouse.click(at["x"], at["y"]), self.pace.answer)
        if action.op == "type":
            kind = await self._call(
                "() => { const e = document.activeElement; return [e.type || '', 'value' in e]; }"
            )
            if kind[0] in ("date", "time"):  # nobody types the dialect of the browser's own widget
                return await self._call(
                    "([ref, text]) => forethought.fill(ref, text)", [action.id, action.value]
                )
            if not kind[1]:
                return "no field"
            await self._at.within(keyboard.press("Control+A"), self.pace.answer)
            if action.value:
                await self._at.within(keyboard.type(action.value), self.pace.answer)
            else:
                await self._at.within(keyboard.press("Delete"), self.pace.answer)
        return ""

    async def _still(self, ref: str) -> dict[str, Any] | str:
        """Where the pointer stands on the element: it is moved there until the box keeps still."""
        at = await self._call("ref => forethought.place(ref, true)", ref)
        for _ in range(10):
            if at["status"] in ("stale", "disabled"):
                return at["status"]
            await self._at.within(self._at.page.mouse.move(at["x"], at["y"]), self.pace.answer)
            now = await self._call("ref => forethought.place(ref, false)", ref)
            if now["status"] in ("", "covered") and now["box"] == at["box"]:
                return now["status"] or now
            at = now
            await asyncio.sleep(0.02)  # pictures that load, menus that open under the pointer
        return at["status"] or "moving"

    async def _press(self, action: Action) -> str:
        if action.id:
            focused = await self._call("ref => forethought.place(ref, true)", action.id)
            if focused["status"] == "stale":
                return "stale"
            await self._at.within(self._at.page.mouse.click(focused["x"], focused["y"]), self.pace.answer)
        await self._at.within(self._at.page.keyboard.press(action.value), self.pace.answer)
        return ""

    def _choice(self, action: Action) -> list[Any]:
        values = [action.value] if isinstance(action.value, str) else list(action.value)
        return [action.id, values]

    # ---- the page

    @property
    def _at(self) -> Page:
        if self._page is None:
            raise RuntimeError("an episode is reset before it is used")
        return self._page

    async def _call(self, script: str, argument: Any = None) -> Any:
        return await self._at.call(script, argument, self.pace.answer + self.pace.most)

    def _waits(self) -> Sequence[float]:
        return [1000 * self.pace.gap, 1000 * self.pace.most]


def is_key(value: str | None) -> bool:
    """Whether a page takes it as a key."""
    return value in KEYS or (isinstance(value, str) and len(value) == 1)


def check(action: Action) -> None:
    """ValueError for an action that no page takes."""
    if action.op not in OPS:
        raise ValueError(f"{action.op!r} is none of {', '.join(OPS)}")
    if action.op == "press":
        if not is_key(action.value):
            raise ValueError(f"{action.value!r} is no key; give one character or one of {', '.join(KEYS)}")
        return
    if not action.id:
        raise ValueError(f"{action.op} names no element")
    if action.op in ("click", "hover") and action.value is not None:
        raise ValueError(f"{action.op} takes no value, found {action.value!r}")
    if action.op == "type" and not isinstance(action.value, str):
        raise ValueError(f"type takes a text, found {action.value!r}")
    if action.op == "select":
        listed = (
            isinstance(action.value, list) and action.value and all(isinstance(v, str) for v in action.value)
        )
        if not (isinstance(action.value, str) or listed):
            raise ValueError(f"select takes an option or a list of them, found {action.value!r}")
