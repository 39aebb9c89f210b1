"""The tasks of MiniWoB++ (arXiv 1802.08802), from the package `miniwob`: small pages that ask for
something and say how it went.

`MINIWOB_56` is the list of 56 tasks of WebGUM (arXiv 2305.11854), which BrowserGym marks `webgum_subset`.
Success is a raw reward of 1: what the page gives without its discount for time. There is no time limit unless
one is asked for; `limit="original"` sets the page's own (10 s, some tasks more).
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.envs.web.page import Site

Limit = Literal["none", "original"]
SKIP = ("reward-display", "sync-task-cover", "click-canvas", "query")
"""What the package adds to each page: the score, the cover, the drawing of clicks, and the utterance, which
the model is told anyway."""

MINIWOB_56 = tuple(
    "book-flight choose-date choose-date-easy choose-date-medium choose-list click-button "
    "click-button-sequence click-checkboxes click-checkboxes-large click-checkboxes-soft "
    "click-checkboxes-transfer click-collapsible click-collapsible-2 click-color click-dialog click-dialog-2 "
    "click-link click-menu click-option click-pie click-scroll-list click-shades click-shape click-tab "
    "click-tab-2 click-tab-2-hard click-test click-test-2 click-widget count-shape email-inbox "
    "email-inbox-forward-nl email-inbox-forward-nl-turk email-inbox-nl-turk enter-date enter-password "
    "enter-text enter-text-dynamic enter-time focus-text focus-text-2 grid-coordinate guess-number "
    "identify-shape login-user login-user-popup multi-layouts multi-orderings navigate-tree search-engine "
    "social-media social-media-all social-media-some tic-tac-toe use-autocomplete use-spinner".split()
)
WEB_12 = (
    "click-button",
    "click-checkboxes",
    "click-option",
    "choose-list",
    "enter-text",
    "enter-password",
    "login-user",
    "click-link",
    "click-tab",
    "multi-orderings",
    "click-collapsible",
    "click-tab-2",
)
"""Tasks of `forethought train web`."""
LISTS = {"web-12": WEB_12, "miniwob-56": MINIWOB_56}

# The page's own end of an episode takes the time into account; ours only ends what still runs.
BEGIN = """([seed]) => {
  if (core.ownTime === undefined) core.ownTime = core.EPISODE_MAX_TIME;
  core.EPISODE_MAX_TIME = LIMIT;
  // a used page begins as a fresh one: nothing has the focus, and screen readers were told nothing
  if (document.activeElement) document.activeElement.blur();
  for (const said of document.querySelectorAll("[role=status]")) said.textContent = "";
  core.endEpisode(0);
  Math.seedrandom(String(seed));
  core.startEpisodeReal();
}"""
LOOK = """([seed, refs]) => {
  const said = core.getUtterance();
  return { ...forethought.snapshot(seed, refs),
    utterance: forethought.clean(typeof said === "string" ? said : said.utterance),
    done: WOB_DONE_GLOBAL, raw: WOB_RAW_REWARD_GLOBAL };
}"""


@cache
def folder() -> Path:
    """Where the pages are. UserError where the package is not installed."""
    spec = find_spec("miniwob")
    if spec is None or spec.origin is None:
        raise UserError('the tasks of MiniWoB++ need the package miniwob: pip install "forethought[web]"')
    return Path(spec.origin).parent / "html" / "miniwob"


def known() -> tuple[str, ...]:
    """Every task of the package."""
    return tuple(sorted(page.stem for page in folder().glob("*.html")))


def chosen(tasks: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """The tasks that a recipe names: a list of `LISTS`, or names. RecipeError for one that does not exist,
    for one that stands there twice, and for none."""
    names = known() if find_spec("miniwob") else MINIWOB_56
    if isinstance(tasks, str):
        if tasks not in LISTS and tasks not in names:
            raise RecipeError("task.tasks", unknown("list or task", tasks, [*LISTS, *names]))
        return LISTS.get(tasks, (tasks,))
    if not tasks:
        raise RecipeError("task.tasks", "names no task")
    for at, task in enumerate(tasks):
        if task not in names:
            raise RecipeError("task.tasks", unknown("task of MiniWoB++", str(task), names))
        if task in tasks[:at]:
            raise RecipeError("task.tasks", f"{task} is named twice")
    return tuple(tasks)


def address(task: str) -> str:
    """Of the page of a task."""
    page = folder() / f"{task}.html"
    if not page.exists():
        raise UserError(f"{unknown('task of MiniWoB++', task, known())}")
    return page.as_uri()


def site(limit: Limit = "none") -> Site:
    """The pages of the package, with the page's own time limit or none."""
    return Site(
        address=address,
        begin=BEGIN.replace("LIMIT", "core.ownTime" if limit == "original" else "1e8"),
        look=LOOK,
        over="() => [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]",
    )
