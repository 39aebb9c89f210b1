"""Rows of a data file, whatever its kind: JSON lines, or Parquet. A field inside a field has an address: `reward_model.ground_truth`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from forethought.errors import UserError, unknown
from forethought.jsonl import rows as json_rows
from forethought.textfile import open_bytes

NEEDS_DATA = 'needs the extra `data`: pip install "forethought[data]", or write the problems as JSONL'


def rows(path: str | Path, advice: str = "") -> Iterator[tuple[str, Any]]:
    """("FILE:ROW", row) in order, rows counted from 1 (of JSON lines: the lines of the file). UserError for a file that cannot be read,
    another kind of file, and a package that is missing; `advice` says what to give instead. Whether the texts that it takes hold halves of
    characters (`jsonl.half`), the caller looks: what stands in fields that nobody reads is no reason to refuse a file."""
    kinds = {".jsonl": partial(json_rows, whole=False), ".parquet": parquet_rows}
    path = Path(path)
    open_bytes(path, advice).close()
    if path.suffix not in kinds:
        raise UserError(f"{path}: {unknown('kind of file', path.suffix, kinds)}")
    return kinds[path.suffix](path, advice)


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
    except (ArrowException, OSError, ValueError, OverflowError, KeyError) as error:  # ValueError: text that is no UTF-8, a date beyond all
        after = f" after row {number}" if number else ""
        raise UserError(f"{path}: no readable Parquet file{after} ({' '.join(str(error).split())[:120]})") from error


def field(row: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """(found, value) of the field `name`: a key as it stands, or keys (and places in lists, from 0) joined by dots."""
    if name in row:
        return True, row[name]
    at: Any = row
    for key in name.split("."):
        if isinstance(at, Mapping) and key in at:
            at = at[key]
        elif isinstance(at, list) and key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(at):
            at = at[int(key)]
        else:
            return False, None
    return True, at
