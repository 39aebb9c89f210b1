"""One thing to click, or one after the other: buttons, links, tabs, menus, trees, results."""

from __future__ import annotations

from forethought.interface.gui import Step
from forethought.tasks.web.oracles.view import View, submit, table


def test(view: View) -> list[Step]:
    """The only button."""
    return [view.click(view.one("button"))]


def test_2(view: View) -> list[Step]:
    """The button that is named without quotes."""
    return [view.click(view.one("button", view.said(r"button (.+?)[.]")))]


def button(view: View) -> list[Step]:
    """The button in quotes; "x" closes."""
    name = view.quoted[0]
    return [view.click(view.one("button", "Close" if name == "x" else name))]


def dialog(view: View) -> list[Step]:
    """The x of the dialog."""
    return [view.click(view.one("button", "Close"))]


def sequence(view: View) -> list[Step]:
    """ONE, then TWO."""
    return [view.click(view.one("button", name)) for name in ("ONE", "TWO")]


def link(view: View) -> list[Step]:
    """The link in quotes."""
    return [view.click(view.one("link", view.quoted[0]))]


def tab(view: View) -> list[Step]:
    """The tab that is named."""
    return [view.click(view.one("tab", view.said(r"on (.*?)[.]$")))]


def search_tabs(view: View) -> list[Step]:
    """The link, where it can be seen; else the next tab, the second one first."""
    return _until_seen(view, first=1)


def search_sections(view: View) -> list[Step]:
    """The link, where it can be seen; else the next section, from the first."""
    return _until_seen(view, first=0)


def _until_seen(view: View, first: int) -> list[Step]:
    found = view.all("link", view.quoted[0])
    return [view.click(found[0] if found else view.all("tab")[first + len(view.past)])]


def section(view: View) -> list[Step]:
    """Open the only section, and submit."""
    return [view.click(view.one("tab")), submit(view)]


def menu(view: View) -> list[Step]:
    """Hover down a menu; a click on what has entries of its own would end the episode."""
    path = view.said(r"Select (.*)").split(">")
    hovered = len(view.did("hover"))
    entry = view.one("menuitem", path[hovered])
    return [view.click(entry) if hovered == len(path) - 1 else view.hover(entry)]


def tree(view: View) -> list[Step]:
    """The file or folder in quotes; until it is seen, open the first folder that is still closed."""
    name = view.quoted[0]
    if found := view.all("text", name):
        return [view.click(found[0])]
    opened = {step.target for step in view.past}
    folders = [x for x in view.all("text") if view.state(x, "folder")]
    return [next(step for x in folders if (step := view.click(x)).target not in opened)]


def search(view: View) -> list[Step]:
    """Ask, turn to the page of the k-th result, and take it: three stand on a page."""
    number = int(view.said(r"(\d)(?:th|st|nd|rd)"))
    page, place = (number - 1) // 3 + 1, (number - 1) % 3
    if not view.past:
        return [view.type(view.one("textbox"), view.quoted[0]), submit(view, "Search")]
    turned = len(view.past) > 2
    return [view.click(view.one("link", str(page)) if page > 1 and not turned else view.all("link")[place])]


def widget(view: View) -> list[Step]:
    """Any of the kind that is asked for."""
    return [view.click(view.one({"text": "textbox"}.get(view.quoted[0], view.quoted[0])))]


def focus(view: View) -> list[Step]:
    """The text box, or the one of that number."""
    nth = view.utterance[:-1].split()
    number = next((int(word[0]) for word in nth if word[:1].isdigit()), 1)
    return [view.click(view.one("textbox", at=number - 1))]


def pie(view: View) -> list[Step]:
    """Open the menu, then take the entry."""
    return [view.click(view.one("text", view.quoted[0] if view.past else "+"))]


ORACLES = table(
    ("click-test", test),
    ("click-test-2", test_2),
    ("click-button click-dialog-2", button),
    ("click-dialog", dialog),
    ("click-button-sequence", sequence),
    ("click-link", link),
    ("click-tab", tab),
    ("click-tab-2 click-tab-2-hard", search_tabs),
    ("click-collapsible", section),
    ("click-collapsible-2", search_sections),
    ("click-menu", menu),
    ("navigate-tree", tree),
    ("search-engine", search),
    ("click-widget", widget),
    ("focus-text focus-text-2", focus),
    ("click-pie", pie),
)
