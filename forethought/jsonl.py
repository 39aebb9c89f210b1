"""Files of one JSON object a line, as a run appends to them: read to where they were cut off, refused with the line that is malformed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from forethought.errors import UserError


def parse_lines(raw: Iterable[bytes], source: Path, check: Callable[[Any], str]) -> tuple[list[dict[str, Any]], bool]:
    """(objects, cut): `raw` are lines with their line ends. A last line without an end that does not parse was cut off in writing.

    `check` returns what is wrong with an object, or "". `UserError` names the line of `source`. Empty lines are passed over.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(raw, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if not line.endswith(b"\n"):  # only the last line of a file can lack its end
                return rows, True
            raise UserError(f"{source} line {number} is not JSON: {error}") from error
        wrong = check(row) if isinstance(row, dict) else ""
        if wrong or not isinstance(row, dict):
            raise UserError(f"{source} line {number}{f': {wrong}' if wrong else ' is no JSON object'}")
        rows.append(row)
    return rows, False
