"""Plain lines for pipes and logs: no colour, no carriage return, one event per line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import IO

from forethought.core.types import Event
from forethought.display.observer import Observer
from forethought.display.pace import clock_text
from forethought.display.seen import Seen, evaluation, step_cells

LONG = 20.0  # seconds


class Lines(Observer):
    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic):
        self.stream, self.clock = stream, clock
        self.seen = Seen()
        self.heard = 0.0  # when it was last told what takes its time
        self.told: tuple[float, int] | None = None  # time and step of the last step line

    def see(self, event: Event) -> None:
        """Print the event, at most one step every 5 seconds or 25 steps so that logs stay short."""
        now = self.clock()
        self.seen.see(event, now)
        if event.kind == "busy" and not self._is_news(event, now):
            return
        if event.kind == "step":
            if self.told and now - self.told[0] < 5 and event.step - self.told[1] < 25:
                return
            self.told = (now, event.step)
        if event.kind == "eval" and event.stage_step == event.stage_steps and self._untold(event):
            self._write(replace(event, kind="step"))  # the last step of a stage is told too
        if event.kind == "stage":
            self.told = None  # the first step of every stage is told: it shows that the stage works
        self._write(event)

    def _is_news(self, event: Event, now: float) -> bool:
        """Not what is over in a moment, as it was the last time; how far it is, once in so many seconds."""
        if event.values:
            late = now - self.heard >= LONG
            self.heard = now if late else self.heard
            return late
        self.heard = now
        return self.seen.took.get(event.text, LONG) >= LONG

    def _untold(self, event: Event) -> bool:
        return "seconds/step" in event.values and (self.told is None or self.told[1] != event.step)

    def _write(self, event: Event) -> None:
        self.stream.write(" ".join(line(event, self.seen).split()) + "\n")
        self.stream.flush()


def line(event: Event, seen: Seen) -> str:
    """One event as one line, without colour; `seen` gives totals, roles and rates."""
    stage = f"stage {event.stage + 1}/{event.stages}"
    if event.kind == "start":
        return f"start {event.text}: stages {event.stages}, steps {event.steps}"
    if event.kind == "stage":
        return f"{stage} {event.text}: steps {event.stage_steps}"
    if event.kind == "step":
        left = seen.left()
        ahead = [f"about {clock_text(left)} left"] if left is not None and left >= 1 else []
        parts = step_cells(event.values) + seen.rates() + ahead
        return (
            f"step {event.step}/{seen.total()} {stage} {event.stage_step}/{event.stage_steps} "
            f"{' '.join(parts)}"
        )
    if event.kind == "eval":
        overall, by_level = evaluation(event.values, seen.roles)
        cells = [f"{name} {value:.3f}" for name, value in overall.items()]
        cells += _levels(by_level)
        cells += [
            f"{name.removeprefix('eval_')} {n:.0f}"
            for name, n in event.values.items()
            if name.startswith("eval_failed/")
        ]
        return f"eval step {event.step} {' '.join(cells)}"
    if event.kind == "decision":
        # a name may be the outcome too: core
        return f"decision {event.outcome}: {event.text.removeprefix(f'{event.outcome}: ')}"
    if event.kind == "busy" and event.values:
        return seen.doing()
    if event.kind == "busy":
        last = seen.took.get(event.text)
        return event.text + (f" (the last time {clock_text(last)})" if last else "")
    return f"{event.kind}: {event.text}"


def _levels(by_level: Mapping[str, Mapping[int, float]]) -> list[str]:
    """ "levels 1,2: plan 0.94 0.70 act 1.00 0.98": levels once for all that were measured on them; nothing
    where there is one level alone."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, levels in by_level.items():
        values = " ".join(f"{value:.2f}" for value in levels.values())
        groups.setdefault(tuple(levels), []).append(f"{name} {values}")
    if len({level for levels in groups for level in levels}) < 2:
        return []
    return [f"levels {','.join(map(str, levels))}: {' '.join(said)}" for levels, said in groups.items()]
