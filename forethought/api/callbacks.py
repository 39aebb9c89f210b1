"""Who watches a run from Python: called at named moments, free to stop the run, and never able to lose it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from forethought.core.errors import UserError, unknown
from forethought.core.types import Event
from forethought.runs.interrupts import Wish

Kind = Literal["step", "evaluation", "gate", "checkpoint", "end"]
MOMENTS: tuple[Kind, ...] = ("step", "evaluation", "gate", "checkpoint", "end")
HERE = str(Path(__file__).parent)


class CallbackError(UserError):
    """A callback raised. `__cause__` is what it raised; the run has saved and can be resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a run stands when a callback is called."""

    kind: Kind
    run: Path  # its directory; everything before this moment is written there
    step: int  # finished steps of the whole run
    steps: int  # of the whole run, if no stage ends early
    stage: int  # index
    stage_step: int
    # step, evaluation: the line of metrics.jsonl; end: the newest evaluation
    values: Mapping[str, float] = field(default_factory=dict)
    outcome: str = ""  # gate: pass, vacuous (it could not fail), stop or roll_back
    reason: str = ""  # gate: the metric and its numbers, in a sentence
    checkpoint: Path | None = None  # checkpoint: its folder
    status: str = ""  # end: done, stopped (a gate, a fault) or interrupted
    wish: Wish = field(default_factory=Wish, repr=False)

    def stop(self, why: str = "") -> None:
        """End the run after this step: it saves, and can be resumed. `why` goes on record."""
        self.wish.ask(why or "a callback asked for it")


class Callback:
    """Derive from it and write the moments you want; any object with methods of these names will do, and a
    plain function is called at every step."""

    def on_step(self, moment: Moment) -> None:
        """A training step is done and written."""

    def on_evaluation(self, moment: Moment) -> None:
        """Held-out tasks were measured: at a stage's start, every `eval.every` steps, at its end."""

    def on_gate(self, moment: Moment) -> None:
        """A gate has decided."""

    def on_checkpoint(self, moment: Moment) -> None:
        """A checkpoint is written."""

    def on_end(self, moment: Moment) -> None:
        """The run has ended, however it ended."""


AnyCallback = Callback | Callable[[Moment], object]


class Watching:
    """An observer of a run that calls callbacks. What one raises ends the run after its step, with everything
    saved; the callbacks are not called again."""

    def __init__(self, callbacks: Sequence[AnyCallback], run: Path, wish: Wish):
        self.run, self.wish = run, wish
        self.calls = [(name, _calls(one)) for one in callbacks for name in [_name(one)]]
        wish.saved = self.saved
        self.fault: BaseException | None = None
        self.said = ""  # the fault in a clause
        self.last: Event | None = None

    def __call__(self, event: Event) -> None:
        self.last = event
        for kind in _kinds(event):
            self.call(kind, event)

    def saved(self, folder: Path) -> None:
        """A checkpoint is written."""
        self.call("checkpoint", replace(self.last or Event(kind="note"), text=str(folder), values={}))

    def call(self, kind: Kind, event: Event, status: str = "") -> None:
        """Call the method of this moment of every callback, until one raises."""
        moment = Moment(
            kind=kind,
            run=self.run,
            step=event.step,
            steps=event.steps,
            stage=event.stage,
            stage_step=event.stage_step,
            values=event.values,
            outcome=event.outcome if kind == "gate" else "",
            reason=event.text if kind == "gate" else "",
            checkpoint=Path(event.text) if kind == "checkpoint" else None,
            status=status,
            wish=self.wish,
        )
        for name, methods in self.calls:
            if self.fault is not None or kind not in methods:
                continue
            try:
                methods[kind](moment)
            except (Exception, SystemExit) as error:
                self.fault = error
                self.said = f"{name}.on_{kind} raised {_told(error)} at step {event.step}"
                self.wish.ask(self.said)

    def end(self, status: str, values: Mapping[str, float]) -> None:
        """The run has ended."""
        at = self.last or Event(kind="end")
        self.call(
            "end", Event(kind="end", step=at.step, steps=at.steps, stage=at.stage, values=values), status
        )


def _kinds(event: Event) -> list[Kind]:
    if event.kind == "decision":
        return ["gate"] if event.about == "gate" else []
    found: list[Kind] = []
    if event.kind in ("step", "eval") and "seconds/step" in event.values:  # also of a step that was measured
        found.append("step")
    if event.kind == "eval":
        found.append("evaluation")
    return found


def _calls(one: AnyCallback) -> dict[Kind, Callable[[Moment], object]]:
    """Moment -> method. UserError for what has none, or one that no run calls."""
    wrong = [name for name in dir(one) if name.startswith("on_") and name[3:] not in MOMENTS]
    if wrong:
        raise UserError(f"callbacks: {_name(one)} has {unknown('moment', wrong[0][3:], MOMENTS)}")
    found: dict[Kind, Callable[[Moment], object]] = {
        kind: getattr(one, f"on_{kind}") for kind in MOMENTS if callable(getattr(one, f"on_{kind}", None))
    }
    if isinstance(one, type):
        raise UserError(f"callbacks: {_name(one)} is a class; give an object of it: {_name(one)}()")
    if not found and callable(one):
        found = {"step": one}
    if not found:
        raise UserError(
            f"callbacks: {_name(one)} has no method on_{', on_'.join(MOMENTS)}, and is no function"
        )
    if slow := [kind for kind, call in found.items() if inspect.iscoroutinefunction(call)]:
        raise UserError(f"callbacks: on_{slow[0]} of {_name(one)} is async; a run calls plain functions")
    return found


def _name(one: object) -> str:
    return str(getattr(one, "__name__", None) or type(one).__name__)


def _told(error: BaseException) -> str:
    """What it is, and the file and line of the callback that raised it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(HERE)
    ]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    message = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}{f': {message}' if message else ''}{place}"
