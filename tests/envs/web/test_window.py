"""Pages in a visible window: how Chromium is started, what is said where there is no display, and that
framing an element changes nothing that is read."""

from __future__ import annotations

import asyncio
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
from envs.web.sites import needs_browser, pages, play

from forethought import cli
from forethought.core.errors import RecipeError, UserError
from forethought.envs.web import browser as browsers
from forethought.envs.web.browser import Browser, Window, no_window
from forethought.look import samples
from forethought.look.source import Source
from forethought.recipe.load import load, override
from forethought.recipe.schema import TaskSpec
from forethought.tasks import families

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


@pytest.fixture
def display(monkeypatch):
    """Sets what this machine shows windows on; at first nothing."""

    def shown_on(**variables: str) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        for name in DISPLAYS:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    shown_on()
    return shown_on


@pytest.fixture
def started(monkeypatch) -> list[dict]:
    """What Chromium is started with; it never comes up."""
    asked: list[dict] = []

    async def launch(**options):
        asked.append(options)
        raise RuntimeError("Missing X server or $DISPLAY\nmore lines")

    async def start():
        return SimpleNamespace(chromium=SimpleNamespace(launch=launch, executable_path=""), stop=start)

    api = types.ModuleType("playwright.async_api")
    api.async_playwright = lambda: SimpleNamespace(start=start)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "playwright", types.ModuleType("playwright"))
    monkeypatch.setitem(sys.modules, "playwright.async_api", api)
    monkeypatch.setattr(browsers, "program", lambda path="": sys.executable)
    return asked


async def opened(window: Window) -> None:
    browser = Browser(window=window)
    try:
        await browser.take("about:blank")
    finally:
        await browser.close()


def test_a_window_needs_a_display(display, monkeypatch):
    assert no_window() == "there is no display: neither DISPLAY nor WAYLAND_DISPLAY is set"
    display(DISPLAY=":0")
    assert no_window() == ""
    display(WAYLAND_DISPLAY="wayland-0")
    assert no_window() == ""
    display()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert no_window() == ""


@pytest.mark.parametrize(
    ("variables", "ozone"),
    [
        ({"DISPLAY": ":7"}, []),
        ({"WAYLAND_DISPLAY": "wl"}, ["--ozone-platform=wayland"]),
        ({"DISPLAY": ":7", "WAYLAND_DISPLAY": "wl"}, []),
    ],
)
def test_chromium_is_started_with_a_head_where_it_is_shown(display, started, variables, ozone):
    display(**variables)
    on = next(iter(variables.values()))
    with pytest.raises(UserError, match=f"did not start as a browser in a window on {on}: Missing X server"):
        asyncio.run(opened(Window(shown=True)))
    assert started[0]["headless"] is False
    assert [flag for flag in started[0]["args"] if "ozone" in flag] == ozone
    with pytest.raises(UserError, match="did not start as a browser: Missing"):
        asyncio.run(opened(Window()))
    assert started[1]["headless"] is True and not any("ozone" in flag for flag in started[1]["args"])


def test_without_a_display_one_line_says_how_to_record(display, capsys):
    assert cli.main(["sample", "nowhere", "--watch", "window"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and "--watch window: there is no display" in said
    assert "--watch FILE.html or FILE.png records" in said
    assert cli.main(["sample", "nowhere", "--watch", "windows"]) == 2
    assert "ends with neither .html nor .png, and is not `window`" in capsys.readouterr().err
    assert cli.main(["sample", "nowhere", "--watch", "no/where.png"]) == 2
    assert "--watch: no folder no" in capsys.readouterr().err


def web(**options):
    return families.build(TaskSpec(name="web", options={"tasks": ["click-tab"], "window": True, **options}))


def test_a_taskset_says_what_a_window_needs(display):
    with pytest.raises(RecipeError, match="task.window: there is no display"):
        web()
    display(DISPLAY=":0")
    with pytest.raises(RecipeError, match="task.window: shows pages in Chromium, and these are recorded"):
        web(pages="recorded")


@needs_browser
def test_a_window_shows_one_episode_at_a_time(display):
    display(DISPLAY=":0")
    taskset = web(pages="eval")
    assert taskset.shared.window.shown and taskset.open_episodes == 1


@pytest.mark.parametrize("window", [True, False])
def test_a_browser_that_does_not_start_is_said(window, monkeypatch):
    """It costs an episode, as every fault does; where it costs all that were to be seen, it is an error."""
    broken = SimpleNamespace(film=None, responses=[SimpleNamespace(failed=True, reason="no window on :9")])
    monkeypatch.setattr(samples, "_played", lambda *_: (None, iter([broken])))
    monkeypatch.setattr(samples, "_with_pictures", lambda recipe, n, window: recipe)
    recipe = override(load("web"), ["task.pages=recorded", 'task.tasks=["click-tab"]'])
    with pytest.raises(UserError, match="nothing can be shown: no window on :9"):
        samples.watch(
            Source(path=Path("run"), recipe=recipe, checkpoint=None, policies={}), n=1, window=window
        )


BUTTON = "<button style='color:red'>Go</button><p>rest</p>"


@needs_browser
@pytest.mark.parametrize("shown", [False, True])
def test_what_is_framed_for_the_eye_reads_as_before(tmp_path, shown):
    if shown and no_window():
        pytest.skip(no_window())

    async def plan(browser, episode):
        one = episode()
        seen = await one.reset("page", 3)
        ref = next(line.ref for line in seen.lines if line.role == "button")
        await one.point(ref, 0.0)
        await one.point("e9999", 0.0)  # what is gone is not framed
        again = await one.look()
        assert [(x.role, x.name, x.state, x.box) for x in again.lines] == [
            (x.role, x.name, x.state, x.box) for x in seen.lines
        ]
        assert await one._call("() => document.querySelector('button').style.color") == "red"
        await one.close()

    play(pages(tmp_path, page=BUTTON), plan, window=Window(shown=shown))
