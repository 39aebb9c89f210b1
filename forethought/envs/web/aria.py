"""The accessible tree that Playwright and its MCP server show (`browser_snapshot`), as lines of a snapshot.

    - generic [ref=e2]:                        textbox "Username" [e5] = bo
      - text: Username                   ->    button "Login" [e6] focused
      - textbox [ref=e5]: bo
      - button "Login" [active] [ref=e6]

Ids are Playwright's, those of frames too (`f1e2`); its tools take them. What only groups is left out; a field
without a name is named by the text beside it, as a reader would do. Format of Playwright 1.65
(`ariaSnapshotRenderer.ts`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from forethought.interface.elements import Line

FIELDS = {"textbox": "textbox", "searchbox": "textbox", "spinbutton": "spinbutton", "slider": "slider"}
LISTS = ("combobox", "listbox")
TICKED = {"checkbox": "checkbox", "radio": "radio", "switch": "checkbox", "menuitemcheckbox": "checkbox"}
NAMED = {
    "button": "button",
    "link": "link",
    "tab": "tab",
    "heading": "heading",
    "cell": "cell",
    "columnheader": "cell",
    "rowheader": "cell",
    "img": "img",
    "menuitem": "menuitem",
    "option": "menuitem",
}
STATES = {"checked": "checked", "selected": "open", "expanded": "open", "disabled": "disabled"}
LONGEST = 40  # characters of a text that names the field beside it

_ROW = re.compile(r"( *)- (.*)")
_KEY = re.compile(r'(/?[A-Za-z]+)(?: ("(?:[^"\\]|\\.)*"))?((?: \[[^\]]*\])*)')
_MARK = re.compile(r"\[([^\]=]+)(?:=([^\]]*))?\]")
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(slots=True)
class Node:
    """One row of the tree. `marks`: what stands in brackets, with its value or ""; `text`: what stands
    behind the colon."""

    role: str
    name: str = ""
    marks: dict[str, str] = field(default_factory=dict)
    text: str = ""
    inside: list[Node] = field(default_factory=list)


def tree(text: str) -> list[Node]:
    """The nodes of a snapshot. ValueError, with its number, for a row that is none."""
    top: list[Node] = []
    open_: list[tuple[int, Node]] = []
    for number, row in enumerate(text.splitlines(), 1):
        found = _ROW.fullmatch(row)
        node = _node(found[2]) if found else None
        if found is None or node is None:
            raise ValueError(f"row {number} of the accessible tree cannot be read: {row[:80]!r}")
        depth = len(found[1])
        while open_ and open_[-1][0] >= depth:
            open_.pop()
        if node.role.startswith("/"):
            if open_:
                open_[-1][1].marks[node.role[1:]] = node.text
            continue
        (open_[-1][1].inside if open_ else top).append(node)
        open_.append((depth, node))
    return top


def _node(row: str) -> Node | None:
    if row.startswith("'"):  # a key that YAML would misread
        end = re.match(r"'((?:[^']|'')*)'", row)
        if end is None:
            return None
        key, rest = end[1].replace("''", "'"), row[end.end() :]
        read = _KEY.fullmatch(key)
    else:
        read = _KEY.match(row)
        rest = row[read.end() :] if read else ""
    if read is None or not (rest in ("", ":") or rest.startswith(": ")):
        return None
    marks = {name: value or "" for name, value in _MARK.findall(read[3])}
    return Node(read[1], json.loads(read[2]) if read[2] else "", marks, _plain(rest[2:]))


def _plain(text: str) -> str:
    if not text.startswith('"'):
        return text
    inner = _ESCAPE.sub(
        lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 3 else _ESCAPED.get(m[1], m[1]), text[1:-1]
    )
    return inner


def lines(text: str) -> tuple[Line, ...]:
    """The snapshot of an accessible tree. ValueError as `tree` raises it."""
    return tuple(_walk(tree(text), ""))


def _walk(nodes: Sequence[Node], ref: str, label: str = "") -> Iterator[Line]:
    """`ref`: of the element around them, on which their text can be acted on. `label`: what names a field
    that nothing else names: the head of its row in a table."""
    for i, node in enumerate(nodes):
        own = node.marks.get("ref", "") or ref
        if "aria-hidden" in node.marks:
            continue  # shown in the tree all the same
        if node.role == "text":
            beside = [x for x in nodes[max(i - 1, 0) : i + 2] if x.role in TICKED]
            if not any(_same(x.name, node.text) for x in beside):
                yield from _text(node.text, ref)
        elif node.role in FIELDS or (node.role in LISTS and not _options(node)):
            name = node.name or node.marks.get("placeholder", "") or _beside(nodes, i) or label
            role = FIELDS.get(node.role, "textbox")
            yield _line(role, name, node, _value(node.text), own)
        elif node.role in LISTS:
            options = _options(node)
            chosen = ", ".join(_clean(x.name or x.text) for x in options if "selected" in x.marks)
            yield _line("select", node.name or _beside(nodes, i) or label, node, [f"= {chosen}"], own)
            for one in options:
                yield Line(ref="", role="option", name=_clean(one.name or one.text))
        elif node.role in TICKED:
            yield _line(TICKED[node.role], node.name or _beside(nodes, i, 1), node, [], own)
        elif (inner := _tabbed(node)) is not None:
            yield _line("tab", inner.name, node, [], inner.marks.get("ref", "") or own)
        elif node.role in NAMED and (node.name or node.text or not node.inside):
            yield _line(NAMED[node.role], node.name or node.text, node, [], own)
            if node.role in ("cell", "heading"):
                yield from _walk([x for x in node.inside if x.role != "text"], own)
        else:
            yield from _text(node.text, own)
            yield from _walk(node.inside, own, _head(node) if node.role == "row" else label)


def _tabbed(node: Node) -> Node | None:
    """The link that a tab without a name consists of: that is what is clicked."""
    if node.role != "tab" or node.name or len(node.inside) != 1:
        return None
    [inner] = node.inside
    return inner if inner.role == "link" and inner.name else None


def _head(row: Node) -> str:
    """What the first cell of a row says."""
    first = row.inside[0] if row.inside else Node("")
    said = _clean(first.name or first.text).rstrip(":").rstrip()
    return said if first.role in ("rowheader", "cell") and len(said) <= LONGEST else ""


def _line(role: str, name: str, node: Node, values: list[str], ref: str) -> Line:
    marked = dict.fromkeys(STATES[mark] for mark in node.marks if mark in STATES)
    state = [*marked, *values]
    focused = ["focused"] if "active" in node.marks else []
    return Line(ref=ref, role=role, name=_clean(name), state=(*state, *focused))


def _text(text: str, ref: str) -> Iterator[Line]:
    if said := _clean(text):
        yield Line(ref=ref, role="text", name=said)


def _value(text: str) -> list[str]:
    return [f"= {_clean(text)}"] if _clean(text) else []


def _options(node: Node) -> list[Node]:
    found = []
    for one in node.inside:
        found += [one] if one.role == "option" else _options(one)
    return found


def _beside(nodes: Sequence[Node], i: int, way: int = -1) -> str:
    """The text next to a node: of a field the one before it, of a box to tick the one behind it."""
    at = i + way
    if not 0 <= at < len(nodes):
        return ""
    near = nodes[at]
    text = near.text if near.role in ("text", "generic", "paragraph") and not near.inside else ""
    return _clean(text).rstrip(":").rstrip() if len(text) <= LONGEST else ""


def _same(a: str, b: str) -> bool:
    return bool(_clean(a)) and _clean(a) == _clean(b)


def _clean(text: str) -> str:
    return " ".join(text.split())
