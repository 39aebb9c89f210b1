"""PNG files of screenshots, read and written without another package: eight bits a channel, not interlaced,
as browsers write them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

BEGIN = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # type of colour -> numbers a pixel
MOST = 1 << 26  # pixels


def read(data: bytes) -> NDArray[np.uint8]:
    """The picture [height, width, 3]; transparency is left out. ValueError for what is no such file, and for
    a picture without pixels."""
    if data[:8] != BEGIN or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("this is no PNG file")
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if not 0 < width * height <= MOST:
        raise ValueError(f"a picture of {width} x {height} pixels cannot be read")
    if bits != 8 or kind not in CHANNELS or interlaced:
        raise ValueError(f"a PNG file of {bits} bits, colours of type {kind} cannot be read")
    packed, at = [], 33
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed.append(data[at + 8 : at + 8 + size])
        at += size + 12
    n = CHANNELS[kind]
    try:
        raw = zlib.decompressobj().decompress(b"".join(packed), height * (width * n + 1))
        rows = np.frombuffer(raw, np.uint8).reshape(height, width * n + 1)
    except (zlib.error, ValueError) as error:
        raise ValueError(f"the PNG file is damaged: {error}") from None
    picture = _unfiltered(rows, n).reshape(height, width, n)
    return picture[..., :3] if n > 2 else picture[..., :1].repeat(3, axis=2)


def _unfiltered(rows: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """What each row's filter took away is added again."""
    out = rows[:, 1:].copy()
    above = np.zeros(out.shape[1], np.uint8)
    for kind, row in zip(rows[:, 0], out, strict=True):
        if kind == 1:
            row.reshape(-1, n)[:] = np.add.accumulate(row.reshape(-1, n), axis=0, dtype=np.uint8)
        elif kind == 2:
            row += above
        elif kind in (3, 4):
            row[:] = np.frombuffer(_by_byte(int(kind), row.tobytes(), above.tobytes(), n), np.uint8)
        elif kind:
            raise ValueError(f"the PNG file is damaged: filter {kind}")
        above = row
    return out


def _by_byte(kind: int, row: bytes, above: bytes, n: int) -> bytes:
    """Average and Paeth: each byte depends on the one to its left."""
    found, corner = bytearray(n), bytes(n) + above
    for i, value in enumerate(row):
        left, up, diagonal = found[i], above[i], corner[i]
        if kind == 3:
            more = (left + up) // 2
        else:
            a, b, c = abs(up - diagonal), abs(left - diagonal), abs(left + up - 2 * diagonal)
            more = left if a <= b and a <= c else up if b <= c else diagonal
        found.append((value + more) & 255)
    return bytes(found[n:])


def write(picture: NDArray[np.uint8]) -> bytes:
    """The file of a picture [height, width, 3]. ValueError for one without pixels."""
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"a picture of {picture.shape} has no pixels of (height, width, 3)")
    height, width = picture.shape[:2]
    rows = np.zeros((height, width * 3 + 1), np.uint8)
    rows[:, 1:] = picture.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 9)
    return BEGIN + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
