"""Plans of ReWOO (arXiv 2305.18323): every use of a tool is decided before the first one is carried out.

    Plan: find out where the match was played
    #E1 = Search[final of 1966]
    Plan: look up how many live there
    #E2 = Lookup[population of #E1]

Each Plan is followed by exactly one #E. Line breaks are white space like any other. The input of a tool may
hold brackets, if they close; the released code cuts off its last character instead, and reads #E10 as #E1 and
a 0. What is refused is refused at its character."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from forethought.interface.result import END, Parsed, Refusal, Refused, alternatives, quoted_text
from forethought.interface.uses import MOST, Found, Use, end_of_brackets, linked, need_short, refuse

NAME = re.compile(r"(?<![\w#])#E\d+(?!\w)")
_PLAN = re.compile(r"(?<!\w)Plan\s*:")
_HEAD = re.compile(r"(?<![\w#])(#E\d+)\s*=\s*(\w+)\s*\[")


def parse(text: str, tools: Collection[str], most: int = MOST, start: int = 1) -> Parsed | Refusal:
    """Parsed(tuple of Use), at least one and at most `most`. `start`: the position of the first character."""
    try:
        return Parsed(linked(_found(text, tools, most, start), NAME))
    except Refused as refused:
        return refused.refusal


def render(uses: Sequence[Use], spaced: bool = False) -> str:
    """The plan as text; `spaced`: words and marks with single spaces between them."""
    if spaced:
        return " ".join(f"Plan : {u.says} {u.name} = {u.tool} [ {u.given} ]" for u in uses)
    return "\n".join(f"Plan: {u.says}\n{u.name} = {u.tool}[{u.given}]" for u in uses)


def _found(text: str, tools: Collection[str], most: int, start: int) -> list[Found]:
    need_short(text, start)
    found: list[Found] = []
    at = _next(text, 0)
    while at < len(text) or not found:
        if (plan := _PLAN.match(text, at)) is None:
            said = quoted_text(text[at:].split()[0]) if at < len(text) else END
            refuse(start + at, f"found {said}, expected 'Plan:'")
        if len(found) == most:
            refuse(start + at, f"step {most + 1} begins here, and a plan has at most {most}")
        found.append(_step(text, plan, tools, start))
        at = _next(text, found[-1].given_at - start + len(found[-1].given))
        at = _next(text, at + 1)  # past the closing bracket
    return found


def _next(text: str, at: int) -> int:
    """The place of the next character that is not white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _step(text: str, plan: re.Match[str], tools: Collection[str], start: int) -> Found:
    head, following = _HEAD.search(text, plan.end()), _PLAN.search(text, plan.end())
    if head is None or (following and following.start() < head.start()):
        where = following.start() if following else len(text)
        refuse(start + where, "expected '#E... = TOOL[...]': each Plan is followed by exactly one")
    if head[2] not in tools:
        known = alternatives(sorted(tools))
        refuse(start + head.start(2), f"there is no tool {quoted_text(head[2])}; take {known}")
    end = end_of_brackets(text, head.end() - 1, start)
    inside = text[head.end() : end]
    if not inside.strip():
        refuse(start + end, f"{head[1]} gives {head[2]} nothing")
    return Found(
        name=head[1],
        at=start + head.start(1),
        tool=head[2],
        given=inside.strip(),
        given_at=start + _next(text, head.end()),
        says=text[plan.end() : head.start()].strip(),
    )
