"""A guided data set on disk: `guided.jsonl` or `guided.parquet`, and `provenance.json` next to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from forethought.core.datafiles import half, json_rows, need_new, read_object
from forethought.core.errors import UserError
from forethought.stages.distill import parquet
from forethought.stages.distill.records import Drop, Guided, Provenance, Usage

NAME, PROVENANCE = "guided", "provenance.json"
_TYPES = {f.name: int if f.name == "level" else str for f in fields(Guided)}


def write(
    folder: Path,
    rows: Sequence[Guided],
    provenance: Provenance,
    form: Literal["jsonl", "parquet"] = "parquet",
) -> Path:
    """Write both files and return the path of the data. UserError for duplicate ids, for a folder that has
    other data already, or, for Parquet, without the extra `data`."""
    path = folder / f"{NAME}.{form}"
    if other := [f for f in _data_files(folder) if f != path]:
        raise UserError(f"{folder} holds {other[0].name} already; choose another folder, or delete it")
    check_ids([row.id for row in rows], str(path))
    save = parquet.write if form == "parquet" else write_jsonl
    save(path, rows)
    _replace(
        folder / PROVENANCE,
        lambda part: part.write_text(json.dumps(asdict(provenance), indent=1) + "\n", encoding="utf-8"),
    )
    return path


def read(folder: Path) -> tuple[list[Guided], Provenance]:
    """What `write` wrote, equal to it. UserError for a folder that holds no data set, or a damaged one."""
    found = _data_files(folder)
    if len(found) != 1 or not (folder / PROVENANCE).is_file():
        raise UserError(
            f"{folder} is no guided data set: it needs {NAME}.jsonl or {NAME}.parquet, and {PROVENANCE}"
        )
    rows = parquet.read(found[0]) if found[0].suffix == ".parquet" else read_jsonl(found[0])
    said = read_object(folder / PROVENANCE, "distil again, the cache keeps what was paid")
    try:
        said |= {
            "sources": tuple(said["sources"]),
            "examples": tuple(Drop(**d) for d in said["examples"]),
            **{name: Usage(**said[name]) for name in ("paid", "paid_before", "tried")},
        }
        provenance = Provenance(**said)
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{folder / PROVENANCE} is damaged ({error}); distil again, the cache keeps what was paid"
        ) from error
    if provenance.kept != len(rows):
        raise UserError(
            f"{found[0]} has {len(rows)} records and {PROVENANCE} says {provenance.kept}: they "
            f"are of two runs; distil again"
        )
    return rows, provenance


def write_jsonl(path: Path, rows: Sequence[Guided]) -> None:
    """One record per line. UserError for duplicate ids, and for half of a character, which no reader
    takes."""
    check_ids([row.id for row in rows], str(path))
    for place, row in enumerate(rows, 1):
        if (found := half(asdict(row))) is not None:
            raise UserError(f"cannot write {path}: record {place}: {found}")
    _replace(
        path,
        lambda part: part.write_text(
            "".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8"
        ),
    )


def read_jsonl(path: Path) -> list[Guided]:
    """UserError with file and line for what is not a record, and for an id that was seen before, with both
    lines. Blank lines are passed over, and an id may be a whole number."""
    records: list[Guided] = []
    first: dict[str, str] = {}
    for where, said in json_rows(path):
        record = _record(said, where)
        need_new(first, record.id, where)
        records.append(record)
    return records


def check_ids(ids: Sequence[str], where: str) -> None:
    """UserError naming the first id that stands twice, and its two places (records counted from 1)."""
    first: dict[str, int] = {}
    for place, id in enumerate(ids, start=1):
        if id in first:
            raise UserError(
                f"{where}: record {place} has the id {id!r} of record {first[id]}; give each its own"
            )
        first[id] = place


def _record(said: Any, where: str) -> Guided:
    if not isinstance(said, dict) or set(said) != set(_TYPES):
        found = sorted(said) if isinstance(said, dict) else type(said).__name__
        raise UserError(f"{where}: a guided record has the fields {', '.join(_TYPES)}; found {found}")
    if type(said["id"]) is int:
        said = said | {"id": str(said["id"])}
    for name, kind in _TYPES.items():
        if type(said[name]) is not kind:
            raise UserError(
                f"{where}: {name} is {said[name]!r}; it must be "
                f"{'a whole number' if kind is int else 'a text'}"
            )
    return Guided(**said)


def _data_files(folder: Path) -> list[Path]:
    return [path for form in ("jsonl", "parquet") if (path := folder / f"{NAME}.{form}").exists()]


def _replace(path: Path, write_to: Callable[[Path], object]) -> None:
    """Written next to its place and renamed: a reader sees the old file or the new one."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to(part)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
