"""Actions by a place: golden both ways, in three units, and what is refused."""

from __future__ import annotations

import pytest

from forethought.interface.actions import Action
from forethought.interface.coordinates import Coordinates
from forethought.interface.elements import Line
from forethought.interface.result import Parsed

LINES = (
    Line(ref="e1", role="text", name="all", box=(0, 0, 400, 300)),
    Line(ref="e2", role="button", name="Go", box=(100, 50, 40, 20)),
    Line(ref="e3", role="textbox", name="Größe", box=(10, 200, 100, 30)),
    Line(ref="e4", role="img", name="over it", box=(100, 50, 40, 20)),  # as large, and later
    Line(ref="f1e2", role="button", name="in a frame", box=(300, 10, 21, 10)),
    Line(ref="", role="option", name="red"),
    Line(ref="e5", role="button", name="nobody looked"),
)
GOLDEN = [
    (Action(op="click", id="e4"), "[120, 60]", "[0.3, 0.2]", "[300, 200]", ""),
    (Action(op="click", id="f1e2"), "[310, 15]", "[0.7762, 0.05]", "[776, 50]", ""),
    (Action(op="type", id="e3", value='it\'s "so"\n日本'), "[60, 215]", "[0.15, 0.7167]", "[150, 717]", None),
    (Action(op="select", id="e3", value=["a", "b"]), "[60, 215]", "[0.15, 0.7167]", "[150, 717]", None),
]


@pytest.mark.parametrize("action, pixels, shares, thousandths, _", GOLDEN)
def test_a_place_is_written_and_read_back(action, pixels, shares, thousandths, _):
    for full, at in ((None, pixels), (1.0, shares), (1000, thousandths)):
        dialect = Coordinates(LINES, (400, 300), full)
        text = dialect.render(action)
        assert f'"at": {at}' in text and "\n" not in text
        assert dialect.parse(text) == Parsed(action)


def test_a_press_needs_no_place():
    dialect = Coordinates(LINES, (400, 300))
    text = dialect.render(Action(op="press", value="Enter"))
    assert text == '{"op": "press", "value": "Enter"}'
    assert dialect.parse(text) == Parsed(Action(op="press", value="Enter"))


def test_the_innermost_element_is_meant():
    read = Coordinates(LINES, (400, 300)).parse
    assert read('{"op": "click", "at": [99, 50]}').value.id == "e1"
    assert read('{"op": "click", "at": [100, 50]}').value.id == "e4"  # the border is inside
    # what is written for a covered element is read as what covers it
    assert read(Coordinates(LINES, (400, 300)).render(Action(op="click", id="e2"))).value.id == "e4"


@pytest.mark.parametrize(
    "text, position, reason",
    [
        ("[1, 2]", 1, "an action is an object"),
        ('{"at": [1, 2]}', 1, "'op' says what is done"),
        ('{"op": 1}', 8, "'op' says what is done"),
        ('{"op": "click", "x": 1}', 17, "unknown key 'x'"),
        ('{"op": "click", "at": [1]}', 23, "'at' is [from the left, from the top]"),
        ('{"op": "click", "at": [true, 2]}', 23, "'at' is [from the left, from the top]"),
        ('{"op": "click", "at": [1, 301]}', 23, "[1, 301] is not on the screen"),
        ('{"op": "click", "at": [-1, 2]}', 23, "[-1, 2] is not on the screen"),
        ('{"op": "click", "at": [NaN, 2]}', 24, "a JSON value"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_character(text, position, reason):
    found = Coordinates(LINES, (400, 300)).parse(text)
    assert (found.position, found.unit) == (position, "character") and reason in found.reason


def test_where_nothing_lies_nothing_is_meant():
    assert (
        "nothing lies at" in Coordinates(LINES[1:], (400, 300)).parse('{"op": "click", "at": [1, 2]}').reason
    )
    for wrong in ("e5", "e9"):
        with pytest.raises(ValueError, match="no place"):
            Coordinates(LINES, (400, 300)).render(Action(op="click", id=wrong))
