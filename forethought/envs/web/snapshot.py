"""What a page shows: one line an element, in the order of the document.

    heading "Primary" [e88]
    textbox "Username" [e103] = bo
    select "Colour" [e5] = red
    option red
    img "trash" [e41]

The id stands behind the name and changes from one snapshot to the next; what can be read and not acted on has
none. What Playwright's own accessible snapshot leaves out and these pages need (colours, shapes, icons that
are known by their class, labels that only stand beside their field) is in it: `page.js` says how it is found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forethought.interface.elements import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A page at one moment. `utterance`: what the page asks for. `done`, `raw`: whether the episode is over,
    and its reward without the time (1 is success). `cut`: there are more lines than are read."""

    lines: tuple[Line, ...]
    utterance: str = ""
    done: bool = False
    raw: float = 0.0
    cut: bool = False

    @property
    def text(self) -> str:
        """A line an element."""
        return "\n".join(map(line_text, self.lines))

    def line(self, ref: str) -> Line | None:
        """The line with that id, or None."""
        return next((line for line in self.lines if line.ref == ref), None) if ref else None


def line_text(line: Line) -> str:
    """As the model reads it: role, name in quotes, id in brackets, states."""
    if not line.ref:
        return f"{line.role} {line.name}".strip()
    name = [json.dumps(line.name, ensure_ascii=False)] if line.name else []
    return " ".join([line.role, *name, f"[{line.ref}]", *line.state])


def read(found: Mapping[str, Any]) -> Snapshot:
    """The snapshot that `page.js` gave."""
    lines = tuple(
        Line(
            ref=one["ref"],
            role=one["role"],
            name=one["name"],
            state=tuple(one["state"]),
            box=tuple(one.get("box", ())),
        )
        for one in found["lines"]
    )
    return Snapshot(
        lines=lines,
        utterance=found.get("utterance", ""),
        done=bool(found.get("done", False)),
        raw=float(found.get("raw", 0.0)),
        cut=bool(found.get("cut", False)),
    )


def written(snapshot: Snapshot) -> dict[str, Any]:
    """What `read` reads back: for recorded pages."""
    lines = [
        {
            "ref": line.ref,
            "role": line.role,
            "name": line.name,
            "state": list(line.state),
            "box": list(line.box),
        }
        for line in snapshot.lines
    ]
    told = {"utterance": snapshot.utterance, "done": snapshot.done, "raw": snapshot.raw, "cut": snapshot.cut}
    return {"lines": lines, **told}
