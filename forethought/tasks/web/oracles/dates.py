"""Date pickers, and the flight that is booked with one."""

from __future__ import annotations

import re

from forethought.interface.elements import Line
from forethought.interface.gui import Step
from forethought.tasks.web.oracles.view import View, submit, table

MONTHS = "January February March April May June July August September October November December".split()


def pick(view: View, date: str, field: Line) -> list[Step]:
    """Open the picker of the field, turn to the month, take the day: a step at a time."""
    month, day, _ = map(int, date.split("/"))
    shown = next((MONTHS.index(name) + 1 for name in view.names() if name in MONTHS), None)
    if shown is None:
        return [view.click(field)]
    if shown != month:
        return [view.click(view.one("link", "Prev" if shown > month else "Next"))]
    return [view.click(view.one("link", str(day)))]


def date(view: View) -> list[Step]:
    """Pick the date, then submit."""
    field = view.one("textbox")
    if view.state(field, "= "):
        return [submit(view)]
    return pick(view, view.said(r"([\d/]+)"), field)


def flight(view: View) -> list[Step]:
    """From, to, date, search; then the cheapest or the shortest of what is offered."""
    offered = [x for x in view.all("button") if "$" in x.name]
    if offered:
        return [view.click(_best(view, offered))]
    start, end, when = re.findall(r"from: (.*?) to: (.*?) on ([\d/]+)", view.utterance)[0]
    for label, place in (("From:", start), ("To:", end)):
        field = view.one("textbox", label)
        if not view.state(field, "= "):
            return [view.type(field, place)]
        if suggested := view.all("menuitem"):
            exact = [x for x in suggested if x.name.startswith(f"{place} (") or f"({place})" in x.name]
            return [view.click((exact or suggested)[0])]
    leaves = view.one("textbox", "Departure Date")
    if view.state(leaves, "= "):
        return [submit(view, "Search")]
    return pick(view, when, leaves)


def _best(view: View, offered: list[Line]) -> Line:
    if view.said(r"the (\w+) one-way") == "cheapest":
        return min(offered, key=lambda x: int(x.name.split("$")[1]))
    lasts = [re.fullmatch(r"(\d+)h (\d+)m", name) for name in view.names()]
    minutes = [60 * int(m[1]) + int(m[2]) for m in lasts if m]
    return offered[minutes.index(min(minutes))]


ORACLES = table(
    ("choose-date choose-date-easy choose-date-medium", date),
    ("book-flight", flight),
)
