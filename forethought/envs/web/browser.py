"""Chromium, driven by Playwright: pages that are handed out, given back, and replaced when they break.

A page is used by one episode at a time and kept for the next one on the same address. What goes wrong has a
name (`Lost.status`): the page `crashed`, an answer did not come (`hung`), the browser died (`lost`). That
costs the episodes that used it and nothing else: a page is replaced, a dead browser is started again.

This is the one module that imports Playwright (`pip install "forethought[web]"`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from forethought.core.errors import RecipeError, UserError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    # a page that is not in front keeps its timers
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)
USES = 50  # episodes of one page, until it is loaded anew: nothing that a page leaks grows for long
DIALOGS = 20  # of one episode; a page that opens more is in a loop
CRASH = 0.5  # seconds that a page which hangs has to crash; it does not answer
LEFT = "the page went to another address"
CLOSE, LEAVE = 2.0, 5.0  # seconds that a page and the browser have to close


class Lost(Exception):
    """The page of an episode is gone: `status` is crashed, hung, lost, dialogs,
    navigated or unreachable."""

    def __init__(self, status: str, reason: str):
        super().__init__(f"{status}: {reason}")
        self.status, self.reason = status, reason


@dataclass(eq=False)
class Page:
    """A page with what happened to it since it was handed out."""

    url: str
    page: Any  # playwright's
    control: Any = None  # of the browser's protocol: reaches a page that does not answer
    uses: int = 0
    dialogs: int = 0  # of this episode
    status: str = ""  # why it cannot be used again
    left: bool = False  # it stands on another document now
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, script: str, argument: Any = None, seconds: float = 10.0) -> Any:
        """The value of a script of ours in the page. Lost where the page is gone or does not answer."""
        return await self.within(self.page.evaluate(script, argument), seconds)

    async def within(self, waiting: Any, seconds: float) -> Any:
        """The value of anything that Playwright does on the page, within so many seconds."""
        work = asyncio.ensure_future(waiting)
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait({work, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not work.cancelled() and work.exception() is None:
                return work.result()
            if self.status:
                raise Lost(self.status, f"after {self.uses} episodes on this page")
            if not work.done():
                self.status = "hung"
                raise Lost("hung", f"the page did not answer within {seconds:g} s")
            error = work.exception()
            assert error is not None
            if _closed(error):
                await asyncio.sleep(0)  # the event that says why may be on its way
                self.status = self.status or "lost"
                raise Lost(self.status, "the page was closed") from None
            if "context was destroyed" in str(error):
                self.status = "navigated"
                raise Lost("navigated", LEFT) from None
            raise error
        finally:
            for one in (work, gone):
                if not one.done():
                    one.cancel()
                with suppress(BaseException):
                    if one.done():
                        one.exception()


def _closed(error: BaseException) -> bool:
    return "closed" in str(error) or "crashed" in str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How pages are shown. `width`, `height` in CSS pixels. `scale`: pixels of a picture for each of these.
    `offline`: nothing but files is loaded."""

    width: int = 400
    height: int = 300
    scale: float = 1.0
    offline: bool = True
    shown: bool = False  # in a visible window


class Browser:
    """One Chromium for all pages of a run. All methods run on one event loop. `counts` says what happened:
    pages opened and closed, starts, crashed, hung, lost, dialogs, popups, errors."""

    def __init__(
        self, path: str = "", window: Window | None = None, skip: Sequence[str] = (), most: int = 16
    ):
        self.path, self.window, self.skip, self.most = path, window or Window(), tuple(skip), most
        self.counts: dict[str, int] = {}
        self._script = files("forethought.envs.web").joinpath("page.js").read_text("utf-8")
        self._playwright: Any = None
        self._browser: Any = None
        self._context: Any = None
        self._free: list[Page] = []
        self._used: set[Page] = set()
        self._starting: asyncio.Lock | None = None

    async def take(self, url: str, seconds: float = 30.0) -> Page:
        """A page at this address for one episode: one that was given back, or a new one."""
        at = next((p for p in self._free if p.url == url), None)
        if at is not None:
            self._free.remove(at)
        else:
            at = await self._opened(url, seconds)
        at.uses += 1
        at.dialogs = 0
        self._used.add(at)
        return at

    async def give_back(self, page: Page) -> None:
        """After an episode. A page that broke, left its address, or has served long enough is closed."""
        self._used.discard(page)
        if page.status:
            self._count(page.status, 1)
        if page.left or page.status == "navigated":
            await self._back(page)
        if page.status or page.uses >= USES or self._browser is None:
            await self._shut(page)
        else:
            self._free.append(page)

    async def close(self) -> None:
        """The browser and all its pages."""
        browser, playwright, self._browser, self._playwright = self._browser, self._playwright, None, None
        for page in [*self._free, *self._used]:
            page.status = page.status or "lost"
            page.gone.set()
        self._free, self._context = [], None
        for one, end in ((browser, "close"), (playwright, "stop")):
            if one is not None:
                with suppress(Exception):
                    await asyncio.wait_for(getattr(one, end)(), LEAVE)

    @property
    def pages(self) -> int:
        """Pages that are open, handed out or waiting."""
        return len(self._free) + len(self._used)

    @property
    def pages_of_browser(self) -> int:
        """The same, as the browser counts them."""
        return 0 if self._context is None else len(self._context.pages)

    # ---- pages

    async def _opened(self, url: str, seconds: float) -> Page:
        for attempt in (1, 2):
            await self._started()
            while self._free and self.pages >= self.most:
                await self._shut(self._free.pop(0))  # the one that nobody has asked for the longest
            try:
                return await self._new(url, seconds)
            except Lost as lost:
                if lost.status == "unreachable" or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    async def _new(self, url: str, seconds: float) -> Page:
        try:
            page = Page(url=url, page=await asyncio.wait_for(self._context.new_page(), seconds))
        except Exception as error:
            self._died()
            raise Lost("lost", f"no page could be opened: {_first(error)}") from None
        self._count("opened", 1)
        self._watch(page)
        try:
            page.control = await page.within(self._context.new_cdp_session(page.page), seconds)
            await page.within(page.page.goto(url, wait_until="load", timeout=seconds * 1000), seconds + 1)
            await page.call("ids => forethought.skip(ids)", list(self.skip))
        except Lost:
            await self._shut(page)
            raise
        except Exception as error:
            await self._shut(page)
            raise Lost("unreachable", f"{url}: {_first(error)}") from None
        page.left = False
        return page

    async def _back(self, page: Page) -> None:
        """To its own address. A page that is closed on its way to another one may never answer."""
        for _ in range(3):  # what it began itself may interrupt it once
            page.status = ""
            try:
                await page.within(page.page.goto(page.url, wait_until="load"), LEAVE)
                await page.call("ids => forethought.skip(ids)", list(self.skip), LEAVE)
                page.left = False
                return
            except Exception:
                page.status = page.status or "navigated"
                await asyncio.sleep(0.05)

    def _watch(self, page: Page) -> None:
        own = page.page

        def gone(status: str) -> None:
            page.status = page.status or status
            page.gone.set()

        async def dialog(said: Any) -> None:
            page.dialogs += 1
            self._count("dialogs", 1)
            if page.dialogs > DIALOGS:
                gone("dialogs")
            with suppress(Exception):
                await said.accept()

        async def popup(other: Any) -> None:
            self._count("popups", 1)
            with suppress(Exception):
                await other.close()

        def moved(frame: Any) -> None:
            if frame == own.main_frame and frame.url.split("#")[0] != page.url.split("#")[0]:
                page.left = True

        def failed(_: Any) -> None:
            self._count("errors", 1)  # an exception of the page's own scripts, which goes on

        own.on("crash", lambda _: gone("crashed"))
        own.on("close", lambda _: gone("lost"))
        own.on("dialog", dialog)
        own.on("popup", popup)
        own.on("framenavigated", moved)
        own.on("pageerror", failed)

    async def _shut(self, page: Page) -> None:
        stuck = page.status in ("hung", "dialogs")
        page.status = page.status or "closed"
        page.gone.set()
        self._count("closed", 1)
        for crash in (stuck, True):
            if crash and page.control is not None:  # its script runs on, and would for ever
                await _quietly(page.control.send("Page.crash"), CRASH)
            await _quietly(page.page.close(), CLOSE)
            if page.page.is_closed():
                return
        self._died()

    # ---- the browser

    async def _started(self) -> None:
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._browser is not None and self._browser.is_connected():
                return
            if self._browser is not None:
                self._died()
            await self._start()

    async def _start(self) -> None:
        try:
            from playwright.async_api import async_playwright
        except ImportError:
            raise UserError('web pages need Playwright: pip install "forethought[web]"') from None
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        path = program(self.path) or self._playwright.chromium.executable_path
        if not os.path.exists(path):
            raise UserError(
                "no Chromium was found: install your system's package, or by `playwright install chromium`, "
                "or name one with task.browser = PATH"
            )
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        try:
            self._browser = await self._playwright.chromium.launch(
                executable_path=path,
                args=[*FLAGS, *sandbox, *(_of_window() if self.window.shown else ())],
                headless=not self.window.shown,
            )
            self._context = await self._browser.new_context(
                viewport={"width": self.window.width, "height": self.window.height},
                device_scale_factor=self.window.scale,
                offline=self.window.offline,
                accept_downloads=False,
            )
        except Exception as error:
            how = f" in a window on {_display()}" if self.window.shown else ""
            raise UserError(f"{path} did not start as a browser{how}: {_first(error)}") from None
        await self._context.add_init_script(self._script)
        self._browser.on("disconnected", lambda _: self._died())
        self._count("starts", 1)

    def _died(self) -> None:
        """Every page is gone with the browser; the next `take` starts another one."""
        browser, self._browser, self._context = self._browser, None, None
        for page in [*self._free, *self._used]:
            page.status = page.status or "lost"
            page.gone.set()
        self._count("closed", len(self._free))
        self._free = []
        if browser is not None and browser.is_connected():
            asyncio.ensure_future(_quietly(browser.close()))

    def _count(self, kind: str, n: int) -> None:
        if n:
            self.counts[kind] = self.counts.get(kind, 0) + n


def program(path: str = "") -> str:
    """The Chromium that is named, or the system's; "" where there is none. RecipeError for a name that is no
    program."""
    if path:
        found = shutil.which(os.path.expanduser(path))
        if found is None:
            raise RecipeError("task.browser", f"{path!r} is no program; give the path of a Chromium")
        return found
    return next((found for name in PROGRAMS if (found := shutil.which(name))), "")


def no_window() -> str:
    """Why nothing can be shown in a window here; "" where it can."""
    if sys.platform in ("win32", "darwin") or _display():
        return ""
    return "there is no display: neither DISPLAY nor WAYLAND_DISPLAY is set"


def _display() -> str:
    return os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or ""


def _of_window() -> list[str]:
    """Chromium looks for X unless it is told."""
    wayland = os.environ.get("WAYLAND_DISPLAY") and not os.environ.get("DISPLAY")
    return ["--ozone-platform=wayland"] if wayland else []


def summed(counts: Mapping[str, int]) -> str:
    """The counts in a line, for a reader."""
    return ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()) if n) or "nothing happened"


async def _quietly(waiting: Any, seconds: float = LEAVE) -> None:
    with suppress(Exception):
        await asyncio.wait_for(waiting, seconds)


def _first(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
