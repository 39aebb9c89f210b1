r"""The form of a plan and of an act in free text: `... </plan>`, and `<think> ... </think> \boxed{...}`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from forethought.interface.result import Parsed, Refusal
from forethought.interface.tags import Tags
from forethought.tasks.text.answers import boxed

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")  # what math_answers.boxed takes an answer from


@dataclass(frozen=True, slots=True)
class Turns:
    """Strict readers of both turns. `most`: words of a plan, which its budget in tokens cannot hold more
    of."""

    tags: Tags
    most: int

    def plan(self, text: str) -> Parsed | Refusal:
        """The Section of one closed, non-empty plan: no tag in it, no box (an answer is not a plan), not too
        long."""
        found = self.tags.turn("plan", text)
        if isinstance(found, Refusal):
            return found
        if box := BOX.search(text):
            reason = f"'{box[0]}' inside {self.tags.open('plan')!r}: a plan holds no answer"
            return Refusal(position=box.start() + 1, reason=reason, unit="character")
        words = len(found.value.text.split())
        if words > self.most:
            return Refusal(
                position=self.most + 1,
                reason=f"a plan of {words} words, more than its budget of {self.most} tokens",
            )
        return found

    def act(self, text: str) -> Parsed | Refusal:
        """The final answer of an act that has the whole form."""
        opened, closed = self.tags.open("think"), self.tags.close("think")
        start = len(text) - len(text.lstrip())
        if not text.startswith(opened, start):
            return Refusal(position=start + 1, reason=f"expected {opened!r}", unit="character")
        thought, mark, tail = text[start + len(opened) :].partition(closed)
        found = self.tags.turn("think", thought + mark)
        if isinstance(found, Refusal):
            return _shifted(found, start + len(opened))
        after = len(text) - len(tail)
        for tag in (
            edge(section) for section in ("plan", "think") for edge in (self.tags.open, self.tags.close)
        ):
            if tag in tail:
                return Refusal(
                    position=after + tail.index(tag) + 1, reason=f"{tag!r} after {closed!r}", unit="character"
                )
        return _shifted(boxed(tail), after)

    def answer(self, text: str) -> Parsed | Refusal:
        """The final answer of an act (str), more lenient than `act`: the last box after the thinking, and of
        all the text where none is marked as thinking. What stands in thinking that never ends is no
        answer."""
        tail = text.rpartition(self.tags.close("think"))[2]
        if self.tags.open("think") in tail:
            return Refusal(
                position=text.rindex(self.tags.open("think")) + 1,
                reason=f"{self.tags.open('think')!r} is never closed",
                unit="character",
            )
        return _shifted(boxed(tail), len(text) - len(tail))


def _shifted(read: Parsed | Refusal, by: int) -> Parsed | Refusal:
    if isinstance(read, Refusal):
        return Refusal(position=read.position + by, reason=read.reason, unit=read.unit)
    return read
