"""Who finds things on a picture: outlines by OpenCV, texts by RapidOCR or by the program `tesseract`. Their
findings are merged by `parsed.merge`.

This is the one module that imports the packages of the extra `screen`.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forethought.core.errors import UserError
from forethought.core.grounding import Box
from forethought.envs.screen.parsed import CONTROL, TEXT, Found, merge
from forethought.envs.screen.png import write

NEEDS = 'parsing a picture needs the extra screen: pip install "forethought[screen]"'
SMALLEST, LARGEST = 6, 0.5  # of an outline: pixels of the page a side, share of the picture
SECONDS = 60.0
SURE = 30  # percent: what tesseract is less sure of is no text

Reader = Literal["rapidocr", "tesseract"]


def parse(picture: NDArray[np.uint8], reader: Reader = "rapidocr", scale: float = 1.0) -> list[Found]:
    """Everything that is found on a picture [height, width, 3], in its pixels. `scale`: pixels of the picture
    for each of the page. ValueError for a picture without pixels, UserError without the extra."""
    return merge(texts(picture, reader), contours(picture, scale))


def contours(picture: NDArray[np.uint8], scale: float = 1.0) -> list[Found]:
    """Boxes around what has a border."""
    _check(picture)
    cv2 = _opencv()
    edges = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 30, 90)
    outlines, _ = cv2.findContours(cv2.dilate(edges, np.ones((2, 2))), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    most = LARGEST * picture.shape[0] * picture.shape[1]
    boxes = {tuple(map(float, cv2.boundingRect(one))) for one in outlines}
    return [
        Found(kind=CONTROL, box=box, source="contours")  # type: ignore[arg-type]
        for box in sorted(boxes)
        if min(box[2:]) >= SMALLEST * scale and box[2] * box[3] <= most
    ]


def texts(picture: NDArray[np.uint8], reader: Reader = "rapidocr") -> list[Found]:
    """What is read: line by line (rapidocr), or word by word (tesseract)."""
    _check(picture)
    if reader == "tesseract":
        return words_of(_tesseract(write(picture)))
    read, _ = _rapidocr()(np.ascontiguousarray(picture[..., ::-1]))
    return [
        Found(kind=TEXT, box=_around(corners), label=label, source="ocr") for corners, label, _ in read or []
    ]


def _around(corners: Any) -> Box:
    x, y = [float(c[0]) for c in corners], [float(c[1]) for c in corners]
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def words_of(table: str) -> list[Found]:
    """The words of tesseract's table (TSV)."""
    rows = csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        Found(
            kind=TEXT,
            box=(float(row["left"]), float(row["top"]), float(row["width"]), float(row["height"])),
            label=row["text"].strip(),
            source="ocr",
        )
        for row in rows
        if (row.get("text") or "").strip() and float(row["conf"]) >= SURE
    ]


def _check(picture: NDArray[np.uint8]) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"a picture of {picture.shape} has no pixels of (height, width, 3)")


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise UserError(NEEDS) from None
    return cv2


@cache
def _rapidocr() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError:
        raise UserError(NEEDS) from None
    return RapidOCR(intra_op_num_threads=1)


def _tesseract(png: bytes) -> str:
    program = shutil.which("tesseract")
    if program is None:
        raise UserError("the program tesseract was not found: apt install tesseract-ocr")
    try:
        done = subprocess.run(
            [program, "stdin", "stdout", "--psm", "11", "tsv"],
            input=png,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"tesseract did not answer within {SECONDS:g} s") from None
    if done.returncode:
        raise ValueError(
            f"tesseract ended with {done.returncode}: {done.stderr.decode('utf-8', 'replace')[:200]}"
        )
    return done.stdout.decode("utf-8", "replace")
