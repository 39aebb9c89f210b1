"""Guided records as Parquet: written through Hugging Face `datasets`, so that its `load_dataset` finds the
features, and read through pyarrow, which comes with it. The only place of this package that imports
either."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.core.textfile import open_bytes
from forethought.stages.distill.records import Guided

COLUMNS = {f.name: "int64" if f.name == "level" else "string" for f in fields(Guided)}


def write(path: Path, rows: Sequence[Guided]) -> None:
    """UserError without the extra `data`, or where the file cannot be written."""
    datasets = _datasets()
    features = datasets.Features({name: datasets.Value(kind) for name, kind in COLUMNS.items()})
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict(
            {name: [getattr(row, name) for row in rows] for name in COLUMNS}, features=features
        )
        with _without_bars(datasets):
            table.to_parquet(str(part))
        os.replace(part, path)
    except (OSError, ValueError) as error:  # ValueError: what Arrow cannot hold, such as half a character
        raise UserError(f"cannot write {path}: {error}") from error


def read(path: Path) -> list[Guided]:
    """UserError for a file that is no Parquet, has other columns or types, or an id twice."""
    _datasets()
    from pyarrow import ArrowException, parquet

    open_bytes(path).close()
    try:
        table = parquet.ParquetFile(path).read()
        rows = table.to_pylist()
    except (OSError, ArrowException, ValueError, KeyError) as error:
        raise UserError(f"cannot read {path} as Parquet: {' '.join(str(error).split())[:200]}") from error
    found = {column.name: str(column.type) for column in table.schema}
    if found != COLUMNS or any(column.null_count for column in table.columns):
        raise UserError(
            f"{path} has the columns {_listed(found)}, or empty places in them; a guided data "
            f"set has {_listed(COLUMNS)}"
        )
    first: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if first.setdefault(row["id"], number) != number:
            raise UserError(
                f"{path}:{number}: the id {row['id']!r} was seen at {path}:{first[row['id']]}; "
                f"give each its own"
            )
    return [Guided(**row) for row in rows]


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items())


@contextmanager
def _without_bars(datasets: Any) -> Iterator[None]:
    """Progress bars of the library are off: the run has its own display."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "Parquet files need datasets; install it with: pip install 'forethought[data]', or write JSON "
            "lines (jsonl), which needs nothing"
        ) from error
    return datasets
