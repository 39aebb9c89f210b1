"""Rows of a data set: a file (JSONL, CSV, Parquet) or a split of the Hugging Face hub.

rows_of("train.jsonl")                   needs nothing
rows_of("train.parquet")                 needs pyarrow (the extra `data`)
rows_of("hub:openai/gsm8k:main:test")    hub:NAME[:CONFIG]:SPLIT, needs datasets (the extra `data`); a
                                         split may be cut: train[:60000]
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from forethought.core.datafiles import NEEDS_DATA, rows
from forethought.core.errors import UserError
from forethought.core.hub import unreachable
from forethought.interface.result import quoted_text

HUB = "hub:"
HUB_SPLIT = re.compile(r"(?P<name>[^:\[\]]+)(?::(?P<config>[^:\[\]]+))?:(?P<split>[^:\[\]]+(?:\[[^\]]*\])?)")
MOST_BYTES = 4 << 30  # of a file that is read whole: its rows stay in memory, at two to five times its size


def rows_of(source: str, most: int = 0) -> Iterator[tuple[str, Any]]:
    """(where, what stands there) of each row, one at a time; `most`: of the first so many, 0: of all.
    UserError for a source that cannot be read, and for a file too large to be read whole."""
    if source.startswith(HUB):
        found = _hub(source)
    else:
        if not most:
            _need_size(source)
        found = rows(source, f"name a .jsonl, .csv or .parquet file, or {HUB}NAME[:CONFIG]:SPLIT")
    yield from islice(found, most or None)


def _need_size(source: str) -> None:
    try:
        size = Path(source).stat().st_size
    except (OSError, ValueError):
        return  # `rows` says what is wrong with it
    if size > MOST_BYTES:
        raise UserError(
            f"{source}: {size / (1 << 30):.1f} GiB, and every row stays in memory; read its first rows alone "
            f"with task.most = 100000, or split the file (most that is read whole: {MOST_BYTES >> 30} GiB)"
        )


def _hub(source: str) -> Iterator[tuple[str, Any]]:
    parts = HUB_SPLIT.fullmatch(source.removeprefix(HUB))
    if parts is None:
        raise UserError(
            f"{source!r}: a problem set of the hub is written {HUB}NAME[:CONFIG]:SPLIT, such as "
            f"{HUB}openai/gsm8k:main:test"
        )
    if why := unreachable():  # what was fetched before is still found; read when datasets is imported
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"{source}: reading from the hub {NEEDS_DATA}") from None
    try:
        found = load_dataset(*[part for part in parts.group("name", "config") if part], split=parts["split"])
    # no network, no such set, no such split, a gated set: datasets has no common error
    except Exception as error:
        said = f"{source}: {type(error).__name__}: {quoted_text(str(error), 200)}"
        raise UserError(f"{said}; {why}: name a file, or connect" if why else said) from error
    yield from ((f"{source}:{number}", row) for number, row in enumerate(found, 1))
