"""How every text file that a user hands over is opened and cut into lines: one set of rules, every error with
file and line.

UTF-8, with or without a byte order mark. A line ends at LF, CRLF or a lone CR, and nowhere else: U+2028,
U+2029, NEL, VT and FF are characters like others. A folder, a pipe, a gzip file, a path with a NUL and a line
beyond MOST_LINE are refused by name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from forethought.core.errors import UserError

MOST_LINE = 64 << 20  # bytes; a longer line is not a line of text
_BOM, _GZIP = b"\xef\xbb\xbf", b"\x1f\x8b"


def open_bytes(path: str | Path, advice: str = "") -> IO[bytes]:
    """A regular file, opened for reading. UserError names the path and what is wrong with it; `advice` says
    what to give instead."""

    def refuse(what: str) -> UserError:
        return UserError(f"{path}: {what}{f'; {advice}' if advice else ''}")

    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind):
            raise refuse("a folder, not a file" if stat.S_ISDIR(kind) else "no regular file")
        return open(path, "rb")
    except FileNotFoundError:
        raise refuse("no such file") from None
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror})") from error
    except ValueError:  # a NUL in it, or half a character
        raise UserError(f"{str(path)!r}: no path can hold these characters") from None


def raw_lines(file: IO[bytes], source: object) -> Iterator[bytes]:
    """The lines of an open file that a run has written, with their ends (LF alone). UserError for one beyond
    MOST_LINE."""
    number = 0
    while line := file.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise UserError(f"{source}:{number}: a line of more than {MOST_LINE >> 20} MiB")
        yield line


def numbered(file: IO[bytes], source: object) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its end) of each line of an open file."""
    number = 0
    for raw in raw_lines(file, source):
        if number == 0:
            if raw.startswith(_GZIP):
                raise UserError(f"{source}: a gzip file; unpack it first (gunzip)")
            raw = raw.removeprefix(_BOM)
        for piece in raw.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"):
            number += 1
            try:
                yield number, piece.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{source}:{number}: not UTF-8 (byte {error.start + 1} of the line); save "
                    f"the file as UTF-8"
                ) from None


def lines(path: str | Path, advice: str = "") -> Iterator[tuple[int, str]]:
    """(number from 1, text without its end) of each line of the file at `path`."""
    with open_bytes(path, advice) as file:
        yield from numbered(file, path)


def read_text(path: str | Path, advice: str = "") -> str:
    """The whole file, its lines ended by LF; the last one has an end where it has one in the file."""
    with open_bytes(path, advice) as file:
        text = "\n".join(line for _, line in numbered(file, path))
        size = file.tell()
        file.seek(max(size - 1, 0))
        return text + "\n" if file.read(1) in (b"\n", b"\r") else text
