"""Math problems from files or the Hugging Face hub (`text/sources.py`), under the field names of the common
releases.

Known: GSM8K (arXiv 2110.14168), MATH (2103.03874) and MATH-500, AIME, AMC, DeepMath; other names by `fields =
{ problem = "task" }`, a field inside a field by its path: `fields = { problem = "prompt", answer =
"reward_model.ground_truth" }`. A name whose field is empty counts as not there. Where the problem is a chat,
one user message in it is the problem.

An answer may be a number: it is taken as the file writes it, without an exponent and without zeros that say
nothing (1e-7 is 0.0000001, 27.0 is 27). true, false and NaN are no answers, and prose in place of an answer
is refused: no solution could ever equal it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from forethought.core.datafiles import Exact, field, half, need_new
from forethought.core.errors import UserError, unknown
from forethought.interface.result import Refusal, quoted_text
from forethought.tasks.math.grading import why_unmatchable
from forethought.tasks.text.answers import boxed, hashed
from forethought.tasks.text.sources import rows_of

# what a record holds -> names that releases give it, the first that is there counts, upper and lower case
# alike
FIELDS = {
    "id": ("id", "unique_id", "problem_id"),
    "problem": ("problem", "question"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "solution": ("solution", "rationale"),
    "level": ("level", "difficulty"),
    "subject": ("subject", "type", "topic"),
    "plan": ("plan",),
    "chain": ("chain",),
}
MOST_LEVEL = 1_000_000
MOST_DIGITS = 1000  # of an answer that a file writes as a number
# a gold that says more than an answer: it speaks of one, it argues, or it has a second sentence
_PROSE = re.compile(
    r"(?i:\b(?:the|final|my|our|correct) "
    r"answer\b|\banswer\s*(?:is|was|[:=])|\b(?:therefore|hence|thus|because)\b"
    r"|\bso (?:the|he|she|it|they|we|there)\b|\bwe (?:get|have|find|obtain)\b)"
    r"|(?:\w\w[a-z]|[\d)])[.!?](?:\s+[A-Z][a-z]*\s+\w|\s*\n\s*\S)"
)
CALCULATION = re.compile(r"<<[^<>\n]*>>")  # how GSM8K marks the calculations of a solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One problem. `level`: the release's own (MATH: 1 to 5; a fraction is rounded down), else the
    calculations marked in the solution (GSM8K), else 0: not graded. `plan` and `chain` stand in distilled
    data only."""

    id: str
    problem: str
    answer: str
    solution: str = ""
    level: int = 0
    subject: str = ""
    plan: str = ""
    chain: str = ""
    where: str = ""  # file and line, for messages


def read(
    source: str | Path,
    fields: Mapping[str, str] | None = None,
    *,
    only: Mapping[str, object] | None = None,
    skipped: list[str] | None = None,
) -> list[Record]:
    """The problems of a file or hub split, in order. `fields` names the field of a record's part where FIELDS
    does not know it; `only` takes the rows that have these values in these fields; where there is a list
    `skipped`, problems that cannot be read are left out and the reasons added to it.

    UserError (with file and line) for a line that is not a JSON object, a problem without text or answer, and
    an id seen before; for a file that is missing or empty, of another kind, or needs a package that is not
    installed. Blank lines are passed over."""
    fields = dict(fields or {})
    for part in fields:
        if part not in FIELDS:
            raise UserError(unknown("part of a problem", part, FIELDS))
    records: list[Record] = []
    first: dict[str, str] = {}
    only = dict(only or {})
    for number, (where, row) in enumerate(rows_of(str(source)), 1):
        if only and not _has(row, only, where):
            continue
        try:
            record = _record(row, where, fields, number)
        except UserError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
            continue
        need_new(first, record.id, where)
        records.append(record)
    if not records:
        kind = f"{f' with {only}' if only else ''}{f' that can be read ({skipped[0]})' if skipped else ''}"
        raise UserError(f"{source}: no problems in it{kind}")
    return records


# --- records ---


def _has(row: Any, only: Mapping[str, object], where: str) -> bool:
    return isinstance(row, Mapping) and all(_given(row, name, where) == value for name, value in only.items())


def _given(row: Mapping[str, Any], name: str, where: str) -> Any:
    """The field that a recipe names, by its key or its path."""
    found, value = field(row, name)
    if not found:
        inside = (
            "; a field inside a field is written outer.inner, and a place in a list by its number from 0"
            if "." in name
            else ""
        )
        raise UserError(f"{where}: {unknown('field', name, row)}{inside}")
    return value


def _record(row: Any, where: str, fields: Mapping[str, str], number: int) -> Record:
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: expected an object with a problem and its answer, found {_shown(row)}")
    lower = {str(name).lower(): value for name, value in row.items()}

    def part(name: str) -> Any:
        if name in fields:
            return _given(row, fields[name], where)
        there = (lower[known] for known in FIELDS[name] if lower.get(known) is not None)
        return next((value for value in there if not isinstance(value, str) or value.strip()), None)

    text = {
        name: _text(_chat(part(name), where) if name == "problem" else part(name), name, where)
        for name in FIELDS
        if name != "level"
    }
    if not text["problem"]:
        raise UserError(
            f"{where}: no problem text; its fields are {', '.join(map(str, row)) or 'none'}. "
            f"Known are {', '.join(FIELDS['problem'])}; name another by fields = {{ problem = "
            f'"..." }}'
        )
    if (found := half(text)) is not None:
        raise UserError(f"{where}: {found}")
    answer, solution = _answer(text["answer"], text["solution"], where)
    if why := why_unmatchable(answer):
        raise UserError(
            f"{where}: no answer can equal the gold answer {quoted_text(answer, 60)}: {why}; mend it "
            f"or leave the problem out"
        )
    named = {name: value for name, value in text.items() if name not in ("id", "answer", "solution")}
    return Record(
        **named,
        id=text["id"] or str(number),
        answer=answer,
        solution=solution,
        where=where,
        level=_level(part("level"), solution, where),
    )


def _chat(value: Any, where: str) -> Any:
    """The text of a chat's one user message; what is no chat stays as it is."""
    chat = (
        isinstance(value, list)
        and value
        and all(isinstance(turn, Mapping) and {"role", "content"} <= set(turn) for turn in value)
    )
    if not chat:
        return value
    said = [turn["content"] for turn in value if turn["role"] == "user"]
    if len(said) != 1:
        raise UserError(
            f"{where}: the problem is a chat with {len(said)} user messages; name one by its place, such as "
            'fields = { problem = "prompt.0.content" }'
        )
    return said[0]


def _text(value: Any, name: str, where: str) -> str:
    """A number is written out: 27.0 of a table of numbers is 27, 1e-7 is 0.0000001."""
    if value is None:
        return ""
    number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if not isinstance(value, str) and not number or number and not _finite(value):
        raise UserError(f"{where}: expected text as the {name}, found {_shown(value)}")
    return _written(value, name, where) if number else value.strip()


def _finite(value: int | float | Decimal) -> bool:
    return value.is_finite() if isinstance(value, Decimal) else isinstance(value, int) or math.isfinite(value)


def _written(value: int | float | Decimal, name: str, where: str) -> str:
    """The number in digits, exactly as the file has it."""
    exact = (
        value
        if isinstance(value, Decimal)
        else Decimal(value.said if isinstance(value, Exact) else repr(value))
    )
    exponent = exact.as_tuple().exponent
    if exact.adjusted() > MOST_DIGITS or (isinstance(exponent, int) and exponent < -MOST_DIGITS):
        raise UserError(
            f"{where}: the {name} is a number of more than {MOST_DIGITS} digits; write it as text"
        )
    said = f"{exact:f}"
    said = said.rstrip("0").rstrip(".") if "." in said else said
    return "0" if said == "-0" else said


def _shown(value: Any) -> str:
    """What stands in a file, short. A deep or a huge value is no reason to fail."""
    try:
        return quoted_text(json.dumps(value, default=str))
    except (ValueError, TypeError, RecursionError):
        return f"a {type(value).__name__}"


def _answer(answer: str, solution: str, where: str) -> tuple[str, str]:
    """(gold answer, solution): GSM8K keeps both in one field, MATH the answer in its solution's box."""
    if answer and "####" not in answer:
        if _PROSE.search(answer):
            raise UserError(
                f"{where}: the answer is prose, which no solution can equal: {quoted_text(answer, 80)}; give "
                "the answer alone, or the text as the solution with its answer in a last line '#### ANSWER'"
            )
        return answer, solution
    found = hashed(answer) if answer else boxed(solution)
    if isinstance(found, Refusal):
        raise UserError(f"{where}: no answer: {found}")
    return found.value if answer else (found.value, solution)


def _level(value: Any, solution: str, where: str) -> int:
    """ "Level 3" is 3; "Level ?" and no level at all are 0 where the solution marks no calculations."""
    if isinstance(value, str):
        digits = re.fullmatch(r"(?:Level\s*)?(\d+(?:\.\d+)?|\?)?", value.strip(), re.IGNORECASE)
        if digits is None:
            raise UserError(f"{where}: expected a level such as 3 or 'Level 3', found {quoted_text(value)}")
        value = float(digits[1]) if digits[1] not in (None, "?") else None
    if value is None:
        return len(CALCULATION.findall(solution))
    number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if not number or not _finite(value) or not -MOST_LEVEL < value < MOST_LEVEL:
        raise UserError(f"{where}: expected a level such as 3 or 'Level 3', found {quoted_text(str(value))}")
    return math.floor(value)
