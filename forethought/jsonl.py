"""JSON as files hold it: one value a line (problem sets, solutions, what a run appends), or one in a file.

Every way in which JSON can be malformed is a UserError with file and line: syntax, bytes that are no UTF-8, a number that is none (NaN,
1e999) or has thousands of digits, nesting without end, half of a character. Lines are cut as `textfile` says; blank ones are skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from forethought.errors import UserError
from forethought.textfile import lines, numbered, read_text

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that may be half of a character


class Exact(float):
    """A float that remembers how it was written: 1e-7, 0.10."""

    said: str = ""

    def __new__(cls, said: str) -> Exact:
        value = super().__new__(cls, said)
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"{said[:40]} is too large for a number")
        value.said = said
        return value


def value_of(said: str, where: str, *, whole: bool = True) -> Any:
    """The value that a JSON text says; its floats are `Exact`. UserError, beginning with `where`, for anything else. `whole`: no text in
    it may hold half of a character; a reader that takes some fields only looks at those itself."""
    try:
        value = json.loads(said, parse_float=Exact, parse_constant=_no_number)
    except ValueError as error:
        many = "a whole number of thousands of digits" if "digits" in str(error) and not isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{where}: no JSON ({many})") from None
    except RecursionError:
        raise UserError(f"{where}: JSON nested too deeply") from None
    if whole and _HALF.search(said) and (found := half(value)) is not None:
        raise UserError(f"{where}: {found}")
    return value


def rows(path: str | Path, advice: str = "", *, whole: bool = True) -> Iterator[tuple[str, Any]]:
    """("FILE:LINE", value) of each line of a file that is not blank. UserError as `value_of` and `textfile.open_bytes` raise it."""
    return _values(lines(path, advice), path, whole)


def rows_of(file: IO[bytes], source: object) -> Iterator[tuple[str, Any]]:
    """The same of an open file."""
    return _values(numbered(file, source), source, True)


def _values(said: Iterable[tuple[int, str]], source: object, whole: bool) -> Iterator[tuple[str, Any]]:
    return ((f"{source}:{n}", value_of(text, f"{source}:{n}", whole=whole)) for n, text in said if text.strip())


def read_object(path: str | Path, advice: str = "") -> dict[str, Any]:
    """The one JSON object that a file holds. UserError, beginning with the path, for anything else."""
    value = value_of(read_text(path, advice), str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a JSON object, found a {type(value).__name__}")
    return value


def half(value: Any) -> str | None:
    """A sentence about the first text in `value` that holds half of a character (a lone surrogate), with its field; None: all are whole."""
    todo = [("", value)]
    while todo:
        field, at = todo.pop()
        if isinstance(at, str):
            lone = next((c for c in at if "\ud800" <= c <= "\udfff"), None)
            if lone is not None:
                place = f"field {field!r}" if field and field.isprintable() else "a text"
                return f"{place} holds half of a character (U+{ord(lone):04X}), which no tokenizer can read; write the whole character or none"
        elif isinstance(at, dict):
            todo += [item for key, inside in reversed(at.items()) for item in ((_inside(field, key), inside), (field, key))]
        elif isinstance(at, list | tuple):
            todo += [(_inside(field, i), inside) for i, inside in reversed(list(enumerate(at)))]
    return None


def _inside(field: str, key: object) -> str:
    return f"{field}.{key}" if field else str(key)


def _no_number(said: str) -> None:
    raise ValueError(f"{said} is no JSON; write null where there is no number")


def parse_lines(raw: Iterable[bytes], source: Path, check: Callable[[Any], str]) -> tuple[list[dict[str, Any]], bool]:
    """(objects, cut) of a file that a run has appended to: `raw` are lines with their line ends. A last line without an end that does not
    parse was cut off in writing.

    `check` returns what is wrong with an object, or "". `UserError` names the line of `source`. Empty lines are passed over. What is not
    finite is kept, and so is half of a character: these are records of what happened, to be shown and not to be trained on.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(raw, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except RecursionError:
            raise UserError(f"{source} line {number} is not JSON: nested too deeply") from None
        except ValueError as error:
            if not line.endswith(b"\n"):  # only the last line of a file can lack its end
                return rows, True
            raise UserError(f"{source} line {number} is not JSON: {error}") from error
        wrong = check(row) if isinstance(row, dict) else ""
        if wrong or not isinstance(row, dict):
            raise UserError(f"{source} line {number}{f': {wrong}' if wrong else ' is no JSON object'}")
        rows.append(row)
    return rows, False
