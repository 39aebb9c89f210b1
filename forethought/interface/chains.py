"""Abstract chains (Chain-of-Abstraction, arXiv 2401.17464): reasoning whose results are left open, and filled
in by tools afterwards.

    Ann has [20 + 35 = y1] nuts, and of 90 there are [90 - y1 = y2] left.
    [final of 1966 -Search-> y1] ... [population of y1 -Lookup-> y2]

A step in brackets is a formula for the calculator, or a query with the tool that answers it. A placeholder
that comes again links steps. What stands outside of the brackets is free. The last placeholder is the answer.
What is refused is refused at its character."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from forethought.interface.result import END, Parsed, Refusal, Refused, alternatives, quoted_text
from forethought.interface.uses import MOST, Found, Use, end_of_brackets, linked, need_short, refuse

NAME = re.compile(r"(?<!\w)y\d+(?!\w)")
_RESULT = re.compile(r"(?:-(?P<tool>\w+)->|=)\s*(?P<name>y\d+)\s*$")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")


def parse(
    text: str, tools: Collection[str], calculator: str = "", most: int = MOST, start: int = 1
) -> Parsed | Refusal:
    """Parsed(tuple of Use), at least one and at most `most`. `calculator`: the tool of a formula; without one
    a formula is refused. `start`: the position of the first character."""
    try:
        return Parsed(linked(_found(text, tools, calculator, most, start), NAME))
    except Refused as refused:
        return refused.refusal


def render(uses: Sequence[Use], calculator: str = "", spaced: bool = False) -> str:
    """The chain as text; `spaced`: words and marks with single spaces between them."""
    gap = " " if spaced else ""
    said = []
    for u in uses:
        arrow = "=" if u.tool == calculator else f"-{u.tool}->"
        said.append(f"{u.says} [{gap}{u.given} {arrow} {u.name}{gap}]".strip())
    return " ".join(said)


def abstracted(steps: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Worked steps (formula, result) with placeholders for results: (formula, placeholder).

    A number of a formula becomes the placeholder of the newest step before it with that result, to the
    letter; any other number is given, and stays. [("20 + 35", "55"), ("90 - 55", "35")] gives [("20 + 35",
    "y1"), ("90 - y1", "y2")]. Two steps with one result cannot be told apart: keep a chain only if the tools
    bring it to the known answer, as the paper does."""
    names: dict[str, str] = {}
    found = []
    for number, (formula, result) in enumerate(steps, 1):
        found.append((_NUMBER.sub(lambda match: names.get(match[0], match[0]), formula), f"y{number}"))
        names[result] = f"y{number}"
    return found


def _found(text: str, tools: Collection[str], calculator: str, most: int, start: int) -> list[Found]:
    need_short(text, start)
    found: list[Found] = []
    at = 0
    while (opening := text.find("[", at)) >= 0:
        if (stray := text.find("]", at, opening)) >= 0:
            refuse(start + stray, "this bracket closes nothing")
        if len(found) == most:
            refuse(start + opening, f"step {most + 1} begins here, and a chain has at most {most}")
        end = end_of_brackets(text, opening, start)
        found.append(_step(text, opening + 1, end, text[at:opening].strip(), tools, calculator, start))
        at = end + 1
    if (stray := text.find("]", at)) >= 0:
        refuse(start + stray, "this bracket closes nothing")
    if not found:
        refuse(start + len(text), f"found {END}, expected a step such as [1 + 2 = y1]")
    return found


def _step(
    text: str, at: int, end: int, says: str, tools: Collection[str], calculator: str, start: int
) -> Found:
    inside = text[at:end]
    if (match := _RESULT.search(inside)) is None:
        refuse(start + at, f"{quoted_text(inside.strip())} ends with no placeholder such as = y1")
    tool, known = match["tool"] or calculator, alternatives(sorted(tools))
    if not tool:
        refuse(start + at + match.start(), f"there is no calculator; say who answers, such as -{known}->")
    if tool not in tools:
        refuse(start + at + match.start("tool"), f"there is no tool {quoted_text(tool)}; take {known}")
    given = inside[: match.start()].strip()
    if not given:
        refuse(start + at, f"{match['name']} gives {tool} nothing")
    return Found(
        name=match["name"],
        at=start + at + match.start("name"),
        tool=tool,
        given=given,
        given_at=start + at + len(inside) - len(inside.lstrip()),
        says=says,
    )
