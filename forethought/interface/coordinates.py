"""Actions by a place on the screen, for models that see pictures: `{"op": "click", "at": [120, 64]}`.

A place is given in pixels, or with `full` as a share of the screen: 1 is ShowUI's (arXiv 2411.17465), 1000
that of Qwen2-VL and OS-Atlas. The dialect belongs to one snapshot, whose boxes say what lies there: reading
an action names the innermost element at its place, writing one gives the middle of the element's box. Several
elements can share a middle, so what is written may be read as an element inside of the one that was meant.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from forethought.core.errors import unknown
from forethought.core.grounding import centre, inside
from forethought.interface.actions import Action
from forethought.interface.elements import Line
from forethought.interface.jsons import Value, read_value
from forethought.interface.result import Parsed, Refusal, Refused

KEYS = ("op", "at", "value")
DIGITS = {1.0: 4}  # behind the point, of a share; pixels and thousandths are whole


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The dialect of one snapshot. `size`: of the screen in pixels. `full`: what the far edges of the screen
    are called; None: pixels."""

    lines: Sequence[Line]
    size: tuple[float, float]
    full: float | None = None
    words: bool = False

    def render(self, action: Action) -> str:
        """ValueError where the element has no box on this snapshot."""
        said: dict[str, object] = {"op": action.op}
        if action.id:
            line = next((x for x in self.lines if x.ref == action.id and len(x.box) == 4), None)
            if line is None:
                raise ValueError(f"{action.id!r} has no place on this snapshot")
            said["at"] = [self._said(x, side) for x, side in zip(centre(line.box), self.size, strict=True)]  # type: ignore[arg-type]
        if action.value is not None:
            said["value"] = action.value
        return json.dumps(said, ensure_ascii=False, allow_nan=False)

    def parse(self, text: str) -> Parsed | Refusal:
        """The action on the innermost element that lies there."""
        try:
            return Parsed(self._read(text))
        except Refused as refused:
            return refused.refusal

    def _read(self, text: str) -> Action:
        value = read_value(text)
        if not isinstance(value.inside, dict):
            _refuse(value.at, "an action is an object")
        found: dict[str, Value] = value.inside
        for key in found:
            if key not in KEYS:
                assert value.keys is not None
                _refuse(value.keys[key], unknown("key", key, KEYS))
        op = found.get("op")
        if op is None or not isinstance(op.inside, str) or not op.inside:
            _refuse(value.at if op is None else op.at, "'op' says what is done")
        said = found["value"].plain if "value" in found else None
        ref = self._element(found["at"]) if "at" in found else ""
        return Action(op=op.inside, id=ref, value=said)

    def _element(self, at: Value) -> str:
        numbers = at.plain
        if not (
            isinstance(numbers, list)
            and len(numbers) == 2
            and all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
        ):
            _refuse(at.at, "'at' is [from the left, from the top]")
        x, y = (n * side / (self.full or side) for n, side in zip(numbers, self.size, strict=True))
        if not (0 <= x <= self.size[0] and 0 <= y <= self.size[1]):
            _refuse(at.at, f"[{numbers[0]}, {numbers[1]}] is not on the screen")
        there = [line for line in self.lines if line.ref and len(line.box) == 4 and inside((x, y), line.box)]  # type: ignore[arg-type]
        if not there:
            _refuse(at.at, f"nothing lies at [{numbers[0]}, {numbers[1]}]")
        # of two that are as large, what comes later lies above
        return min(reversed(there), key=lambda line: line.box[2] * line.box[3]).ref

    def _said(self, at: float, side: float) -> float:
        if self.full is None:
            return round(at)
        share = at / side * self.full
        return round(share, DIGITS[self.full]) if self.full in DIGITS else round(share)


def _refuse(at: int, reason: str) -> NoReturn:
    raise Refused(Refusal(position=at, reason=reason, unit="character"))
