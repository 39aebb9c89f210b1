"""Merging of boxes: each rule by a case, and what holds for any boxes."""

from __future__ import annotations

import random

import pytest

from forethought.envs.screen.parsed import (
    SAME,
    WITHIN,
    Found,
    iou,
    lines,
    merge,
    overlap,
    recall,
    within,
)


def text(*box, label="read"):
    return Found(kind="text", box=box, label=label, source="ocr")


def control(*box, label=""):
    return Found(kind="control", box=box, label=label, source="contours")


def test_overlap_counts_a_box_inside_another_as_whole():
    a, b = (0, 0, 10, 10), (2, 2, 4, 4)
    assert iou(a, b) == 16 / 100 and overlap(a, b) == overlap(b, a) == 1 and within(b, a) == 1
    assert within(a, b) == 16 / 100 and overlap(a, (20, 0, 5, 5)) == 0 and iou(a, (10, 0, 5, 5)) == 0
    assert overlap((0, 0, 0, 5), a) == 0  # no area


@pytest.mark.parametrize(
    "texts, controls, merged",
    [
        # the smaller of two controls stays
        ([], [control(0, 0, 10, 10), control(1, 1, 8, 8)], [control(1, 1, 8, 8)]),
        ([], [control(0, 0, 10, 10), control(0, 0, 10, 10, label="twin")], [control(0, 0, 10, 10)]),
        # side by side, both stay
        ([], [control(0, 0, 10, 10), control(6, 0, 10, 10)], [control(0, 0, 10, 10), control(6, 0, 10, 10)]),
        # a text inside is a label; two of them are read from left to right
        (
            [text(20, 2, 10, 6, label="it"), text(2, 2, 10, 6, label="Save")],
            [control(0, 0, 40, 10)],
            [Found(kind="control", box=(0, 0, 40, 10), label="Save it", source="contours+ocr")],
        ),
        # the label goes to the smallest home
        (
            [text(2, 2, 4, 4)],
            [control(0, 0, 10, 10), control(0, 8, 100, 100)],
            [
                Found(kind="control", box=(0, 0, 10, 10), label="read", source="contours+ocr"),
                control(0, 8, 100, 100),
            ],
        ),
        # half of it inside is not enough
        ([text(0, 0, 20, 10)], [control(10, 0, 20, 10)], [text(0, 0, 20, 10), control(10, 0, 20, 10)]),
        # a control inside of a text is a letter
        ([text(0, 0, 40, 10)], [control(2, 2, 5, 5)], [text(0, 0, 40, 10)]),
        ([text(0, 0, 0, 10)], [control(0, 0, 10, 0)], []),
    ],
)
def test_each_rule_of_merging(texts, controls, merged):
    assert merge(texts, controls) == merged


@pytest.mark.parametrize("seed", range(40))
def test_what_holds_for_any_boxes(seed):
    rng = random.Random(seed)
    box = lambda: (rng.randrange(40), rng.randrange(40), rng.randrange(25), rng.randrange(25))  # noqa: E731
    texts = [text(*box(), label=f"t{i}") for i in range(rng.randrange(8))]
    controls = [control(*box()) for _ in range(rng.randrange(12))]
    found = merge(texts, controls)
    kept = [one for one in found if one.kind == "control"]
    free = [one for one in found if one.kind == "text"]
    for i, one in enumerate(kept):
        assert all(overlap(one.box, other.box) <= SAME for other in kept[:i])
        assert all(within(one.box, other.box) <= WITHIN for other in texts)
        assert all(within(other.box, one.box) <= WITHIN for other in free)
    # every text is read once
    said = sorted(word for one in found for word in one.label.split())
    assert said == sorted(one.label for one in texts if one.box[2] and one.box[3])
    assert merge(free, kept) == found  # once is enough
    shuffled = merge(rng.sample(texts, len(texts)), controls)
    assert sorted(one.box for one in shuffled) == sorted(one.box for one in found)


def test_a_parsed_screen_is_a_snapshot_and_can_be_counted():
    found = [control(0, 0, 10, 10, label=" two\nwords"), text(20, 0, 10, 10)]
    assert [(x.ref, x.role, x.name) for x in lines(found)] == [
        ("e1", "control", "two words"),
        ("e2", "text", "read"),
    ]
    assert recall(found, [(0, 0, 10, 9), (22, 2, 5, 5), (22, 2, 2, 2), (50, 50, 5, 5)]) == 0.5
    assert recall([], []) == 1
