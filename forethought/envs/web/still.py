"""A picture of a page that lies in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from forethought.envs.web.browser import Browser, Window

WIDTH = 1080  # CSS pixels
SECONDS = 30.0


def still(page: Path, out: Path, program: str = "", scale: float = 1.0) -> None:
    """Write the whole page as a PNG to `out`. UserError where there is no Chromium."""
    asyncio.run(_still(page, out, program, scale))


async def _still(page: Path, out: Path, program: str, scale: float) -> None:
    browser = Browser(program, Window(width=WIDTH, height=300, scale=scale))
    try:
        at = await browser.take(page.resolve().as_uri(), SECONDS)
        out.write_bytes(await at.within(at.page.screenshot(full_page=True), SECONDS))
    finally:
        await browser.close()
