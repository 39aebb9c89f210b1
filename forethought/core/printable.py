"""Text of a model, a file, an endpoint, a path or an exception, made fit for a terminal: what it could do
there is shown, not done."""

from __future__ import annotations

import os
from typing import IO

# they turn the order in which text is shown
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: object, keep: str = "") -> str:
    """What is not a printable character, nor in `keep`, as its code: escape sequences (`\\x1b`), other
    controls, marks that turn the direction of text, halves of characters (lone surrogates). Printable text
    comes back as it is."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in said)


def one_line(text: object) -> str:
    """The same on one line, with single spaces."""
    return printable(" ".join(str(text).split()))


def cut(text: str, most: int = 60) -> str:
    """At most `most` characters of a text, with dots where it was longer."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def give_up(stream: IO[str]) -> None:
    """Nobody reads it any more. Python flushes its streams once more at exit; this one gets somewhere to
    go."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        pass  # it is not a real file (a test's)


class Shown:
    """A text stream that shows what it is given, line ends and tabs aside. Not for what draws with escape
    sequences of its own."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` with control characters made visible; newline and tab stay."""
        self._stream.write(printable(text, keep="\n\t"))
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream behind is a terminal."""
        return self._stream.isatty()
