"""PNG files: what is written is read again, every filter is undone, and what is none is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from forethought.envs.screen.png import BEGIN, _chunk, read, write

PICTURE = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)


def file(rows: bytes, width: int, height: int, kind: int = 2, bits: int = 8, interlaced: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    return BEGIN + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def filtered(picture: np.ndarray, kind: int) -> bytes:
    """Each byte less what the filter foresees, as the specification has it."""
    height, width, n = picture.shape
    raw = picture.reshape(height, -1).astype(int)
    out = b""
    for y in range(height):
        row = bytes([kind])
        for i in range(width * n):
            left = raw[y, i - n] if i >= n else 0
            up = raw[y - 1, i] if y else 0
            corner = raw[y - 1, i - n] if y and i >= n else 0
            by = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
            paeth = (left, up, corner)[by.index(min(by))]
            row += bytes([int(raw[y, i] - (0, left, up, (left + up) // 2, paeth)[kind]) % 256])
        out += row
    return out


def test_what_is_written_is_read():
    assert (read(write(PICTURE)) == PICTURE).all()


@pytest.mark.parametrize("kind", range(5))
def test_each_filter_is_undone(kind):
    assert (read(file(filtered(PICTURE, kind), 5, 7)) == PICTURE).all()


def test_grey_and_transparent_pictures_have_three_channels():
    grey = read(file(b"\0\x05\x07", 2, 1, kind=0))
    assert grey.tolist() == [[[5] * 3, [7] * 3]]
    assert read(file(b"\0\x01\x02\x03\xff", 1, 1, kind=6)).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no PNG"),
        (b"GIF89a" + bytes(40), "no PNG"),
        (file(b"", 0, 4), "0 x 4 pixels"),
        (file(b"", 100_000, 100_000), "100000 x 100000 pixels"),
        (file(b"\0\0\0", 1, 1, bits=16), "16 bits"),
        (file(b"\0\0", 1, 1, kind=3), "type 3"),
        (file(b"\0\0\0\0", 1, 1, interlaced=1), "cannot be read"),
        (file(b"\0\0\0", 1, 1), "damaged"),
        (file(b"\x09\0\0\0", 1, 1), "filter 9"),
        (write(PICTURE)[:50], "damaged"),
    ],
)
def test_what_cannot_be_read_says_why(data, reason):
    with pytest.raises(ValueError, match=reason):
        read(data)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (4, 4), (4, 4, 1)])
def test_a_picture_without_pixels_is_not_written(shape):
    with pytest.raises(ValueError, match="no pixels"):
        write(np.zeros(shape, np.uint8))
