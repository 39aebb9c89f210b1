"""The time to the first step: its parts are differences, the least of each is taken, and a run that never
comes to a step says why."""

from __future__ import annotations

import pytest
from bench_load import script

first_step = script("first_step")
NAMES = first_step.PARTS


def test_parts_are_differences_of_marks():
    marks = {name: (2.0 * (i + 1), 1.0 * (i + 1)) for i, name in enumerate(NAMES)}
    assert first_step.parts(marks) == dict.fromkeys(NAMES, (2.0, 1.0))


def test_the_least_of_each_part_and_their_sum():
    slow, fast = dict.fromkeys(NAMES, (2.0, 1.0)), dict.fromkeys(NAMES, (1.0, 3.0))
    found = first_step.least([slow, fast])
    assert found == dict.fromkeys(NAMES, (1.0, 1.0))
    assert first_step.table(slow, found).splitlines()[-1].split() == ["in", "all", "12.00", "6.00", "6.00"]


def test_a_process_without_a_step_is_said():
    with pytest.raises(SystemExit, match="no-such-recipe"):
        first_step.once("no-such-recipe", "", False)
