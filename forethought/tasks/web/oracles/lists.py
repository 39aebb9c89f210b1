"""Lists: boxes to tick, options to choose, numbers to count up to."""

from __future__ import annotations

import re
from functools import cache

from forethought.envs.web.miniwob import folder
from forethought.interface.gui import Step
from forethought.tasks.web.oracles.view import View, submit, table


def _listed(view: View, verb: str) -> list[str]:
    said = view.said(rf"{verb} (.*?) and (?:click|press|hit) Submit")
    return [] if said == "nothing" else said.split(", ")


def boxes(view: View) -> list[Step]:
    """Each box that is named, then submit."""
    ticked = [view.click(view.one("checkbox", name)) for name in _listed(view, "Select")]
    return [*ticked, submit(view)]


@cache
def _synonyms() -> list[set[str]]:
    source = folder().joinpath("click-checkboxes-soft.html").read_text("utf-8")
    found = re.search(r"SYNONYMS = \[(.*?)\n\];", source, re.S)
    rows = found[1].split("\n") if found else []
    return [set(re.findall(r"'([^']+)'", row)) for row in rows if row.strip()]


def alike(view: View) -> list[Step]:
    """Each box whose word means the same as one that is named (by the page's own table), then submit."""
    ticked = []
    for word in _listed(view, "Select words similar to"):
        same = set().union(*(row for row in _synonyms() if word in row))
        ticked += [view.click(box) for box in view.all("checkbox") if box.name in same]
    return [*ticked, submit(view)]


def radio(view: View) -> list[Step]:
    """The option that is named, then submit."""
    return [view.click(view.one("radio", view.said("Select (.*?) and click"))), submit(view)]


def choose(view: View) -> list[Step]:
    """One of a list, then submit."""
    return [view.select(view.one("select"), [view.said("Select (.*?) from the list")]), submit(view)]


def several(view: View) -> list[Step]:
    """Several of a list, then submit."""
    options = view.said("Select (.*?) from the scroll").split(", ")
    return [view.select(view.one("select"), options), submit(view)]


def spinner(view: View) -> list[Step]:
    """Up or down as often as the number says, then submit."""
    number = int(view.said(r"Select (-?\d+)"))
    turned = view.click(view.one("button", at=0 if number > 0 else 1))
    return [*[turned] * abs(number), submit(view)]


def guess(view: View) -> list[Step]:
    """Halve what is left. Each guess that was followed by a higher one was too low."""
    guesses = [int(step.value or 0) for step in view.did("type")]
    low, high = 0, 9
    for now, then in zip(guesses, guesses[1:], strict=False):
        low, high = (now + 1, high) if then > now else (low, now - 1)
    if guesses:
        told = next(n for n in view.names() if "lower" in n or "higher" in n)
        low, high = (low, guesses[-1] - 1) if "lower" in told else (guesses[-1] + 1, high)
    return [view.type(view.one("spinbutton"), str((low + high) // 2)), submit(view)]


ORACLES = table(
    ("click-checkboxes click-checkboxes-large click-checkboxes-transfer", boxes),
    ("click-checkboxes-soft", alike),
    ("click-option", radio),
    ("choose-list", choose),
    ("click-scroll-list", several),
    ("use-spinner", spinner),
    ("guess-number", guess),
)
