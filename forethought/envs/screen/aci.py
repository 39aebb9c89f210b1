"""The agent-computer interface of Agent S (arXiv 2410.08164): the tree and what is read on the picture as one
table, and exactly one primitive a step.

    1	textbox	Username	bo
    2	button	Login
    3	button	Forgot?                    read on the picture, and in no element of the tree

    agent.type(1, "ann", True, True)

What cannot be read, or names a row that is not there, is a wait of a second, so that there is an answer at
once. Ids are rows of this table and of no other: `forget` takes them out of what is shown again later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forethought.core.errors import unknown
from forethought.envs.screen.parsed import Found, iou
from forethought.interface import calls
from forethought.interface.elements import Line
from forethought.interface.result import Refusal

APART = 0.1  # most overlap (IoU) of a text on the picture with an element, for it to be a row of its own
GROUPS = ("panel", "window", "filler", "frame", "separator", "scroll-bar")
_ID = re.compile(r"^\d+\t", re.MULTILINE)
BLOCK = re.compile(r"```(?:python)?\s*\n?(.*?)```", re.DOTALL)

Kinds = tuple[type, ...]
PRIMITIVES: Mapping[str, Mapping[str, Kinds]] = {
    "click": {"element_id": (int,), "num_clicks": (int,), "button_type": (str,), "hold_keys": (list,)},
    "type": {"element_id": (int, type(None)), "text": (str,), "overwrite": (bool,), "enter": (bool,)},
    "scroll": {"element_id": (int,), "clicks": (int,)},
    "drag_and_drop": {"drag_from_id": (int,), "drop_on_id": (int,), "hold_keys": (list,)},
    "hotkey": {"keys": (list,)},
    "hold_and_press": {"hold_keys": (list,), "press_keys": (list,)},
    "switch_applications": {"app_code": (str,)},
    "save_to_knowledge": {"text": (list,)},
    "wait": {"time": (int, float)},
    "done": {},
    "fail": {},
}
NEEDED = {
    "click": 1,
    "type": 0,
    "scroll": 2,
    "drag_and_drop": 2,
    "hotkey": 1,
    "hold_and_press": 2,
    "switch_applications": 1,
    "save_to_knowledge": 1,
    "wait": 1,
}
IDS = ("element_id", "drag_from_id", "drop_on_id")


@dataclass(frozen=True, slots=True)
class Primitive:
    """One step. `feedback`: why it is another one than was written."""

    name: str
    arguments: Mapping[str, Any]
    feedback: str = ""


def rows(lines: Sequence[Line], texts: Sequence[Found] = ()) -> list[Line]:
    """The rows of a screen: elements of the tree that show something on it, and texts of the picture that lie
    in none of them, as buttons. An id is a row's number, from 1."""
    shown = [line for line in lines if line.role not in GROUPS and _on_screen(line)]
    boxes = [line.box for line in shown if len(line.box) == 4]
    own = [text for text in texts if all(iou(text.box, box) < APART for box in boxes)]  # type: ignore[arg-type]
    read = [
        Line(ref="", role="button", name=" ".join(t.label.split()), box=tuple(round(x) for x in t.box))
        for t in own
    ]
    return [
        Line(ref=str(i), role=x.role, name=x.name, state=x.state, box=x.box)
        for i, x in enumerate([*shown, *read], 1)
    ]


def _on_screen(line: Line) -> bool:
    return len(line.box) != 4 or (
        line.box[0] >= 0 and line.box[1] >= 0 and line.box[2] > 0 and line.box[3] > 0
    )


def table(found: Sequence[Line]) -> str:
    """As the model reads it: id, role, name, text, with tabs between them."""
    return "\n".join(
        "\t".join([line.ref, line.role, line.name, " ".join(line.state)]).rstrip() for line in found
    )


def forget(text: str) -> str:
    """A table without its ids, for the history: they would be those of other rows."""
    return _ID.sub("", text)


def read(text: str, n: int) -> Primitive:
    """The one primitive of a turn on a screen of `n` rows; what does not fit is `wait(1.0)` with feedback. Of
    several blocks of code the last one counts."""
    blocks = BLOCK.findall(text)
    said = (blocks[-1] if blocks else text).strip().removeprefix("agent.")
    found = calls.parse(said, most=1)
    if isinstance(found, Refusal):
        return _wait(str(found))
    [call] = found.value
    takes = PRIMITIVES.get(call.name)
    if takes is None:
        return _wait(unknown("primitive", call.name, PRIMITIVES))
    if len(call.args) > len(takes):
        return _wait(f"{call.name} takes at most {len(takes)} arguments, found {len(call.args)}")
    given = dict(zip(takes, call.args, strict=False))
    for key, value in call.named.items():
        if key not in takes or key in given:
            return _wait(f"{key} twice" if key in given else unknown(f"argument of {call.name}", key, takes))
        given[key] = value
    if missing := [key for key in list(takes)[: NEEDED.get(call.name, 0)] if key not in given]:
        return _wait(f"{call.name} needs {missing[0]}")
    for key, value in given.items():
        if not isinstance(value, takes[key]) or (isinstance(value, bool) and bool not in takes[key]):
            return _wait(f"{key} of {call.name} is no {' or '.join(kind.__name__ for kind in takes[key])}")
        if key in IDS and isinstance(value, int) and not 1 <= value <= n:
            return _wait(f"there is no row {value}; the screen has {n}")
    return Primitive(call.name, given)


def _wait(why: str) -> Primitive:
    return Primitive("wait", {"time": 1.0}, why)
