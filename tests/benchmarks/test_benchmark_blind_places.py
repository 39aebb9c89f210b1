"""Places that are right without looking, by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from forethought.tasks.screens.shots import SIDE, Shot
from forethought.tasks.web.splits import FIRST

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "blind_places.py"


@pytest.fixture(scope="module")
def blind():
    spec = importlib.util.spec_from_file_location("blind_places", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shot(seed: int, what: str, left: float) -> Shot:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    boxes = ((left, 40.0, 8.0, 8.0), (0.0, 0.0, 4.0, 4.0))
    return Shot(task="t", seed=seed, asked=what, what=what, boxes=boxes, good=(0,), pixels=pixels)


def test_places_of_a_box_are_those_whose_middle_lies_in_it(blind):
    assert np.argwhere(blind.right(shot(0, "a", 80.0))).tolist() == [[20, 10], [20, 11], [21, 10], [21, 11]]


def test_what_is_said_tells_places_apart_that_one_place_cannot(blind):
    training = [shot(FIRST + i, "a", 80.0) for i in range(3)] + [shot(FIRST + 9, "b", 120.0)]
    assert blind.best(training) == (20, 10)
    held = [shot(0, "a", 80.0), shot(1, "b", 120.0), shot(2, "new", 80.0), shot(3, "a", 20.0)]
    assert blind.measured([*training, *held]) == (0.5, 0.75)
