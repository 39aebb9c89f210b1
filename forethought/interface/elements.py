"""Elements of a page in words, and the exact grounder that finds them.

    button "Submit"                      the button of that name
    img "trash" after "Kylie"            the first such picture below the line that is named Kylie
    textbox #2                           the second text box from above; #-1 is the last one
    checkbox "T3" #1

A planner writes these words and no ids, since ids change from one snapshot to the next; `ground` says which
line of a snapshot they mean, or why none. Words that fit two lines mean neither, unless they say which
(`#K`), or begin to look below an anchor (`after`), where the first one is meant. `describe` is the way back:
the shortest words that mean this line and no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from forethought.interface.fields import Scan
from forethought.interface.result import Parsed, Refusal, Refused, quoted_text

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_PLACE = re.compile(r"#(-?[1-9][0-9]{0,3})(?![\w.])")
_AFTER = re.compile(r"after(?!\w)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a snapshot. `ref`: the id of this snapshot; "" for what can be read and not acted on (the
    options of a list). `name`: white space is single spaces. `state`: such as ("checked",). `box`: left, top,
    width, height in CSS pixels; () where nobody looked."""

    ref: str
    role: str
    name: str = ""
    state: tuple[str, ...] = ()
    box: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """What is meant, in words. `name` and `after` None: not said. `place`: 1 is the first from above, -1 the
    last; None: not said."""

    role: str
    name: str | None = None
    after: str | None = None
    place: int | None = None


def parse(text: str, start: int = 1) -> Parsed | Refusal:
    """The Element of a text that is nothing else. `start`: position of its first character."""
    scan = Scan(text, start)
    try:
        at = scan.position
        match = _ROLE.match(scan.text, scan.at)
        if match is None:
            scan.refuse(at, "a role, such as button, comes first")
        scan.at = match.end()
        name = scan.text_here().text if _next(scan) == '"' else None
        after = None
        if scan.position and (said := _AFTER.match(scan.text, scan.at)):
            scan.at = said.end()
            after = scan.text_here().text
        place = None
        if _next(scan) == "#":
            number = _PLACE.match(scan.text, scan.at)
            if number is None:
                scan.refuse(scan.position, "'#' is followed by a number, such as #2 or #-1")
            scan.at, place = number.end(), int(number[1])
        scan.need_end()
    except Refused as refused:
        return refused.refusal
    for said_name in (name, after):
        if said_name is not None and " ".join(said_name.split()) != said_name:
            reason = f"the name {quoted_text(said_name)} has white space that no name has"
            return Refusal(position=start, reason=reason, unit="character")
    return Parsed(Element(role=match[0], name=name, after=after, place=place))


def render(element: Element) -> str:
    """The text that `parse` reads back. ValueError for an element that cannot be written."""
    parts = [element.role]
    if element.name is not None:
        parts.append(_quoted(element.name))
    if element.after is not None:
        parts += ["after", _quoted(element.after)]
    if element.place is not None:
        parts.append(f"#{element.place}")
    text = " ".join(parts)
    if parse(text) != Parsed(element):
        raise ValueError(f"{element} cannot be written: {parse(text)}")
    return text


def find(element: Element, lines: Sequence[Line]) -> Line | str:
    """The line that is meant, or the reason why none is."""
    seen = [line for line in lines if line.ref]
    if element.after is not None:
        anchors = [i for i, line in enumerate(seen) if line.name == element.after]
        if len(anchors) != 1:
            return f"{len(anchors)} lines are named {quoted_text(element.after)}, the anchor must be one"
        seen = seen[anchors[0] + 1 :]
    fit = [x for x in seen if x.role == element.role and element.name in (None, x.name)]
    if not fit:
        return "no such element" + ("" if element.after is None else " below the anchor")
    if element.place is not None:
        at = element.place - (element.place > 0)
        return fit[at] if -len(fit) <= at < len(fit) else f"there are {len(fit)} of them"
    if len(fit) > 1 and element.after is None:
        return f"there are {len(fit)} of them; say which: #1 to #{len(fit)}"
    return fit[0]


def ground(text: str, lines: Sequence[Line]) -> Parsed | Refusal:
    """Parsed(the line) that the words mean on this snapshot, or a refusal."""
    read = parse(text)
    if isinstance(read, Refusal):
        return read
    found = find(read.value, lines)
    if isinstance(found, str):
        return Refusal(position=1, reason=f"{quoted_text(text)}: {found}", unit="character")
    return Parsed(found)


def describe(line: Line, lines: Sequence[Line], anchors: bool = True) -> str:
    """The words that mean this line of the snapshot: its role with its name; where others share both, the
    nearest line above that has a name of its own, else its number. `anchors` false: its number at once.
    ValueError for a line without an id, or of another snapshot."""
    seen = [one for one in lines if one.ref]
    if not line.ref or line not in seen:
        raise ValueError(f"{line} is no line of this snapshot that can be acted on")
    name = line.name or None
    same = [one for one in seen if one.role == line.role and name in (None, one.name)]
    if len(same) == 1:
        return render(Element(role=line.role, name=name))
    names = [one.name for one in seen]
    for above in reversed(seen[: seen.index(line)] if anchors else []):
        if above.role == line.role and name in (None, above.name):
            break  # below any anchor further up it is not the first
        if above.name and names.count(above.name) == 1:
            return render(Element(role=line.role, name=name, after=above.name))
    return render(Element(role=line.role, name=name, place=same.index(line) + 1))


def _next(scan: Scan) -> str:
    return "" if scan.at_end() else scan.text[scan.at]


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
