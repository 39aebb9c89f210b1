"""Pages that misbehave, as files, and who plays them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from forethought.envs.web.browser import PROGRAMS, Browser
from forethought.envs.web.page import Episode, Events, Pace, Site

WHY = "needs Playwright and a Chromium"
needs_browser = pytest.mark.skipif(
    find_spec("playwright") is None or not any(map(shutil.which, PROGRAMS)), reason=WHY
)
QUICK = Pace(gap=0.01, most=0.6, answer=1.0, load=10.0)


def pages(folder: Path, **html: str) -> Site:
    """A site whose tasks are these bodies."""
    for name, body in html.items():
        folder.joinpath(f"{name}.html").write_text(f"<!doctype html><body>{body}</body>", "utf-8")
    return Site(address=lambda task: folder.joinpath(f"{task}.html").as_uri())


def play(
    site: Site,
    plan: Callable[[Browser, Callable[[], Episode]], Awaitable[None]],
    events: Events = "js",
    **options: object,
) -> Browser:
    """Run `plan` with a browser and a maker of episodes; the browser is closed in any case."""

    async def run() -> Browser:
        browser = Browser(**options)  # type: ignore[arg-type]
        try:
            await plan(browser, lambda: Episode(browser, site, events, QUICK))
        finally:
            await browser.close()
        return browser

    return asyncio.run(run())
