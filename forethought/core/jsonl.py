"""Files of one JSON object per line, as a run appends to them: read to where they were cut off, refused with
the line that is malformed.

JSON has no numbers that are not finite. A run writes them as the texts "NaN", "Infinity" and "-Infinity", and
its readers read them back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError

MOST_NESTED = 50  # tables and lists in one another; a recipe has six
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(record: Mapping[str, Any]) -> str:
    """JSON on one line, numbers that are not finite as texts."""
    try:
        return json.dumps(record, allow_nan=False)
    except ValueError:
        return json.dumps(sayable(record), allow_nan=False)


def number(value: Any) -> Any:
    """What `dumps` was given for a value: the number for a text that stands for one, anything else as it
    is."""
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def shallow(value: Any, most: int = MOST_NESTED) -> bool:
    """Whether tables and lists lie at most so many deep: what goes through a value by calling itself comes to
    an end."""
    inside = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    )
    return not inside or (most > 0 and all(shallow(item, most - 1) for item in inside))


def sayable(value: Any) -> Any:
    """The same value with texts for the numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: sayable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sayable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def parse_lines(
    raw: Iterable[bytes], source: Path, check: Callable[[Any], str]
) -> tuple[list[dict[str, Any]], bool]:
    """(objects, cut): `raw` are lines with their line ends. A last line without an end that does not parse
    was cut off in writing.

    `check` returns what is wrong with an object, or "". `UserError` names the line of `source`. Empty lines
    are passed over.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(raw, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith(b"\n"):  # only the last line of a file can lack its end
                return rows, True
            raise UserError(f"{source} line {number} is not JSON: {error}") from error
        wrong = check(row) if isinstance(row, dict) else ""
        if wrong or not isinstance(row, dict):
            raise UserError(f"{source} line {number}{f': {wrong}' if wrong else ' is not a JSON object'}")
        rows.append(row)
    return rows, False
