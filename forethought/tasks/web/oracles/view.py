"""What an oracle sees, and how it names what it means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from forethought.interface.elements import Line, describe
from forethought.interface.gui import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The utterance, the lines of the snapshot, and the steps that were carried out in this episode."""

    utterance: str
    lines: tuple[Line, ...]
    past: tuple[Step, ...] = ()

    @property
    def quoted(self) -> list[str]:
        """What stands in quotes in the utterance."""
        return re.findall(r'"([^"]*)"', self.utterance)

    def said(self, pattern: str) -> str:
        """The group of a pattern in the utterance. ValueError where it does not stand there."""
        found = re.search(pattern, self.utterance)
        if found is None:
            raise ValueError(f"{pattern!r} is not in {self.utterance!r}")
        return found[1]

    def all(self, role: str = "", name: str | None = None) -> list[Line]:
        """Lines of a role ("": any) and a name (None: any) that can be acted on."""
        fit = (x for x in self.lines if x.ref and role in ("", x.role))
        return [x for x in fit if name in (None, x.name)]

    def names(self, role: str = "") -> list[str]:
        """The names of all lines of a role ("": any), in order; options of lists count too."""
        return [x.name for x in self.lines if role in ("", x.role)]

    def one(self, role: str = "", name: str | None = None, at: int = 0) -> Line:
        """The line at that place among those that fit. IndexError where there is none."""
        return self.all(role, name)[at]

    def below(self, anchor: str, role: str, name: str | None = None) -> Line:
        """The first that fits below the first line named `anchor`."""
        start = next(i for i, x in enumerate(self.lines) if x.name == anchor)
        return next(x for x in self.all(role, name) if self.lines.index(x) > start)

    def state(self, line: Line, part: str) -> bool:
        """Whether a state of the line holds this text."""
        return any(part in one for one in line.state)

    def click(self, line: Line) -> Step:
        return Step(op="click", target=describe(line, self.lines))

    def hover(self, line: Line) -> Step:
        return Step(op="hover", target=describe(line, self.lines))

    def type(self, line: Line, text: str) -> Step:
        return Step(op="type", target=describe(line, self.lines), value=text)

    def select(self, line: Line, options: Sequence[str]) -> Step:
        return Step(op="select", target=describe(line, self.lines), value=", ".join(options))

    def did(self, op: str) -> list[Step]:
        """The steps of that operation so far."""
        return [step for step in self.past if step.op == op]


Oracle = Callable[[View], list[Step]]


def table(*rows: tuple[str, Oracle]) -> dict[str, Oracle]:
    """Names separated by spaces -> their oracle."""
    return {task: oracle for names, oracle in rows for task in names.split()}


def submit(view: View, *names: str) -> Step:
    """A click on the first of these that is there, by default Submit, whatever it is made of."""
    wanted: Iterable[str] = names or ("Submit",)
    return view.click(next(x for name in wanted for x in view.all("", name) if x.role in _PRESSED))


_PRESSED = ("button", "link", "text")
