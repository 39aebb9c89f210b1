"""Rows of a data file, whatever its kind: JSON lines, CSV or Parquet. A field inside a field has an address:
`reward_model.ground_truth`.

Every way in which JSON can be malformed is a UserError with file and line: syntax, bytes that are not UTF-8,
a number that is none (NaN, 1e999) or has thousands of digits, nesting without end, half of a character. Lines
are cut as `textfile` says; blank ones are skipped. (What a run appends to is read by `jsonl`: it may be cut
off, and holds numbers that are not finite.)"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from forethought.core.errors import UserError, unknown
from forethought.core.textfile import lines, numbered, open_bytes, read_text

NEEDS_DATA = 'needs the extra `data`: pip install "forethought[data]", or write the problems as JSONL'
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that may be half of a character


# --- any kind ---


def rows(path: str | Path, advice: str = "") -> Iterator[tuple[str, Any]]:
    """("FILE:ROW", row) in order, rows counted from 1 (of JSON lines: the lines of the file). UserError for a
    file that cannot be read, another kind of file, and a package that is missing; `advice` says what to give
    instead. Whether the texts that it takes hold halves of characters (`half`), the caller looks: what stands
    in fields that nobody reads is no reason to refuse a file."""
    kinds: dict[str, Callable[..., Iterator[tuple[str, Any]]]] = {
        ".jsonl": partial(json_rows, whole=False),
        ".csv": csv_rows,
        ".parquet": parquet_rows,
    }
    path = Path(path)
    open_bytes(path, advice).close()
    if path.suffix not in kinds:
        raise UserError(f"{path}: {unknown('kind of file', path.suffix, kinds)}")
    return kinds[path.suffix](path, advice)


def csv_rows(path: str | Path, advice: str = "") -> Iterator[tuple[str, Any]]:
    """The rows of a CSV file with a line of column names: texts, "" where a cell is empty. A cell in quotes
    may hold commas and line ends. UserError for a row with more or fewer cells than there are columns."""
    with open_bytes(path, advice) as file:
        read = csv.reader((text + "\n" for _, text in numbered(file, path)), strict=True)
        names: list[str] = []
        line = 0
        try:
            for cells in read:
                line, before = read.line_num, line
                if not cells:
                    continue  # a blank line
                if not names:
                    names = cells
                    _need_names(names, path)
                elif len(cells) != len(names):
                    raise UserError(f"{path}:{before + 1}: {len(cells)} cells, and {len(names)} columns")
                else:
                    yield f"{path}:{before + 1}", dict(zip(names, cells, strict=True))
        except csv.Error as error:
            raise UserError(f"{path}:{line + 1}: no readable CSV ({error})") from None


def _need_names(names: list[str], path: str | Path) -> None:
    if twice := [name for name in names if not name.strip() or names.count(name) > 1]:
        raise UserError(f"{path}:1: the first line names the columns, each once; found {twice[0]!r}")


def parquet_rows(path: str | Path, advice: str = "") -> Iterator[tuple[str, Any]]:
    """The rows of a Parquet file; structs are objects and lists are lists, as in JSON."""
    open_bytes(path, advice).close()
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"{path}: a Parquet file {NEEDS_DATA}") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    # ValueError: text that is not UTF-8, a date beyond all
    except (ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        after = f" after row {number}" if number else ""
        raise UserError(
            f"{path}: no readable Parquet file{after} ({' '.join(str(error).split())[:120]})"
        ) from error


def field(row: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """(found, value) of the field `name`: a key as it stands, or keys (and places in lists, from 0) joined by
    dots."""
    if name in row:
        return True, row[name]
    at: Any = row
    for key in name.split("."):
        if isinstance(at, Mapping) and key in at:
            at = at[key]
        elif (
            isinstance(at, list) and key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(at)
        ):
            at = at[int(key)]
        else:
            return False, None
    return True, at


# --- JSON ---


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
    """The value that a JSON text says; its floats are `Exact`. UserError, beginning with `where`, for
    anything else. `whole`: no text in it may hold half of a character; a reader that takes some fields only
    looks at those itself."""
    try:
        value = json.loads(said, parse_float=Exact, parse_constant=_no_number)
    except ValueError as error:
        many = (
            "a whole number of thousands of digits"
            if "digits" in str(error) and not isinstance(error, json.JSONDecodeError)
            else error
        )
        raise UserError(f"{where}: no JSON ({many})") from None
    except RecursionError:
        raise UserError(f"{where}: JSON nested too deeply") from None
    if whole and _HALF.search(said) and (found := half(value)) is not None:
        raise UserError(f"{where}: {found}")
    return value


def json_rows(path: str | Path, advice: str = "", *, whole: bool = True) -> Iterator[tuple[str, Any]]:
    """("FILE:LINE", value) of each line of a file that is not blank. UserError as `value_of` and
    `textfile.open_bytes` raise it."""
    return _values(lines(path, advice), path, whole)


def json_rows_of(file: IO[bytes], source: object) -> Iterator[tuple[str, Any]]:
    """The same of an open file."""
    return _values(numbered(file, source), source, True)


def _values(said: Iterable[tuple[int, str]], source: object, whole: bool) -> Iterator[tuple[str, Any]]:
    return (
        (f"{source}:{n}", value_of(text, f"{source}:{n}", whole=whole)) for n, text in said if text.strip()
    )


def read_object(path: str | Path, advice: str = "") -> dict[str, Any]:
    """The one JSON object that a file of a run holds. UserError, beginning with the path, for anything
    else."""
    value = value_of(read_text(path, advice), str(path), whole=False)
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a JSON object, found a {type(value).__name__}")
    return value


def half(value: Any) -> str | None:
    """A sentence about the first text in `value` that holds half of a character (a lone surrogate), with its
    field; None: all are whole."""
    todo = [("", value)]
    while todo:
        field, at = todo.pop()
        if isinstance(at, str):
            lone = next((c for c in at if "\ud800" <= c <= "\udfff"), None)
            if lone is not None:
                place = f"field {field!r}" if field and field.isprintable() else "a text"
                return (
                    f"{place} holds half of a character (U+{ord(lone):04X}), which no tokenizer can read; "
                    "write the whole character or none"
                )
        elif isinstance(at, dict):
            todo += [
                item
                for key, inside in reversed(at.items())
                for item in ((_inside(field, key), inside), (field, key))
            ]
        elif isinstance(at, list | tuple):
            todo += [(_inside(field, i), inside) for i, inside in reversed(list(enumerate(at)))]
    return None


def _inside(field: str, key: object) -> str:
    return f"{field}.{key}" if field else str(key)


def _no_number(said: str) -> None:
    raise ValueError(f"{said} is not JSON; write null where there is no number")


def need_new(first: dict[str, str], id: str, where: str) -> None:
    """Remember where an id was first seen. UserError for one that was seen before, with both places."""
    if id in first:
        raise UserError(f"{where}: the id {id!r} was seen at {first[id]}; give each its own")
    first[id] = where
