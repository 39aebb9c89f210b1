"""How well steps on a screen are grounded: pure functions of what was done and what was wanted.

    element accuracy      the wanted element was chosen                          Mind2Web, arXiv 2306.06070
    operation F1          words of the operation and its value, as sets          the same
    step success          the element, and an operation F1 of 1                  the same
    inside                a click falls into the wanted element's box            ScreenSpot, arXiv 2401.10935
    near                  a click within 0.14 of the screen of the box's centre  AITW, arXiv 2307.10088

`inside` and `near` have two values: of all clicks that were wanted, and of those where the operation was
right (what OS-Atlas and others print as "grounding"). The second is never smaller. `near` is generous: a disc
of that radius covers 6 % of a square screen. What nobody could read counts as wrong everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]  # from the left, from the top
Box = tuple[float, float, float, float]  # left, top, width, height
NEAR = 0.14
POINTING = ("click", "hover")  # operations that are nothing but a place


@dataclass(frozen=True, slots=True, kw_only=True)
class Did:
    """A step as it was done. `element`: its id, "" where a place was named instead; `point`: where a pointer
    would hit, in pixels (None: not known)."""

    op: str
    element: str = ""
    value: str = ""
    point: Point | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A step as it was meant. `box`: of its element, in pixels (None: not known)."""

    op: str
    element: str = ""
    value: str = ""
    box: Box | None = None


Pair = tuple[Did | None, Wanted]
"""None: no step was done, or it could not be read."""


def from_corners(left: float, top: float, right: float, bottom: float) -> Box:
    """The box between two corners. ValueError where the second lies above or left of the first."""
    if right < left or bottom < top:
        raise ValueError(f"({left}, {top}) to ({right}, {bottom}) is no box; corners or a size?")
    return left, top, right - left, bottom - top


def to_pixels(point: Point, size: tuple[float, float], full: float = 1.0) -> Point:
    """A point whose coordinates run from 0 to `full` (1, 1000) on a screen of `size`. ValueError for one
    outside."""
    if not all(0 <= x <= full for x in point):
        raise ValueError(f"{point} is not on a screen from 0 to {full:g}; other units?")
    return point[0] / full * size[0], point[1] / full * size[1]


def centre(box: Box) -> Point:
    """Where a click on the box goes."""
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def inside(point: Point, box: Box, strict: bool = False) -> bool:
    """Whether the point lies in the box. Its border counts, unless `strict` (BTL-UI, GUI-R1)."""
    for at, start, size in zip(point, box[:2], box[2:], strict=True):
        if not (start < at < start + size if strict else start <= at <= start + size):
            return False
    return True


def near(point: Point, box: Box, size: tuple[float, float], radius: float = NEAR) -> bool:
    """Whether the point is within `radius` of the box's centre, both as shares of the screen."""
    to = centre(box)
    x, y = ((a - b) / of for a, b, of in zip(point, to, size, strict=True))
    return x * x + y * y <= radius * radius


def words_f1(found: str, wanted: str) -> float:
    """F1 of two texts as sets of words; 1 where both are empty."""
    a, b = set(found.split()), set(wanted.split())
    if not a or not b:
        return float(a == b)
    same = len(a & b)
    return 2 * same / (len(a) + len(b))


def operation_f1(did: Did | None, wanted: Wanted) -> float:
    """Of the operation with its value."""
    return words_f1(f"{did.op} {did.value}", f"{wanted.op} {wanted.value}") if did else 0.0


def right_element(did: Did | None, wanted: Wanted) -> bool:
    """By its id; where a place was named instead, the place lies in its box."""
    if did is None:
        return False
    if did.element or not wanted.element:
        return did.element == wanted.element
    return bool(did.point and wanted.box and inside(did.point, wanted.box))


def step_success(did: Did | None, wanted: Wanted) -> bool:
    """The element, and every word of the operation."""
    return right_element(did, wanted) and operation_f1(did, wanted) == 1


def grounding(pairs: Sequence[Pair], size: tuple[float, float] | None = None) -> dict[str, float]:
    """The metrics over steps; {} without any. `inside` and `near` are of pointing steps whose box is known,
    and are left out where there is none; `near` needs the `size` of the screen.

    {"steps", "step_success", "element_accuracy", "operation_f1", "operation", "inside",
    "inside_given_operation", "near", "near_given_operation"}; `steps` and `clicks` are numbers, the others
    shares.
    """
    if not pairs:
        return {}
    found = {
        "steps": float(len(pairs)),
        "step_success": _mean(step_success(*pair) for pair in pairs),
        "element_accuracy": _mean(right_element(*pair) for pair in pairs),
        "operation_f1": _mean(operation_f1(*pair) for pair in pairs),
        "operation": _mean(did is not None and did.op == wanted.op for did, wanted in pairs),
    }
    clicks = [(did, wanted) for did, wanted in pairs if wanted.op in POINTING and wanted.box is not None]
    if not clicks:
        return found
    given = [(did, wanted) for did, wanted in clicks if did is not None and did.op == wanted.op]
    found["clicks"] = float(len(clicks))
    tests: dict[str, Callable[..., bool]] = {"inside": _inside}
    if size:
        tests["near"] = lambda did, wanted: _near(did, wanted, size)
    for name, test in tests.items():
        found[name] = _mean(test(*pair) for pair in clicks)
        if given:
            found[f"{name}_given_operation"] = _mean(test(*pair) for pair in given)
    return found


def _inside(did: Did | None, wanted: Wanted) -> bool:
    return _points(did, wanted) and inside(did.point, wanted.box)  # type: ignore[union-attr, arg-type]


def _near(did: Did | None, wanted: Wanted, size: tuple[float, float]) -> bool:
    return _points(did, wanted) and near(did.point, wanted.box, size)  # type: ignore[union-attr, arg-type]


def _points(did: Did | None, wanted: Wanted) -> bool:
    return did is not None and did.op == wanted.op and did.point is not None


def _mean(values: Iterable[float]) -> float:
    found = [float(value) for value in values]
    return sum(found) / len(found)
