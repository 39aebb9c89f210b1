"""The rows of a source as problems: what is asked, the answer, and every column for reward functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from forethought.core.datafiles import field
from forethought.core.errors import UserError
from forethought.tasks.text.options import Options
from forethought.tasks.text.prompts import Messages, messages_of, text_of, value_of
from forethought.tasks.text.sources import rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One problem. `messages`: the conversation, or () where the prompt is a text; `problem` is what is asked
    as text. `solution`, `plan` and `chain` are "" where the row has none."""

    id: str
    problem: str
    messages: Messages
    answer: str
    columns: Mapping[str, Any]
    solution: str = ""
    level: int = 0
    plan: str = ""
    chain: str = ""
    where: str = ""  # file and line, for messages


def records_of(source: str, said: Options) -> list[Record]:
    """The problems of a source, in order. UserError with file and line for a row that is none."""
    found = [
        _record(row, where, number, said)
        for number, (where, row) in enumerate(rows_of(source, said.table.most), 1)
    ]
    if not found:
        raise UserError(f"{source}: no rows in it")
    return found


def _record(row: Any, where: str, number: int, said: Options) -> Record:
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: expected an object with columns, found a {type(row).__name__}")
    problem, messages = _asked(row, where, said)
    answer = _answer(row, where, said)
    return Record(
        id=str(number),
        problem=problem,
        messages=messages,
        answer=answer,
        columns=row,
        solution=_optional(row, said.table.solution or "", where),
        plan=_optional(row, said.plan_column, where),
        level=_level(row, where, said.table.level or ""),
        where=where,
    )


def _asked(row: Mapping[str, Any], where: str, said: Options) -> tuple[str, Messages]:
    """What is asked, as text and as messages. Where the recipe says neither template nor messages, the column
    `prompt` (as TRL has it) or `messages`."""
    messages: Messages
    if said.prompt is not None:
        problem, messages = said.prompt.fill(row, where), ()
    else:
        name = said.table.messages or next((name for name in ("prompt", "messages") if name in row), "")
        if not name:
            raise UserError(
                f'{where}: what is the prompt? Say task.prompt = "{{COLUMN}}" or task.messages = "COLUMN"; '
                f"its columns are {', '.join(map(str, row)) or 'none'}"
            )
        value = value_of(row, name, where)
        if isinstance(value, str) and not said.table.messages:
            problem, messages = text_of(value, name, where), ()
        else:
            messages = messages_of(value, name, where)
            problem = "\n\n".join(message["content"] for message in messages)
    if not problem.strip():
        raise UserError(f"{where}: the prompt is empty")
    return problem, messages


def _answer(row: Mapping[str, Any], where: str, said: Options) -> str:
    if not said.table.answer:
        return ""
    value = value_of(row, said.table.answer, where)
    if value is None:
        raise UserError(f"{where}: column {said.table.answer!r} holds no answer (null); leave the row out")
    answer = _digits(text_of(value, said.table.answer, where))
    if said.grader is not None and (why := said.grader.why_not(answer)):
        raise UserError(f"{where}: no answer can match {answer!r:.60}: {why}; mend it, or leave the row out")
    return answer


def _digits(text: str) -> str:
    """27.0 of a table of numbers is 27; 1e-7 has its digits."""
    try:
        number = Decimal(text) if "e" in text.lower() or text.endswith(".0") else None
    except ArithmeticError:
        return text
    if number is None or not number.is_finite() or abs(number.adjusted()) > 100:
        return text
    said = f"{number:f}"
    return said.rstrip("0").rstrip(".") if "." in said else said


def _optional(row: Mapping[str, Any], name: str, where: str) -> str:
    found, value = field(row, name) if name else (False, None)
    return text_of(value, name, where).strip() if found and value is not None else ""


def _level(row: Mapping[str, Any], where: str, name: str) -> int:
    if not name:
        return 0
    value = value_of(row, name, where)
    said = str(value).strip()
    if isinstance(value, bool) or not said.isascii() or not said.isdigit() or len(said) > 6:
        raise UserError(f"{where}: column {name!r} is a level, a whole number from 0; found {value!r:.40}")
    return int(said)
