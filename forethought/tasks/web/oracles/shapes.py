"""Colours and shapes: what is drawn is told by its element, its colour, its size and its centre."""

from __future__ import annotations

from forethought.interface.elements import Line
from forethought.interface.gui import Step
from forethought.tasks.web.oracles.view import View, submit, table

DRAWN = {"rect": "rectangle", "circle": "circle", "polygon": "triangle"}
COLOURS = ("red", "green", "blue", "aqua", "black", "magenta", "yellow")
SMALL = 14  # px: shapes of this size and less are small; digits and letters are large at 20px


def colour(view: View) -> list[Step]:
    """The box of the colour that is named."""
    return [view.click(view.one("img", view.said(r"the (\w+) colored")))]


def shades(view: View) -> list[Step]:
    """Every shade of a colour, then submit."""
    return [view.click(x) for x in view.all("img", view.said(r"shades of (\w+)"))] + [submit(view)]


def shapes(view: View) -> list[Line]:
    """What is drawn."""
    return [
        x for x in view.all() if x.role in DRAWN or (x.role == "text" and x.state[1:2] and "px" in x.state[1])
    ]


def _kind(line: Line) -> tuple[str, str, str, str]:
    """Its name, its sort, its colour, its size."""
    hue = line.state[0]
    if line.role in DRAWN:
        size = int(line.state[1].split("x")[0])
        return DRAWN[line.role], "shape", hue, "large" if size > SMALL else "small"
    sort = "digit" if line.name.isdigit() else "letter"
    return line.name, sort, hue, "large" if line.state[1] == "20px" else "small"


def fits(line: Line, words: list[str]) -> bool:
    """Whether it is what these words say."""
    name, sort, hue, size = _kind(line)
    for word in words:
        if word in ("large", "small"):
            fits = word == size
        elif word in COLOURS:
            fits = word == hue
        else:
            fits = word in ("item", "items") or word in (name, sort, name + "s", sort + "s")
        if not fits:
            return False
    return True


def click_shape(view: View) -> list[Step]:
    """One that fits the description."""
    words = view.said(r"Click on an? (.*)").split()
    return [view.click(next(x for x in shapes(view) if fits(x, words)))]


def count(view: View) -> list[Step]:
    """The button with how many fit the description."""
    words = view.said(r"How many (.*) are there").split()
    return [view.click(view.one("button", str(sum(fits(x, words) for x in shapes(view)))))]


def identify(view: View) -> list[Step]:
    """The button that says what is drawn."""
    name, sort, _, _ = _kind(shapes(view)[0])
    said = {"digit": "Number", "letter": "Letter"}.get(sort, name.capitalize())
    return [view.click(view.one("button", said))]


def grid(view: View) -> list[Step]:
    """The point at (x, y): circles stand column by column from the left, each from above."""
    x, y = int(view.said(r"\((-?\d),")), int(view.said(r",(-?\d)\)"))
    return [view.click(view.one("circle", at=(x + 2) * 5 + (2 - y)))]


ORACLES = table(
    ("click-color", colour),
    ("click-shades", shades),
    ("click-shape", click_shape),
    ("count-shape", count),
    ("identify-shape", identify),
    ("grid-coordinate", grid),
)
