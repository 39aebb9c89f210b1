"""What a run appends to: each log knows its length and its digest up to its last line, so a checkpoint can
say both at no cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from forethought.core.jsonl import dumps
from forethought.store.files import hasher, hex_of, whole_number

PIECE = 1 << 20  # bytes that are read at once


class Log:
    """A file of one JSON object a line that only grows. What is there already is read once, when the first
    line is added."""

    def __init__(self, path: Path):
        self.path = path
        self._length, self._state = 0, None

    def append(self, record: Mapping[str, object]) -> None:
        """Write one record as one line, and carry length and digest forward."""
        line = (dumps(record) + "\n").encode()
        self._know()
        with open(self.path, "ab") as f:
            f.write(line)
        self._length += len(line)
        self._state.update(line)

    def mark(self) -> list:
        """[bytes, digest] of all that was written so far."""
        self._know()
        return [self._length, hex_of(self._state)]

    def cut(self, length: int) -> None:
        """Undo what came after the first `length` bytes; a file that is shorter stays as it is."""
        self._state = None
        if self.path.exists():
            with open(self.path, "r+b") as f:
                f.truncate(min(length, self.path.stat().st_size))

    def _know(self) -> None:
        if self._state is None:
            self._length, self._state = _read(self.path, None)


def unlike(path: Path, mark: object) -> str:
    """In what a log differs from the `mark` that a checkpoint has of it, as a clause that follows its name,
    or "". What was added since is no difference. A mark of runs from before there were digests is a length
    alone."""
    if whole_number(mark):
        mark = [mark, None]
    if not is_mark(mark):
        return "is described by no length and digest in the checkpoint"
    length, digest = mark
    found, state = _read(path, length)
    if found < length:
        return (
            f"has {found} bytes, and {length} had been written"
            if path.exists()
            else (f"is missing, and {length} bytes had been written")
        )
    return "" if digest is None or hex_of(state) == digest else "is not what was written"


def is_mark(value: object) -> bool:
    """Whether a value read from a checkpoint is (length, digest or None)."""
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and whole_number(value[0])
        and (value[1] is None or isinstance(value[1], str))
    )


def _read(path: Path, most: int | None) -> tuple[int, object]:
    """(bytes, state of their digest) of a file's first `most` bytes, None: of all."""
    state, length = hasher(), 0
    if not path.is_file():
        return length, state
    with open(path, "rb") as f:
        while piece := f.read(PIECE if most is None else min(PIECE, most - length)):
            state.update(piece)
            length += len(piece)
    return length, state
