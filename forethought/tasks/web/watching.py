"""What is kept of episodes that somebody watches: each page, the acts on it, what became of them, and, of
some, a picture. It is read as pairs for the metrics of grounding, and as films.

An attempt goes wrong in one of three ways, which are looked for in this order:

    page      the grounder chose what the words mean, and the page refused an act (covered, stale, ...)
    element   the words mean an element, and the grounder chose another one, or wrote no acts
    plan      the words mean nothing on this page; or all was done as planned, and it was not what was asked
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from forethought.core.films import Film, Frame, Mark, Wrong
from forethought.core.grounding import Did, Pair, Wanted, centre
from forethought.envs.images import name_of
from forethought.interface.elements import Line, describe, ground
from forethought.interface.gui import Step
from forethought.interface.result import Parsed, Refusal
from forethought.tasks.web.words import Act, Full

WRONG_ELEMENT = "the grounder chose another element, or did something else with it"


@dataclass(slots=True, kw_only=True)
class Shot:
    """One attempt. `lines`: of the page before it, with boxes where a browser showed it; the first page's
    have the ids of the recording. `became`: a status for each act that was tried, with its reason. `needed`:
    how many steps count, where the episode ended before the others (None: all)."""

    lines: tuple[Line, ...]
    said: str
    became: list[tuple[str, str]] = field(default_factory=list)
    needed: int | None = None
    picture: bytes = b""
    width: int = 0
    height: int = 0


@dataclass(slots=True)
class Reel:
    """One episode. `pictures`: each page is photographed; `marks`: and ids are drawn on it."""

    pictures: bool = False
    marks: bool = False
    shots: list[Shot] = field(default_factory=list)

    def shot(self, lines: Sequence[Line], said: str) -> Shot:
        """A new attempt, before anything is done."""
        found = Shot(lines=tuple(lines), said=said)
        self.shots.append(found)
        return found


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was planned and done on one page. `plan`: steps, or why they could not be read; `acts` alike."""

    shot: Shot
    plan: tuple[Step, ...] | str
    acts: tuple[Act, ...] | str
    meant: tuple[Act | str, ...]  # by the exact grounder, or why a step means nothing


def reel_of(reels: Sequence[Reel], acts: Sequence[str]) -> Reel | None:
    """The episode in which these turns were played."""
    return next((reel for reel in reels if [shot.said for shot in reel.shots] == list(acts)), None)


def attempts(state: Any, reel: Reel, plans: Sequence[str], stops: Mapping[str, str]) -> list[Attempt]:
    """The episode read again, in the words in which it was played. `plans`: the one that each turn of acting
    stood under."""
    speech, _ = state.begin()
    found = []
    for number, (shot, planned) in enumerate(zip(reel.shots, plans, strict=True)):
        if number:
            try:
                speech.next_page(shot.lines)
            except Full:
                break
        plan = _read(speech.read_plan, planned, stops["plan"])
        acts = _read(speech.read_acts, shot.said, stops["act"])
        meant = () if isinstance(plan, str) else tuple(_meant(step, shot.lines) for step in plan)
        found.append(Attempt(shot, plan, acts, meant))
    return found


def _read(read: Any, text: str, stop: str) -> Any:
    found = read(text, stop)
    return found.value if isinstance(found, Parsed) else str(found)


def _meant(step: Step, lines: tuple[Line, ...]) -> Act | str:
    if step.target is None:
        return Act(step.op, "", step.value)
    found = ground(step.target, lines)
    return found.reason if isinstance(found, Refusal) else Act(step.op, found.value.ref, step.value)


# ---- grounding


def pairs(found: Sequence[Attempt]) -> list[Pair]:
    """(what was done, what the words mean) of each step whose words mean something on its page. Steps that
    came after the end of an episode are none: nobody knows whether they were needed."""
    made: list[Pair] = []
    for attempt in found:
        acts = () if isinstance(attempt.acts, str) else attempt.acts
        for i, meant in enumerate(attempt.meant[: attempt.shot.needed]):
            if isinstance(meant, str):
                break
            lines = attempt.shot.lines
            wanted = Wanted(
                op=meant.op, element=meant.ref, value=meant.value or "", box=_box(meant.ref, lines)
            )
            made.append((_did(acts[i], lines) if i < len(acts) else None, wanted))
    return made


def _did(act: Act, lines: Sequence[Line]) -> Did:
    box = _box(act.ref, lines)
    return Did(op=act.op, element=act.ref, value=act.value or "", point=centre(box) if box else None)


def _box(ref: str, lines: Sequence[Line]) -> Any:
    line = next((line for line in lines if ref and line.ref == ref), None)
    return line.box if line and len(line.box) == 4 else None


# ---- films


def film(task: Any, found: Sequence[Attempt], success: bool, reason: str, wrong_plan: str) -> Film | None:
    """The episode as pictures, or None where there are none: a plan that is refused is not executed, and no
    page is opened. `reason`: why it ended as it did; `wrong_plan`: what the exact executor says against the
    first plan."""
    shots = [attempt for attempt in found if attempt.shot.picture]
    if not shots:
        return None
    frames, pictures = [], {}
    for attempt in shots:
        frame = _frame(attempt)
        pictures[frame.image] = attempt.shot.picture
        frames.append(frame)
    if not success:
        # where all was done as it was planned, the plan was not what was asked
        if wrong_plan and not frames[0].wrong:
            frames[0] = replace(frames[0], wrong="words", reason=wrong_plan)
        if not frames[-1].wrong:
            frames[-1] = replace(frames[-1], wrong="words", reason=reason)
    first = next((frame for frame in frames if frame.wrong), None)
    shown = task.state.shown
    return Film(
        task=task.id,
        name=f"{shown.task}, seed {shown.seed}",
        asked=shown.utterance,
        success=success,
        wrong="" if success or first is None else first.wrong,
        reason="" if success else reason,
        frames=tuple(frames),
        pictures=pictures,
    )


def _frame(attempt: Attempt) -> Frame:
    shot = attempt.shot
    wrong, reason = fault(attempt)
    planned: tuple[Mark, ...] = ()
    if not isinstance(attempt.plan, str):
        planned = tuple(
            Mark(
                said=step_text(step.op, step.target or "", step.value),
                box=None if isinstance(meant, str) else _box(meant.ref, shot.lines),
                note=meant if isinstance(meant, str) else "",
                good=not isinstance(meant, str),
            )
            for step, meant in zip(attempt.plan, attempt.meant, strict=True)
        )
    acts = () if isinstance(attempt.acts, str) else attempt.acts
    return Frame(
        image=name_of(shot.picture),
        width=shot.width,
        height=shot.height,
        planned=planned,
        chosen=tuple(_act(attempt, i, act) for i, act in enumerate(acts)),
        wrong=wrong,
        reason=reason,
    )


def _act(attempt: Attempt, i: int, act: Act) -> Mark:
    lines = attempt.shot.lines
    line = next((line for line in lines if act.ref and line.ref == act.ref), None)
    became, why = attempt.shot.became[i] if i < len(attempt.shot.became) else ("not tried", "")
    meant = attempt.meant[i] if i < len(attempt.meant) else None
    other = not isinstance(meant, str) and meant != act  # what means nothing is not missed
    notes = [*(["another than was meant"] if other else []), *([why or became] if became != "done" else [])]
    return Mark(
        said=step_text(act.op, _words(line, lines) if line else "", act.value),
        box=_box(act.ref, lines),
        note="; ".join(notes),
        good=not other and became == "done",
    )


def _words(line: Line, lines: Sequence[Line]) -> str:
    try:
        return describe(line, lines)
    except ValueError:  # its name cannot be written
        return f"{line.role} {line.ref}"


def step_text(op: str, target: str, value: str | None) -> str:
    """A step for a reader."""
    return f"{op} {target}".strip() + ("" if value is None else f" = {value}")


def fault(attempt: Attempt) -> tuple[Wrong, str]:
    """What this attempt failed at, as far as it can be seen from itself."""
    became = attempt.shot.became
    if isinstance(attempt.plan, str):
        return "words", attempt.plan
    if attempt.meant and isinstance(attempt.meant[0], str):
        return "words", f"step 1: {attempt.meant[0]}"
    if isinstance(attempt.acts, str):
        return "element", attempt.acts
    tried = max(len(became), 1)
    for i, meant in enumerate(attempt.meant[:tried]):
        if isinstance(meant, str):
            return "words", f"step {i + 1}: {meant}"
        if i >= len(attempt.acts):
            return "element", f"step {i + 1} was not done"
        if attempt.acts[i] != meant:
            return "element", f"step {i + 1}: {WRONG_ELEMENT}"
        if i < len(became) and became[i][0] != "done":
            return "page", f"step {i + 1}: {became[i][0]}, {became[i][1]}"
    if len(attempt.acts) > len(attempt.meant) and len(became) > len(attempt.meant):
        return "element", f"{len(attempt.acts)} acts where {len(attempt.meant)} were planned"
    return "", ""
