"""Metrics of grounding, by a golden table: borders, units, what is conditional and what is not."""

from __future__ import annotations

import pytest

from forethought.core.grounding import (
    Did,
    Wanted,
    from_corners,
    grounding,
    inside,
    near,
    operation_f1,
    right_element,
    step_success,
    to_pixels,
    words_f1,
)

BOX = (10, 20, 30, 40)  # left, top, width, height: to (40, 60)
CLICK = Wanted(op="click", element="e1", box=BOX)
TYPE = Wanted(op="type", element="e2", value="Saint Lucia", box=BOX)


@pytest.mark.parametrize(
    "point, closed, strict",
    [
        ((25, 40), True, True),
        ((10, 40), True, False),  # the left border
        ((40, 60), True, False),  # the corner at the right and bottom
        ((9.9, 40), False, False),
        ((25, 60.1), False, False),
        ((30, 40), True, True),  # were the box read as two corners, this would be one of them
        ((39, 59), True, True),  # and this would lie outside
    ],
)
def test_the_border_of_a_box_is_in_it_unless_asked_otherwise(point, closed, strict):
    assert inside(point, BOX) is closed and inside(point, BOX, strict=True) is strict


def test_corners_and_units_are_told_apart():
    assert from_corners(10, 20, 40, 60) == BOX
    with pytest.raises(ValueError, match="corners or a size"):
        from_corners(10, 20, 5, 60)
    assert to_pixels((0.5, 0.25), (400, 300)) == to_pixels((500, 250), (400, 300), full=1000) == (200, 75)
    with pytest.raises(ValueError, match="other units"):
        to_pixels((500, 250), (400, 300))


@pytest.mark.parametrize(
    "point, good",
    [((25, 40), True), ((25 + 0.14 * 400, 40), True), ((25 + 0.1401 * 400, 40), False), ((25, 83), False)],
)
def test_near_is_a_share_of_each_side_of_the_screen(point, good):
    assert near(point, BOX, (400, 300)) is good


@pytest.mark.parametrize(
    "did, element, f1, step",
    [
        (Did(op="type", element="e2", value="Saint Lucia"), True, 1.0, True),
        (Did(op="type", element="e2", value="Saint Islands"), True, 2 / 3, False),
        (Did(op="click", element="e2"), True, 0.0, False),
        (Did(op="type", element="e9", value="Saint Lucia"), False, 1.0, False),
        (Did(op="type", value="Lucia Saint", point=(10, 20)), True, 1.0, True),  # a set of words, by a place
        (Did(op="type", value="Saint Lucia", point=(9, 20)), False, 1.0, False),
        (None, False, 0.0, False),
    ],
)
def test_a_step_is_its_element_and_its_operation(did, element, f1, step):
    assert right_element(did, TYPE) is element
    assert operation_f1(did, TYPE) == pytest.approx(f1)
    assert step_success(did, TYPE) is step


def test_texts_are_compared_as_sets_of_words():
    assert words_f1("", "") == 1 and words_f1("a", "") == 0 and words_f1("a b b", "b a") == 1
    assert words_f1("a b", "b c d") == pytest.approx(0.4)


def test_the_metrics_of_steps_and_what_is_conditional():
    pairs = [
        (Did(op="click", element="e1", point=(25, 40)), CLICK),
        (Did(op="click", element="e5", point=(60, 40)), CLICK),  # beside it, and near
        (Did(op="hover", element="e1", point=(25, 40)), CLICK),  # the place, by another operation
        (None, CLICK),
        (Did(op="type", element="e2", value="Saint Islands"), TYPE),
    ]
    assert grounding(pairs, (400, 300)) == pytest.approx(
        {
            "steps": 5,
            "step_success": 1 / 5,
            "element_accuracy": 3 / 5,
            "operation_f1": (1 + 1 + 0 + 0 + 2 / 3) / 5,
            "operation": 3 / 5,
            "clicks": 4,
            "inside": 1 / 4,
            "inside_given_operation": 1 / 2,
            "near": 2 / 4,
            "near_given_operation": 2 / 2,
        }
    )


def test_what_is_not_known_is_left_out():
    assert grounding([]) == {}
    found = grounding([(None, Wanted(op="click", element="e1")), (None, TYPE)])
    assert set(found) == {"steps", "step_success", "element_accuracy", "operation_f1", "operation"}
    assert "inside_given_operation" not in grounding([(None, CLICK)])  # nothing was done
