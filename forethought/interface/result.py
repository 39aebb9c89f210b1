"""What every parser of the interface answers: a value, or a refusal with its position and reason. None of
them raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from forethought.core.printable import cut
from forethought.core.types import Verdict

END = "the end of the text"


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text is a sentence of the grammar, and `value` is what it says."""

    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The text does not fit. `position` counts from 1, in `unit`: the furthest place up to which the text
    could still have been right."""

    position: int
    reason: str
    unit: Literal["word", "character", "step"] = "word"

    def __str__(self) -> str:
        return f"{self.unit} {self.position}: {self.reason}"


class Refused(Exception):
    """Carries a refusal out of a parser's call stack; it never leaves this package."""

    def __init__(self, refusal: Refusal):
        self.refusal = refusal


def accepted(result: Parsed | Refusal) -> Parsed:
    """What was parsed, of a text that was accepted before. ValueError for a refusal."""
    if isinstance(result, Refusal):
        raise ValueError(str(result))
    return result


def verdict(answer: Parsed | Refusal) -> Verdict:
    """The result as tasksets report it: score 1.0, or 0.0 with position and reason."""
    return Verdict(score=0.0, reason=str(answer)) if isinstance(answer, Refusal) else Verdict(score=1.0)


def quoted_text(text: str, most: int = 40) -> str:
    """A piece of model output for a message: quoted, escaped, and never long."""
    return repr(cut(text, most))


def alternatives(names: list[str], last: str = "or") -> str:
    """`a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
