"""A plan holds no answer, whatever box it stands in."""

import pytest

from forethought.interface.result import Parsed, Refusal
from forethought.tasks.sections import tags_of
from forethought.tasks.text.turns import Turns


@pytest.mark.parametrize("box", [r"\fbox{7}", r"\boxed{7}", r"\boxed 7", r"\boxed7", r"\fbox {7}"])
def test_a_box_in_a_plan_is_refused(box):
    found = Turns(tags_of(), 50).plan(f"1. Add {box}.\n</plan>")
    assert isinstance(found, Refusal) and "a plan holds no answer" in found.reason and found.position == 8


def test_what_is_no_box_is_none():
    assert isinstance(Turns(tags_of(), 50).plan("1. Draw \\fboxsep around it, boxed up.\n</plan>"), Parsed)
