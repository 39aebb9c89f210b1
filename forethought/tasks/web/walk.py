"""A recorded episode, walked act by act, and what comes between where a recipe asks for it: a popup that
covers the page until it is closed, and clicks that slip (`task.disturb`).

Before each act one number is drawn: a popup comes, and the act finds it in its way; or the act slips, and
nothing happens although it looks done; or neither. While a popup is there nothing is drawn. The luck of an
episode is that of its seed, in recordings and in Chromium alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from forethought.core.errors import RecipeError
from forethought.interface.elements import Line, describe
from forethought.interface.gui import Step
from forethought.recipe.options.web import Disturb
from forethought.recipe.ranges import within
from forethought.tasks.web.words import FIELDS, Act

POPUPS = (
    ("Sign up for our news", "No thanks"),
    ("We use cookies", "Accept"),
    ("Your session is about to end", "Stay"),
    ("Rate this page", "Not now"),
)
"""(what a popup says, the button that closes it)."""
IN_THE_WAY = "a popup has come"
FOCUSED = "focused"


def check(disturb: Disturb) -> None:
    """RecipeError for what is no probability."""
    within("task.disturb.popup", disturb.popup, 0, 1)
    within("task.disturb.slip", disturb.slip, 0, 1)
    if disturb.popup + disturb.slip > 1:
        raise RecipeError(
            "task.disturb",
            f"popup and slip are at most 1 together, found {disturb.popup:g} and {disturb.slip:g}",
        )


class Luck:
    """What happens before each act of an episode. `popups`, `slips`: how often so far."""

    def __init__(self, disturb: Disturb, seed: int | str):
        self._disturb, self._rng = disturb, random.Random(f"{seed}/luck")
        self.popups = self.slips = 0
        self.slipped = False  # the act that is due

    def popup(self) -> tuple[str, str] | None:
        """Draws for the act that is due: the popup that comes before it, if one does."""
        drawn = self._rng.random()
        self.slipped = self._disturb.popup <= drawn < self._disturb.popup + self._disturb.slip
        self.slips += self.slipped
        if drawn >= self._disturb.popup:
            return None
        self.popups += 1
        return self._rng.choice(POPUPS)

    @property
    def parts(self) -> dict[str, float]:
        """What a turn notes of it, for the trace."""
        return {"popups": float(self.popups), "slips": float(self.slips)}


def still(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Without the focus, which moves by itself."""
    return tuple(replace(x, state=tuple(s for s in x.state if s != FOCUSED)) for x in lines)


def kept(shown: Sequence[Line], lines: Sequence[Line], fresh: str) -> tuple[Line, ...] | None:
    """`lines` with the ids of the page that was shown, where all that was shown is still there; what is new
    gets ids that begin with `fresh`. None: something is gone, and the page must be shown anew."""
    found, at = [], 0
    for number, line in enumerate(lines):
        if at < len(shown) and (shown[at].role, shown[at].name) == (line.role, line.name):
            found.append(replace(line, ref=shown[at].ref))
            at += 1
        else:
            found.append(replace(line, ref=f"{fresh}.{number}" if line.ref else ""))
    return tuple(found) if at == len(shown) else None


class Walk:
    """Where an episode stands: its page, the steps that are left on it, and the popup."""

    def __init__(self, shown: Any, luck: Luck | None = None):
        self._pages, self.luck, self._at = shown.pages, luck, 0
        self._popup: tuple[Line, Line] | None = None
        self._open()

    def _open(self) -> None:
        page = self._pages[self._at]
        self._lines, self._left = tuple(page.lines), list(zip(page.steps, page.refs, strict=False))
        self._planned = list(page.steps)

    @property
    def over(self) -> bool:
        """Every act of the oracle was carried out."""
        return self._at == len(self._pages)

    @property
    def page(self) -> int:
        """Its number: while it is the same, ids hold."""
        return self._at

    @property
    def lines(self) -> tuple[Line, ...]:
        """What can be seen."""
        return (*self._lines, *(self._popup or ()))

    def wanted(self) -> list[tuple[Step, str]]:
        """What the oracle does now, as far as it can see: each step with the line that it is carried out on.
        The steps of a popup and those of the page are two plans."""
        if self._popup:
            return [(Step(op="click", target=describe(self._popup[1], self.lines)), self._popup[1].ref)]
        return list(self._left)

    def planned(self) -> list[Step]:
        """The plan of that. It may have steps that are never carried out."""
        return [step for step, _ in self.wanted()] if self._popup else list(self._planned)

    def do(self, act: Act) -> str:
        """done, slipped (and looks done), covered (by a popup), or wrong: another act than the oracle's."""
        if self._popup is None and self.luck and (came := self.luck.popup()):
            text, button = came
            self._popup = (Line(ref="p0", role="text", name=text), Line(ref="p1", role="button", name=button))
            return "covered"
        if self._popup:
            if act != Act("click", self._popup[1].ref):
                return "covered"
            self._popup = None
            return "done"
        step, ref = self._left[0]
        if (act.op, act.ref, act.value) != (step.op, ref, step.value):
            return "wrong"
        if self.luck and self.luck.slipped:
            return "slipped"
        self._lines = after(self._lines, act)
        del self._left[0], self._planned[0]
        if not self._left:
            self._at += 1
            if not self.over:
                self._open()
        return "done"


def after(lines: Sequence[Line], act: Act) -> tuple[Line, ...]:
    """The page after an act that leads to no other one: what fields hold, and which boxes are ticked."""
    role = next((line.role for line in lines if act.ref and line.ref == act.ref), "")
    return tuple(_after(line, act, role) for line in lines)


def _after(line: Line, act: Act, role: str) -> Line:
    hit, held = bool(act.ref) and line.ref == act.ref, [s for s in line.state if not s.startswith("= ")]
    if hit and act.op in ("type", "select") and role in FIELDS:
        return replace(line, state=(*([f"= {act.value}"] if act.value else []), *held))
    if act.op == "click" and role == "radio" and line.role == role:
        return replace(line, state=_ticked(line.state, hit))
    if act.op == "click" and role == "checkbox" and hit:
        return replace(line, state=_ticked(line.state, "checked" not in line.state))
    return line


def _ticked(state: Sequence[str], ticked: bool) -> tuple[str, ...]:
    return (*(["checked"] if ticked else []), *(one for one in state if one != "checked"))
