"""The thinking that a reasoning model writes before its answer, taken off: what is left is the answer."""

from __future__ import annotations

import re

from forethought.tasks.sections import PLAN

_NAMES = "think|thinking|thought|reasoning|reflection|seed:think"
_OPEN = rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|channel\|>(?:analysis|commentary)<\|message\|>"
_CLOSE = (
    rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end\|><\|start\|>assistant(?:<\|channel\|>final<\|message\|>)?"
)
_MARKS = re.compile(rf"(?P<open>{_OPEN})|{_CLOSE}", re.IGNORECASE)
_BLANK = " \t\r\n\ufeff"


def without_thinking(text: str, plan: str = PLAN) -> str:
    """The text behind its thinking; "" where the thinking is all. `plan`: the tag of a plan, which is no mark
    of thinking.

    Thinking is what stands at the head between its marks (`<think>`, `[THINK]`, gpt-oss's channels), also
    several times, also empty; or up to a closing mark whose opening one was part of the prompt. Marks
    elsewhere stay: the parser of the answer judges them.
    """
    end, inside = 0, False  # where the answer begins, as far as is known
    for mark in _MARKS.finditer(text):
        if mark[0].strip("</>").lower() == plan.lower():
            continue
        if not mark["open"]:
            end, inside = mark.end(), False
        elif not inside:
            if text[end : mark.start()].strip(_BLANK):
                break
            inside = True
    return "" if inside else text[end:]
