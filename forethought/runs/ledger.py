"""What a run writes down and tells: its metrics, its decisions, its checkpoints, its summary, and the events
that its observers see."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forethought.core.errors import Diverged
from forethought.core.parts import Parts
from forethought.core.types import Decision, DecisionKind, Event, EventKind
from forethought.engines.base import Engine
from forethought.measure.probes.monitor import Monitor
from forethought.recipe.convert import to_dict
from forethought.recipe.schema import Recipe, StageSpec
from forethought.recipe.speaking import roles_of
from forethought.runs import endings
from forethought.runs.endings import Observer
from forethought.runs.progress import Progress
from forethought.runs.trackers import Trackers
from forethought.store import Store


class Ledger:
    """Of one run, from `begin` on. It reads the progress and, but for the seconds, the probes' state and the
    machine, changes nothing in it."""

    trackers: Trackers  # open while the run goes on
    saved: Callable[[Path], None]  # hears of every checkpoint

    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        store: Store,
        monitor: Monitor,
        observe: Observer,
        parts: Parts,
    ):
        self.parts = parts
        self.recipe, self.engine, self.store, self.monitor, self.observe = (
            recipe,
            engine,
            store,
            monitor,
            observe,
        )

    def begin(self, progress: Progress) -> None:
        """The clock goes on from what the run has taken so far."""
        self.progress, self.clock = progress, time.perf_counter() - progress.seconds

    def seconds(self) -> float:
        """Of the run, those before it was resumed among them."""
        return time.perf_counter() - self.clock

    def log(self, line: dict[str, float], kind: EventKind, spec: StageSpec) -> None:
        """A line of metrics; `kind`: of the event, "step" or "eval"."""
        p = self.progress
        p.seconds = self.seconds()
        at = {
            "stage": p.stage,
            "stage_name": spec.title,
            "kind": spec.kind,
            "stage_step": p.stage_step,
            "seconds": round(p.seconds, 3),
        }
        line |= self.parts.taken()
        self.store.log(p.step, at | line)
        self.trackers.write(p.step, line)
        self.emit(kind, values=line, stage_steps=spec.steps)

    def save(self, interim: bool = False) -> None:
        """A checkpoint; `interim`: only because the run stops here. Diverged, with every earlier one as it
        was, where a weight is not a finite number: there is nothing to go on from."""
        p = self.progress
        if bad := self.engine.finite():
            raise Diverged(f"NaN or inf in {bad}")
        p.seconds, p.probes = self.seconds(), self.monitor.state_dict()
        state = {"progress": asdict(p), "chosen": dict(self.engine.chosen()), "recipe": to_dict(self.recipe)}
        with self.parts.part("saving"):
            folder = self.store.save(
                p.step, state, lambda folder: self.engine.save(folder / "engine"), interim
            )
            self.store.prune(self.recipe.save.keep, [p.anchor] if not p.finished else [])
        self.saved(folder)

    def decide(
        self,
        kind: DecisionKind,
        name: str,
        outcome: str,
        reason: str,
        numbers: Mapping[str, float] | None = None,
        told: bool = True,
    ) -> None:
        """A decision on record, and told; `told` False: the run ends with it, and says it then."""
        decision = Decision(
            step=self.progress.step,
            stage=min(self.progress.stage, len(self.recipe.stage) - 1),
            kind=kind,
            name=name,
            outcome=outcome,
            reason=reason,
            numbers=dict(numbers or {}),
        )
        self.store.decide(decision)
        said = reason if reason.startswith(f"{name}: ") else f"{name}: {reason}"
        if told:
            self.emit("decision", text=said, outcome=outcome, about=kind)

    def leave(self, asked: int | str) -> None:
        """Interrupted, by the signal of this number, or Asked, for the reason given; the caller has saved."""
        said = asked if isinstance(asked, str) else signal.Signals(asked).name
        self.decide("run", self.recipe.name, "interrupt", said)
        raise endings.left(self.store, self.progress.step, asked)

    def close(self, status: str) -> Path | None:
        """The run's summary and its page; None where there is no page."""
        return endings.close(self.store, self.summary(status), lambda text: self.emit("note", text=text))

    def summary(self, status: str) -> dict[str, object]:
        """What summary.json says of the run as it stands."""
        return endings.summary_of(
            self.recipe, self.progress, status, self.seconds(), endings.facts_of(self.engine)
        )

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """Send an event with the run's present position to the observers."""
        p, stages = self.progress, self.recipe.stage
        event = Event(
            kind=kind,
            roles=roles_of(self.recipe),
            step=p.step,
            stage=p.stage,
            stage_step=p.stage_step,
            steps=sum(s.steps for s in stages),
            stages=len(stages),
            **fields,
        )
        self.observe(event)
