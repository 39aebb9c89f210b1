"""Tagged free text, such as `<plan>...</plan> <think>...</think> <act>...</act>`, extracted strictly.

What a language model writes around an answer is where silent leniency hides: a pattern that takes the first
match accepts two answers, one that never ends, or text after the last tag. Here each tag stands at most
once, closed, in order, not nested and not empty, with nothing but white space around it; anything else is
refused with the character (from 1) and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from forethought.core.errors import UserError
from forethought.interface.result import END, Parsed, Refusal, Refused, alternatives, quoted_text


@dataclass(frozen=True, slots=True)
class Section:
    """The text between two tags without surrounding white space, and its first character (from 1)."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Tags:
    """Section -> its tag, in the order of the sections in a text.

    `required`: those that must be there; `strict = False` lets other text stand outside of the sections, but
    no tag of these. UserError for a tag that is not a name or stands for two sections.
    """

    names: Mapping[str, str]
    required: tuple[str, ...] = field(default=(), kw_only=True)
    strict: bool = field(default=True, kw_only=True)
    _marks: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = list(self.names.values())
        for section, name in self.names.items():
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
                raise UserError(
                    f"the tag of {section} is a name of letters, digits, _ and -, such as "
                    f"{section!r}; found {name!r}"
                )
        if len(set(names)) < len(names):
            raise UserError(f"two sections share a tag: {', '.join(names)}; give each its own")
        if not set(self.required) <= set(self.names):
            raise UserError(f"required names some of {', '.join(self.names)}, found {self.required}")
        object.__setattr__(self, "_marks", re.compile(rf"<(/?)({'|'.join(map(re.escape, names))})>"))

    def name(self, section: str) -> str:
        """The tag's word for a section."""
        return self.names[section]

    def open(self, section: str) -> str:
        """Opening tag of a section."""
        return f"<{self.name(section)}>"

    def close(self, section: str) -> str:
        """Closing tag of a section."""
        return f"</{self.name(section)}>"

    def parse(self, text: str) -> Parsed | Refusal:
        """Section -> Section, of those that the text has; or the first place that breaks a rule."""
        try:
            return Parsed(self._sections(text))
        except Refused as refused:
            return refused.refusal

    def turn(self, section: str, text: str) -> Parsed | Refusal:
        """The Section of a turn whose opening tag ends the prompt: a body, then the closing tag, then
        nothing."""
        try:
            mark = self._marks.search(text)
            if mark is None:
                _refuse(len(text), f"found {END}, expected {self.close(section)!r}")
            if mark[0] != self.close(section):
                _refuse(mark.start(), f"{mark[0]!r} inside {self.open(section)!r}")
            found = self._section(section, text, 0, mark.start())
            self._need_blank(text, mark.end(), len(text), f"nothing may follow {mark[0]!r}")
            return Parsed(found)
        except Refused as refused:
            return refused.refusal

    def render(self, sections: Mapping[str, str]) -> str:
        """The text with these sections, one per line. ValueError for sections that `parse` would not give
        back."""
        text = "\n".join(f"{self.open(s)}{sections[s]}{self.close(s)}" for s in self.names if s in sections)
        found = self.parse(text)
        if isinstance(found, Refusal):
            raise ValueError(f"no text has the sections {dict(sections)!r}: {found}")
        if {s: part.text for s, part in found.value.items()} != dict(sections):
            raise ValueError(f"no text has the sections {dict(sections)!r}: they are read otherwise")
        return text

    def _sections(self, text: str) -> dict[str, Section]:
        found: dict[str, Section] = {}
        of_tag = {name: section for section, name in self.names.items()}
        opened: tuple[str, re.Match[str]] | None = None
        outside = 0  # where the text after the last section begins
        for mark in self._marks.finditer(text):
            section = of_tag[mark[2]]
            if opened is not None:
                if not mark[1] or section != opened[0]:
                    _refuse(mark.start(), f"{mark[0]!r} inside {opened[1][0]!r}")
                found[section] = self._section(section, text, opened[1].end(), mark.start())
                opened, outside = None, mark.end()
            else:
                if self.strict:
                    self._need_blank(text, outside, mark.start(), "nothing may stand outside of the tags")
                self._need_place(section, mark, found)
                opened = (section, mark)
        if opened is not None:
            _refuse(opened[1].start(), f"{opened[1][0]!r} is never closed")
        if self.strict:
            self._need_blank(text, outside, len(text), "nothing may stand outside of the tags")
        if missing := [
            self.open(section) for section in self.names if section in self.required and section not in found
        ]:
            _refuse(len(text), f"found {END}, expected {alternatives(missing, 'and')}")
        return found

    def _need_place(self, section: str, mark: re.Match[str], found: Mapping[str, Section]) -> None:
        """Whether a section may open here."""
        if section in found:
            _refuse(mark.start(), f"{mark[0]!r} a second time")
        if mark[1]:
            _refuse(mark.start(), f"{mark[0]!r} closes nothing")
        order = list(self.names)
        if later := [s for s in found if order.index(s) > order.index(section)]:
            _refuse(
                mark.start(),
                f"{mark[0]!r} after {self.open(later[0])!r}; the order is {', '.join(map(self.open, order))}",
            )

    def _section(self, section: str, text: str, start: int, end: int) -> Section:
        body = text[start:end].strip()
        if not body:
            _refuse(end, f"{self.open(section)!r} is empty")
        return Section(body, end - len(text[start:end].lstrip()) + 1)

    def _need_blank(self, text: str, start: int, end: int, rule: str) -> None:
        if other := text[start:end].lstrip():
            _refuse(end - len(other), f"{rule}, found {quoted_text(other.rstrip())}")


def _refuse(at: int, reason: str) -> NoReturn:
    raise Refused(Refusal(position=at + 1, reason=reason, unit="character"))
