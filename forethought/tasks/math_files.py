"""Math problems from JSONL or Parquet files, or from the Hugging Face hub, under the field names of the common releases.

    read("gsm8k/test.jsonl")                 JSONL, one object a line: needs nothing
    read("math.parquet")                     needs pyarrow (the extra `data`)
    read("hub:openai/gsm8k:main:test")       hub:NAME[:CONFIG]:SPLIT, needs datasets (the extra `data`); a split may be cut: train[:60000]

Known: GSM8K (arXiv 2110.14168), MATH (2103.03874) and MATH-500, AIME, AMC, DeepMath; other names by `fields = { problem = "task" }`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.errors import UserError, unknown
from forethought.interface.result import Refusal, shown
from forethought.tasks.math_answers import boxed, hashed
from forethought.tasks.math_grading import why_unmatchable

HUB = "hub:"
NEEDS_DATA = 'needs the extra `data`: pip install "forethought[data]", or write the problems as JSONL'
FIELDS = {  # what a record holds -> names that releases give it, the first that is there counts, upper and lower case alike
    "id": ("id", "unique_id", "problem_id"),
    "problem": ("problem", "question"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "solution": ("solution", "rationale"),
    "level": ("level", "difficulty"),
    "subject": ("subject", "type", "topic"),
    "plan": ("plan",),
    "chain": ("chain",),
}
HUB_SPLIT = re.compile(r"(?P<name>[^:\[\]]+)(?::(?P<config>[^:\[\]]+))?:(?P<split>[^:\[\]]+(?:\[[^\]]*\])?)")
CALCULATION = re.compile(r"<<[^<>\n]*>>")  # how GSM8K marks the calculations of a solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One problem. `level`: the release's own (MATH: 1 to 5; a fraction is rounded down), else the calculations marked in the
    solution (GSM8K), else 0: not graded. `plan` and `chain` stand in distilled data only."""

    id: str
    problem: str
    answer: str
    solution: str = ""
    level: int = 0
    subject: str = ""
    plan: str = ""
    chain: str = ""
    where: str = ""  # file and line, for messages


def read(source: str | Path, fields: Mapping[str, str] | None = None, *, only: Mapping[str, object] | None = None,
         skipped: list[str] | None = None) -> list[Record]:
    """The problems of a file or hub split, in order. `fields` names the field of a record's part where FIELDS does not know it; `only`
    takes the rows that have these values in these fields; where there is a list `skipped`, problems that cannot be read are left out and
    the reasons added to it.

    UserError (with file and line) for a line that is empty or no JSON object, a problem without text or answer, and an id seen
    before; for a file that is missing or empty, of another kind, or needs a package that is not installed.
    """
    fields = dict(fields or {})
    for part in fields:
        if part not in FIELDS:
            raise UserError(unknown("part of a problem", part, FIELDS))
    records: list[Record] = []
    first: dict[str, str] = {}
    only = dict(only or {})
    for number, (where, row) in enumerate(_rows(str(source)), 1):
        if only and not _has(row, only, where):
            continue
        try:
            record = _record(row, where, fields, number)
        except UserError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
            continue
        if record.id in first:
            raise UserError(f"{where}: the id {record.id!r} was seen at {first[record.id]}; give each problem its own")
        first[record.id] = where
        records.append(record)
    if not records:
        kind = f"{f' with {only}' if only else ''}{f' that can be read ({skipped[0]})' if skipped else ''}"
        raise UserError(f"{source}: no problems in it{kind}")
    return records


# --- rows ---


def _rows(source: str) -> Iterator[tuple[str, Any]]:
    """(where, what stands there), whatever the source."""
    if source.startswith(HUB):
        return _hub(source)
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}; "
                        f"name a .jsonl or .parquet file, or {HUB}NAME[:CONFIG]:SPLIT")
    readers = {".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise UserError(f"{path}: {unknown('kind of file', path.suffix, readers)}")
    return readers[path.suffix](path)


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            try:
                yield where, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                raise UserError(f"{where}: not UTF-8") from None
            except ValueError as error:
                raise UserError(f"{where}: {'an empty line' if not line.strip() else f'no JSON ({error})'}") from None
            except RecursionError:
                raise UserError(f"{where}: JSON nested too deeply") from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"{path}: a Parquet file {NEEDS_DATA}") from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path}: no readable Parquet file ({shown(str(error), 120)})") from None
    yield from _numbered(str(path), rows)


def _hub(source: str) -> Iterator[tuple[str, Any]]:
    parts = HUB_SPLIT.fullmatch(source.removeprefix(HUB))
    if parts is None:
        raise UserError(f"{source!r}: a problem set of the hub is written {HUB}NAME[:CONFIG]:SPLIT, such as {HUB}openai/gsm8k:main:test")
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"{source}: reading from the hub {NEEDS_DATA}") from None
    try:
        rows = load_dataset(*[part for part in parts.group("name", "config") if part], split=parts["split"])
    except Exception as error:  # no network, no such set, no such split, a gated set: datasets has no common error
        raise UserError(f"{source}: {type(error).__name__}: {shown(str(error), 200)}") from error
    yield from _numbered(source, rows)


def _numbered(source: str, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{source}:{number}", row) for number, row in enumerate(rows, 1))


# --- records ---


def _has(row: Any, only: Mapping[str, object], where: str) -> bool:
    if isinstance(row, Mapping) and (lost := [name for name in only if name not in row]):
        raise UserError(f"{where}: {unknown('field', lost[0], row)}")
    return isinstance(row, Mapping) and all(row[name] == value for name, value in only.items())


def _record(row: Any, where: str, fields: Mapping[str, str], number: int) -> Record:
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: expected an object with a problem and its answer, found {shown(json.dumps(row, default=str))}")
    lower = {str(name).lower(): value for name, value in row.items()}

    def part(name: str) -> Any:
        if name in fields:
            if fields[name] not in row:
                raise UserError(f"{where}: {unknown('field', fields[name], row)}")
            return row[fields[name]]
        return next((lower[known] for known in FIELDS[name] if lower.get(known) is not None), None)

    text = {name: _text(part(name), name, where) for name in FIELDS if name != "level"}
    if not text["problem"]:
        raise UserError(f"{where}: no problem text; its fields are {', '.join(map(str, row)) or 'none'}. "
                        f'Known are {", ".join(FIELDS["problem"])}; name another by fields = {{ problem = "..." }}')
    answer, solution = _answer(text["answer"], text["solution"], where)
    if why := why_unmatchable(answer):
        raise UserError(f"{where}: no answer can equal the gold answer {shown(answer, 60)}: {why}; mend it or leave the problem out")
    named = {name: value for name, value in text.items() if name not in ("id", "answer", "solution")}
    return Record(**named, id=text["id"] or str(number), answer=answer, solution=solution, where=where,
                  level=_level(part("level"), solution, where))


def _text(value: Any, name: str, where: str) -> str:
    """The answer 27.0 of a table of numbers is 27."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: expected text as the {name}, found {shown(json.dumps(value, default=str))}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _answer(answer: str, solution: str, where: str) -> tuple[str, str]:
    """(gold answer, solution): GSM8K keeps both in one field, MATH the answer in its solution's box."""
    if answer and "####" not in answer:
        return answer, solution
    found = hashed(answer) if answer else boxed(solution)
    if isinstance(found, Refusal):
        raise UserError(f"{where}: no answer: {found}")
    return found.value if answer else (found.value, solution)


def _level(value: Any, solution: str, where: str) -> int:
    """"Level 3" is 3; "Level ?" and no level at all are 0 where the solution marks no calculations."""
    if isinstance(value, str):
        digits = re.fullmatch(r"(?:Level\s*)?(\d+(?:\.\d+)?|\?)?", value.strip(), re.IGNORECASE)
        if digits is None:
            raise UserError(f"{where}: expected a level such as 3 or 'Level 3', found {shown(value)}")
        value = float(digits[1]) if digits[1] not in (None, "?") else None
    if value is None:
        return len(CALCULATION.findall(solution))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{where}: expected a level such as 3 or 'Level 3', found {shown(str(value))}")
    return math.floor(value)
