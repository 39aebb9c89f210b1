"""Plans for graphical interfaces: what to do, to which element described in words, with which value.

    [{"op": "tap", "target": "the Save button at the bottom right"}, {"op": "type", "target": "the name field
    below", "value": "Ada"}]

The planner names elements in words that say where they are, never by coordinates: finding them is the acting
side's part (the intermediate interface of AutoGLM, arXiv 2411.00820). The same steps can be written as its
calls, `do(action=..., ...)`. Both forms are read by `fields`, which runs nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from forethought.core.errors import unknown
from forethought.interface.fields import Fields, Text, read_calls, read_json
from forethought.interface.result import Parsed, Refusal, Refused, quoted_text

Need = Literal["required", "optional", "forbidden"]
PLACES = tuple(
    "above at below beside between bottom center centre corner first in inside last left middle near next on "
    "right row top under".split()
)
"""Words of which a description that says where something is holds at least one, for `GuiGrammar.places`."""

# of text whose white space is single spaces
_NUMBER_PAIR = re.compile(r"\d ?(?:[,;×x]|, y|y) ?[:=]? ?-?\d|\d \d", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. `target` and `value` are None where the operation takes none."""

    op: str
    target: str | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """An operation, and whether it takes a target and a value."""

    name: str
    target: Need = "required"
    value: Need = "forbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How steps are written as calls. The defaults are AutoGLM's names; the Android-Lab prompts call the
    value `argument`."""

    function: str = "do"
    op: str = "action"
    target: str = "element_description"
    value: str = "argument"

    def keys(self) -> tuple[str, str, str]:
        """Names of the three JSON fields, in the order in which they are written."""
        return self.op, self.target, self.value


AUTOGLM = Calls()
JSON_KEYS = ("op", "target", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuiGrammar:
    """The grammar of GUI plans: `least` to `most` steps of the declared `ops`.

    A target holds a word; with `places`, one of these words too, so that it says where the element is;
    without `coordinates`, no two numbers side by side (`823, 684`, `x=10 y=20`). White space inside a target
    counts as one space. A text longer than `characters` or a target longer than `target_characters` is
    refused unread.
    """

    ops: tuple[Op, ...]
    places: tuple[str, ...] = ()
    coordinates: bool = False
    least: int = 1
    most: int = 32
    characters: int = 8192
    target_characters: int = 200

    def __post_init__(self) -> None:
        names = [op.name for op in self.ops]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a GUI grammar declares each of its operations once, found {names}")
        if not 0 <= self.least <= self.most:
            raise ValueError(f"0 <= least <= most is needed, found {self.least} and {self.most}")

    def parse(self, text: str, start: int = 1) -> Parsed | Refusal:
        """The steps of a JSON list as a tuple. `start`: position of the text's first character, where it is
        part of a longer one."""
        return self._parse(text, start, JSON_KEYS, None)

    def parse_calls(self, text: str, form: Calls = AUTOGLM) -> Parsed | Refusal:
        """The same steps from calls."""
        return self._parse(text, 1, form.keys(), form.function)

    def render(self, steps: Sequence[Step]) -> str:
        """JSON that `parse` reads back to these steps. ValueError for steps that it would refuse or read
        otherwise."""
        objects = [
            {key: text for key, text in zip(JSON_KEYS, _texts(step), strict=True) if text is not None}
            for step in steps
        ]
        text = json.dumps(objects, ensure_ascii=False)
        return _same(text, self.parse(text), steps)

    def render_calls(self, steps: Sequence[Step], form: Calls = AUTOGLM) -> str:
        """Calls, one per line, that `parse_calls` reads back to these steps. ValueError as for `render`."""
        lines = []
        for step in steps:
            named = zip(form.keys(), _texts(step), strict=True)
            arguments = ", ".join(
                f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in named if text is not None
            )
            lines.append(f"{form.function}({arguments})")
        text = "\n".join(lines)
        return _same(text, self.parse_calls(text, form=form), steps)

    def _parse(
        self, text: str, start: int, keys: tuple[str, str, str], function: str | None
    ) -> Parsed | Refusal:
        try:
            if len(text) > self.characters:
                _refuse(start + self.characters, f"the plan is longer than {self.characters} characters")
            found = (
                read_json(text, self.most, start)
                if function is None
                else read_calls(text, function, self.most, start)
            )
            if len(found) < self.least:
                _refuse(start, f"{len(found)} steps, at least {self.least} are needed")
            return Parsed(
                tuple(self._step(number, at, fields, keys) for number, (at, fields) in enumerate(found, 1))
            )
        except Refused as refused:
            return refused.refusal

    def _step(self, number: int, at: int, fields: Fields, keys: tuple[str, str, str]) -> Step:
        step, (op_key, target_key, value_key) = f"step {number}", keys
        for name, _ in fields.values():
            if name.text not in keys:
                _refuse(name.at, f"{step}: {unknown('key', _short(name.text), keys)}")
        if op_key not in fields:
            _refuse(at, f"{step} has no {op_key!r}")
        said = fields[op_key][1]
        op = next((op for op in self.ops if op.name == said.text), None)
        if op is None:
            _refuse(said.at, f"{step}: {unknown(op_key, _short(said.text), [op.name for op in self.ops])}")
        for key, need in ((target_key, op.target), (value_key, op.value)):
            if need == "required" and key not in fields:
                _refuse(at, f"{step}: {op.name!r} needs a {key!r}")
            if need == "forbidden" and key in fields:
                _refuse(fields[key][0].at, f"{step}: {op.name!r} takes no {key!r}")
        target = self._target(step, fields[target_key][1]) if target_key in fields else None
        return Step(
            op=op.name, target=target, value=fields[value_key][1].text if value_key in fields else None
        )

    def _target(self, step: str, said: Text) -> str:
        if len(said.text) > self.target_characters:
            _refuse(said.at, f"{step}: the target is longer than {self.target_characters} characters")
        target = " ".join(said.text.split())
        if not target.isprintable():
            _refuse(said.at, f"{step}: the target {quoted_text(target)} holds characters that cannot be read")
        if not self.coordinates and (pair := _NUMBER_PAIR.search(target)):
            _refuse(
                said.at,
                f"{step}: the target {quoted_text(target)} gives coordinates ({pair[0]!r}); describe "
                f"the element in words",
            )
        if not any(c.isalpha() for c in target) and not (self.coordinates and target):
            _refuse(said.at, f"{step}: the target {quoted_text(target)} describes nothing; it needs words")
        if self.places and not set(re.findall(r"\w+", target.casefold())) & set(self.places):
            _refuse(
                said.at,
                f"{step}: the target {quoted_text(target)} does not say where; it needs one of "
                f"{', '.join(self.places)}",
            )
        return target


def _short(text: str) -> str:
    """Shortened, for `unknown`, which quotes by itself."""
    return text if len(text) <= 40 else text[:37] + "..."


def _texts(step: Step) -> tuple[str | None, str | None, str | None]:
    return step.op, step.target, step.value


def _same(text: str, read: Parsed | Refusal, steps: Sequence[Step]) -> str:
    if isinstance(read, Refusal):
        raise ValueError(f"these steps are no plan: {read}")
    if read.value != tuple(steps):
        raise ValueError(f"these steps would be read as others: {read.value}")
    return text


def _refuse(position: int, reason: str) -> NoReturn:
    raise Refused(Refusal(position=position, reason=reason, unit="character"))
