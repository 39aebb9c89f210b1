"""Ids on a picture."""

from __future__ import annotations

import numpy as np
import pytest

from forethought.envs.screen.marks import COLOURS, drawn, number

WHITE = np.full((40, 60, 3), 255, np.uint8)


def test_digits_can_be_read():
    rows = ["".join(" #"[int(x)] for x in row) for row in number(17)]
    assert rows == [" #  ###", "##    #", " #   # ", " #   # ", "###  # "]


def test_each_box_has_a_frame_and_its_number():
    out = drawn(WHITE, [(5, 5, 20, 15), (30, 5, 20, 15)])
    assert (WHITE == 255).all()  # the picture itself is as it was
    for box, colour in (((5, 5), COLOURS[0]), ((30, 5), COLOURS[1])):
        x, y = box
        assert (out[y + 14, x : x + 20] == colour).all() and (out[y : y + 15, x + 19] == colour).all()
    field = out[5:12, 5:10]
    white = (field[1:-1, 1:-1] == 255).all(-1)
    assert (white == number(1)).all()


def test_numbers_do_not_hide_each_other():
    out = drawn(WHITE, [(5, 5, 30, 20), (5, 5, 30, 20)])
    for n, x in ((1, 5), (2, 35 - 5)):
        assert ((out[6:11, x + 1 : x + 4] == 255).all(-1) == number(n)).all()


def test_boxes_beyond_the_picture_are_cut_or_left_out():
    assert (drawn(WHITE, [(100, 100, 5, 5), (-50, -50, 5, 5)]) == WHITE).all()
    out = drawn(WHITE, [(50, 30, 40, 40)], ids=[12])
    assert out.shape == WHITE.shape and not (out == WHITE).all()


def test_a_picture_of_size_0_is_refused():
    with pytest.raises(ValueError, match="no pixels"):
        drawn(np.zeros((0, 4, 3), np.uint8), [])
    with pytest.raises(ValueError, match="shorter|longer"):
        drawn(WHITE, [(1, 1, 2, 2)], ids=[1, 2])
