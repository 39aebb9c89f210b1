"""Dates and times of the day."""

from __future__ import annotations

import re

from forethought.tasks.grading.tables import MONTHS, WEEKDAYS

_MONTH = rf"({'|'.join(MONTHS)})\.?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,? (\d{4}))?"
_WEEKDAY = rf"(?:(?:{'|'.join(WEEKDAYS)}),? )?"
_DAY_FIRST = re.compile(rf"{_WEEKDAY}(?:the )?{_DAY} (?:of )?{_MONTH}{_YEAR}", re.IGNORECASE)
_MONTH_FIRST = re.compile(rf"{_WEEKDAY}{_MONTH} (?:the )?{_DAY}{_YEAR}", re.IGNORECASE)
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_CLOCK = re.compile(
    r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))? ?(a\.? ?m\.?|p\.? ?m\.?|noon|midnight|in the "
    r"morning"
    r"|in the (?:afternoon|evening))?",
    re.IGNORECASE,
)


def date(text: str) -> tuple[int, int, int] | None:
    """(year, 0 where none is said; month; day), None for anything else."""
    if match := _ISO.fullmatch(text):
        year, month, day = map(int, match.groups())
    elif match := _DAY_FIRST.fullmatch(text):
        year, month, day = int(match[3] or 0), MONTHS[match[2].lower()], int(match[1])
    elif match := _MONTH_FIRST.fullmatch(text):
        year, month, day = int(match[3] or 0), MONTHS[match[1].lower()], int(match[2])
    else:
        return None
    return (year, month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None


def clock(text: str) -> tuple[int, bool] | None:
    """(seconds since midnight, whether a.m. or p.m. is said); a bare time is one of 24 hours. None for
    anything else."""
    if text.lower() in ("noon", "midnight"):
        return (12 * 3600 if text.lower() == "noon" else 0), True
    match = _CLOCK.fullmatch(text)
    if match is None or not (match[2] or match[4]):
        return None
    hours, minutes, seconds = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    said = (match[4] or "").lower()
    half = (
        {"a": "a", "m": "a", "p": "p", "n": "p"}.get(said[:1], "")
        if not said.startswith("in")
        else "a"
        if "morning" in said
        else "p"
    )
    if minutes > 59 or seconds > 59 or hours > (12 if half else 24) or half and hours == 0:
        return None
    if half:
        hours = hours % 12 + 12 * (half == "p")
    return hours * 3600 + minutes * 60 + seconds, bool(half)
