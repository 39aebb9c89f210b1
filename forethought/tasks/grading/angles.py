"""Sine, cosine and tangent of the angles for which a table gives them: multiples of 30 and of 45 degrees, in
degrees or as parts of pi."""

from __future__ import annotations

from fractions import Fraction

from forethought.tasks.grading import algebra
from forethought.tasks.grading.algebra import Ratio

# angle in degrees -> sin^2
_SQUARES = {0: Fraction(0), 30: Fraction(1, 4), 45: Fraction(1, 2), 60: Fraction(3, 4), 90: Fraction(1)}


def ratio(name: str, angle: Ratio) -> Ratio | None:
    """The value of a function at an angle, None where it is no function or angle of the table.
    ZeroDivisionError: it has no value there."""
    degrees = _degrees(angle)
    if degrees is None or name not in ("sin", "cos", "tan", "cot", "sec", "csc"):
        return None
    sine, cosine = _sine(degrees), _sine(degrees + 90)
    if sine is None or cosine is None:
        return None
    over, under = {
        "sin": (sine, None),
        "cos": (cosine, None),
        "tan": (sine, cosine),
        "cot": (cosine, sine),
        "sec": (None, cosine),
        "csc": (None, sine),
    }[name]
    top = over or algebra.number(1)
    return algebra.times(top, algebra.inverse(under)) if under else top


def _degrees(angle: Ratio) -> int | None:
    for unit, size in (("π", 180), ("°", 1)):
        turns = algebra.value(algebra.times(angle, algebra.inverse(algebra.variable(unit))))
        if turns is not None and (turns * size).denominator == 1:
            return int(turns * size)
    return None


def _sine(degrees: int) -> Ratio | None:
    degrees %= 360
    below, degrees = degrees > 180, degrees % 180
    square = _SQUARES.get(min(degrees, 180 - degrees))
    if square is None:
        return None
    value = algebra.root(algebra.number(square), 2)
    return algebra.minus(value) if below else value
