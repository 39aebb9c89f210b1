"""Parsers of real pictures: what they need, what they refuse, and what they find where they are installed."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from forethought.core.errors import UserError
from forethought.envs.screen import parsers

EMPTY = np.zeros((0, 10, 3), np.uint8)


def screen() -> np.ndarray:
    picture = np.full((60, 100, 3), 255, np.uint8)
    picture[10:40, 20:70] = 0
    picture[11:39, 21:69] = 230
    return picture


@pytest.mark.parametrize("find", [parsers.contours, parsers.texts, parsers.parse])
def test_a_screenshot_of_size_0_is_refused(find):
    with pytest.raises(ValueError, match="no pixels"):
        find(EMPTY)


@pytest.mark.parametrize("find", [parsers.contours, parsers.texts])
def test_without_the_extra_it_is_named(find, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **named):
        if name in ("cv2", "rapidocr_onnxruntime"):
            raise ImportError(name)
        return real(name, *args, **named)

    parsers._rapidocr.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"forethought\[screen\]"):
        find(screen())


def test_without_tesseract_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(parsers.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="tesseract-ocr"):
        parsers.texts(screen(), "tesseract")


def test_the_table_of_tesseract_is_read():
    table = (
        "level\tleft\ttop\twidth\theight\tconf\ttext\n"
        "1\t0\t0\t100\t60\t-1\t\n"
        '5\t3\t4\t20\t9\t91.5\tsay"so\n'
        "5\t30\t4\t20\t9\t12\tnoise\n"
    )
    [found] = parsers.words_of(table)
    assert (found.box, found.label) == ((3, 4, 20, 9), 'say"so')


def test_outlines_are_found():
    pytest.importorskip("cv2", reason="the extra screen is not installed")
    boxes = [one.box for one in parsers.contours(screen())]
    assert any(abs(x - 20) <= 2 and abs(y - 10) <= 2 and abs(w - 50) <= 4 for x, y, w, _ in boxes)
