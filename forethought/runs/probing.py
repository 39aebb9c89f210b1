"""The probes of a run, and what adaptive isolation makes of them and of its evaluations: who holds which
weights may change."""

from __future__ import annotations

from collections.abc import Callable

from forethought.engines.base import Engine
from forethought.measure.probes.monitor import Monitor
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.runs import handover
from forethought.runs.ledger import Ledger
from forethought.stages.isolation.adaptive import Controller, Move, read_probe
from forethought.stages.outcome import Step
from forethought.stages.step import Stage


class Probing:
    """Of one run. `moved`: since it was last set to False, a role has got other weights, so the stage has to
    be built anew."""

    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        ledger: Ledger,
        monitor: Monitor,
        measure: Callable[[], dict[str, float]],
    ):
        self.recipe, self.engine, self.ledger = recipe, engine, ledger
        self.monitor, self.measure = monitor, measure
        self.moved = False

    def begin(self, spec: TrainingSpec) -> None:
        """A stage begins, or goes on with what its controller has seen."""
        p = self.ledger.progress
        self.controller = Controller(spec.adaptive)
        if p.begun and p.adaptive:
            self.controller.load_state_dict(p.adaptive)

    def references(self) -> dict[str, dict[str, str]]:
        """What probes compare policies with: name -> policy -> the frozen copy of it."""
        p, probes = self.ledger.progress, self.recipe.probes
        return {
            **({"start": p.references} if probes.kl_start else {}),
            **({"base": p.found} if p.found else {}),
        }

    def probe(self, stage: Stage, result: Step, line: dict[str, float]) -> dict[str, float]:
        """The probes that are due; where isolation is adaptive, it reads them and may change who holds which
        weights."""
        p, monitor = self.ledger.progress, self.monitor
        monitor.seconds += line.get("seconds_probe/conflict", 0.0)
        found, spent = (
            monitor.after(p.step, p.stage_step, result.trees, p.policies, self.references(), line),
            monitor.seconds,
        )
        if "conflict/all" in line:
            self.controller.hear(line["conflict/all"])
        if stage.spec.adaptive.to != "off" and monitor.due(p.stage_step):
            apart = self.controller.apart
            if move := read_probe(self.controller, stage, monitor):
                self._follow(stage, move, bool(apart))
        p.adaptive = self.controller.state_dict()
        found |= {"seconds_probe/asked": monitor.seconds - spent} if monitor.seconds > spent else {}
        return found | {"seconds_probe/share": monitor.seconds / max(self.ledger.seconds(), 1e-9)}

    def _follow(self, stage: Stage, move: Move, apart: bool = False) -> None:
        """Do what the controller decided, and record why; `apart`: whether a role was isolated before."""
        p = self.ledger.progress
        if move.outcome == "isolate":
            done = f"; {handover.isolate(self.engine, stage, p, move, stage.spec.optim)}"
        else:
            done = f"; {handover.rejoin(stage, p, move.role)}" if apart else ""
        self.moved = True
        self.ledger.decide("schedule", "isolation", move.outcome, move.reason + done, move.numbers)
        p.adaptive = self.controller.state_dict()

    def evaluation(self, stage: Stage) -> None:
        """An evaluation sees what the probe's few tasks may miss: the controller reads it too. What it leads
        to is measured again."""
        p, spec, controller = self.ledger.progress, stage.spec, self.controller
        roles = [r for r in stage.sharing() if f"eval/{r}" in p.evaluations[-1]["scores"]]
        if spec.adaptive.to == "off" or controller.apart or not roles:
            return
        start, now = (
            {r: e["scores"][f"eval/{r}"] for r in roles} for e in (p.evaluations[0], p.evaluations[-1])
        )
        if move := controller.read(roles, start, now, training=not stage.others()):
            self._follow(stage, move)
            if move.outcome == "isolate":
                p.step += 1
                self.ledger.log(self.measure(), "eval", spec)
