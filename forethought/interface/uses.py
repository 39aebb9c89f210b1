"""Uses of tools that a plan asks for, each with the names of earlier ones in its input: what ReWOO's plans
(`rewoo`) and abstract chains (`chains`) have in common.

A name is one token to the letter: `#E10` is not `#E1` and a 0. What a name stands for is known when its use
has been carried out, so names refer back only. A name that is never defined, that is defined further down,
that stands in its own input or in a ring of them is refused at its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from forethought.interface.result import Refusal, Refused, alternatives

MOST, MOST_CHARACTERS = 64, 16384  # uses and characters of one plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """`tool[given]`, whose result is called `name`. `says`: the words that stand before it."""

    name: str
    tool: str
    given: str
    says: str = ""
    needs: tuple[str, ...] = ()  # the names in `given`, each once, in order

    def filled(self, pattern: re.Pattern[str], values: Mapping[str, str]) -> str:
        """What the tool is given, with values in the place of names."""
        return pattern.sub(lambda match: values[match[0]], self.given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A use as it stands in a text, before its names are looked up. Places are characters, from 1."""

    name: str
    at: int  # of the name
    tool: str
    given: str
    given_at: int
    says: str = ""


def refuse(position: int, reason: str) -> NoReturn:
    """Ends a parser with the character and the reason."""
    raise Refused(Refusal(position=position, reason=reason, unit="character"))


def need_short(text: str, start: int) -> None:
    """Refused where the text is longer than any plan needs to be."""
    if len(text) > MOST_CHARACTERS:
        refuse(start + MOST_CHARACTERS, f"longer than {MOST_CHARACTERS:,} characters")


def end_of_brackets(text: str, at: int, start: int) -> int:
    """The place of the bracket that closes the one at `at`, brackets inside of it counted. Refused where
    there is none. `start`: the position of the first character of `text`."""
    depth = 0
    for i in range(at, len(text)):
        depth += {"[": 1, "]": -1}.get(text[i], 0)
        if not depth:
            return i
    refuse(start + at, "the bracket that opens here is never closed")


def linked(found: Sequence[Found], pattern: re.Pattern[str]) -> tuple[Use, ...]:
    """The uses with the names that each needs. Raises Refused at the first name that leads nowhere, forward,
    or in a ring."""
    order: dict[str, int] = {}
    for i, one in enumerate(found):
        if one.name in order:
            refuse(one.at, f"{one.name} is defined a second time")
        order[one.name] = i
    needs = [[match[0] for match in pattern.finditer(one.given)] for one in found]
    for i, one in enumerate(found):
        for match in pattern.finditer(one.given):
            _check(found, order, needs, i, match[0], one.given_at + match.start())
    return tuple(
        Use(name=one.name, tool=one.tool, given=one.given, says=one.says, needs=tuple(dict.fromkeys(needed)))
        for one, needed in zip(found, needs, strict=True)
    )


def _check(
    found: Sequence[Found],
    order: Mapping[str, int],
    needs: Sequence[Sequence[str]],
    i: int,
    name: str,
    at: int,
) -> None:
    """Refused unless the name is one that is defined before use `i`."""
    own = found[i].name
    if name == own:
        refuse(at, f"{own} refers to itself")
    if name not in order:
        before = [one.name for one in found[:i]]
        known = f"before it stand {alternatives(before, 'and')}" if before else "nothing stands before it"
        refuse(at, f"{name} is not defined; {known}")
    if order[name] > i:
        if ring := _ring(order, needs, name, own):
            refuse(at, f"{own} waits for itself: {' needs '.join([own, *ring])}")
        refuse(at, f"{own} refers forward to {name}, which is defined after it")


def _ring(order: Mapping[str, int], needs: Sequence[Sequence[str]], start: str, end: str) -> list[str]:
    """Names from `start` to `end`, each needing the next; [] where `start` never needs `end`."""
    paths, seen = [[start]], {start}
    for path in paths:
        for name in needs[order[path[-1]]]:
            if name == end:
                return [*path, end]
            if name in order and name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return []
