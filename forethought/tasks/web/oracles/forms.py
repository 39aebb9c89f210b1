"""Fields to fill in: text, passwords, dates, times, a search over several fields, suggestions."""

from __future__ import annotations

from forethought.interface.elements import Line
from forethought.interface.gui import Step
from forethought.tasks.web.oracles.view import View, submit, table

DISMISS = ("Cancel", "No", "Close", "Dismiss", "×")


def text(view: View) -> list[Step]:
    """The text in quotes, then submit."""
    return [view.type(view.one("textbox"), view.quoted[0]), submit(view)]


def password(view: View) -> list[Step]:
    """The same password twice."""
    return [view.type(field, view.quoted[0]) for field in view.all("password")] + [submit(view)]


def login(view: View) -> list[Step]:
    """Name, password, login. A popup that comes between is dismissed first."""
    popup = [x for x in view.all() if x.name.startswith(DISMISS) and x.role in ("button", "link", "text")]
    if popup:
        return [view.click(popup[0])]
    name, word = view.quoted
    fields = [view.type(view.one("textbox"), name), view.type(view.one("password"), word)]
    return [*fields, submit(view, "Login", "OK", "Ok")]


def date(view: View) -> list[Step]:
    """A date as it is written, then submit."""
    return [view.type(view.one("textbox"), view.said(r"([\d/]+)")), submit(view)]


def time(view: View) -> list[Step]:
    """A time as it is written, then submit."""
    said = view.said(r"(\d+:\d+\s[AP]M)")
    return [view.type(view.one("textbox"), " ".join(said.split())), submit(view)]


def films(view: View) -> list[Step]:
    """Genre, director and year, whatever their fields are called, and the button that searches."""
    wanted = {
        ("Genre",): view.said("for (.*?) movies"),
        ("Director",): view.said("directed by (.*?) from"),
        ("Year", "Date"): view.said(r"from year (\d+)"),
    }

    def field(words: tuple[str, ...]) -> Line:
        return next(x for x in view.all("textbox") if any(word in x.name for word in words))

    filled = [view.type(field(words), value) for words, value in wanted.items()]
    return [*filled, submit(view, "Submit", "Search", "Go!")]


def suggestions(view: View) -> list[Step]:
    """Type how it begins, take the suggestion that fits, submit."""
    begins, *ends = view.quoted
    if view.did("click"):
        return [submit(view)]
    if not (offered := view.all("menuitem")):
        return [view.type(view.one("textbox"), begins)]
    fit = [x for x in offered if x.name.startswith(begins) and (not ends or x.name.endswith(ends[0]))]
    return [view.click(fit[0]), submit(view)]


ORACLES = table(
    ("enter-text enter-text-dynamic", text),
    ("enter-password", password),
    ("login-user login-user-popup", login),
    ("enter-date", date),
    ("enter-time", time),
    ("multi-layouts multi-orderings", films),
    ("use-autocomplete", suggestions),
)
