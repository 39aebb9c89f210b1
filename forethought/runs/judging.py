"""What gates and `until` make of the newest evaluation: a stage goes on, ends, is rolled back, or stops the
run."""

from __future__ import annotations

from collections.abc import Callable

from forethought.core.errors import GateStop
from forethought.engines.base import Engine
from forethought.learn.schedule import reached
from forethought.measure import gates
from forethought.measure.gates import Evaluation
from forethought.measure.looks import planned
from forethought.recipe.schema import GateSpec, Recipe, TrainingSpec
from forethought.runs import handover
from forethought.runs.ledger import Ledger
from forethought.runs.progress import Progress
from forethought.store import Store

AGAIN = "again"  # what an attempt at a stage ends with when the stage is to be run once more


class Judge:
    """Of one run. `measure` evaluates the policies as they stand; `rolled_back`: whether a gate has sent the
    running attempt back to its start."""

    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        store: Store,
        ledger: Ledger,
        measure: Callable[[], dict[str, float]],
    ):
        self.recipe, self.engine, self.store = recipe, engine, store
        self.ledger, self.measure = ledger, measure
        self.rolled_back = False

    def evaluation(self, spec: TrainingSpec) -> str:
        """Why the stage ends now (AGAIN: to be run once more), or "". GateStop ends the run."""
        p = self.ledger.progress
        if why := self.gates(spec):
            return why
        why = reached(spec.until, [e["metrics"] for e in p.evaluations])
        return why if p.stage_step < spec.steps else ""

    def gates(self, spec: TrainingSpec) -> str:
        """As `evaluation`, of the stage's gates alone."""
        p = self.ledger.progress
        history, looks = [Evaluation(**e) for e in p.evaluations], planned(self.recipe, spec)
        for i, gate in enumerate(spec.gates):
            judged = gates.judge(gate, history, looks)
            outcome = judged.outcome if judged.passed else gate.on_fail
            self.ledger.decide("gate", gate.metric, outcome, judged.reason, judged.numbers)
            if outcome == "stop":
                self.ledger.save()
                raise GateStop(
                    f"gate {i} of stage {p.stage} stopped the run: {judged.reason}; everything is "
                    f"kept in {self.store.out}"
                )
            if outcome == "roll_back":
                self._roll_back(spec)
                return self._after_roll_back(gate, i, judged.reason)
        return ""

    def _roll_back(self, spec: TrainingSpec) -> None:
        """Weights, optimizers and curriculum are those of the stage's start again; the start is measured anew
        to show it."""
        p = self.ledger.progress
        folder, state = self.store.state(p.anchor)
        self.engine.load(folder / "engine")
        start = Progress.read(state["progress"])
        p.curriculum, p.adaptive, p.references = start.curriculum, start.adaptive, start.references
        p.policies.clear()
        p.policies.update(start.policies)
        p.adapters, p.found = start.adapters, start.found
        p.step, self.rolled_back = p.step + 1, True
        self.ledger.log({**self.measure(), "rolled_back_to": p.anchor}, "eval", spec)

    def _after_roll_back(self, gate: GateSpec, i: int, reason: str) -> str:
        """What the gate's `then` asks for: AGAIN, or why the stage ends. GateStop ends the run."""
        p = self.ledger.progress
        if gate.then == "stop":
            p.stage_step, p.begun = 0, False  # a resumed run begins the stage anew
            self.ledger.save()
            raise GateStop(
                f"gate {i} of stage {p.stage} rolled its stage back and stopped the run: {reason}; "
                f"everything is kept in {self.store.out}"
            )
        if gate.then == "skip" or p.attempts >= gate.retries:
            tried = (
                f", and {gate.retries} more {'time was' if gate.retries == 1 else 'times were'} allowed"
                if gate.then != "skip"
                else ""
            )
            return f"a gate rolled it back ({gate.metric}){tried}"
        p.attempts += 1
        spec = trained(self.recipe.stage[p.stage])
        p.changed, how = handover.once_more(gate, spec, p.changed)
        self.ledger.decide("schedule", spec.title, "retry", f"once more, {how}")
        p.records[-1]["attempts"] = p.attempts + 1
        p.stage_step, p.begun = 0, False
        return AGAIN


def trained(spec: object) -> TrainingSpec:
    """The record of a stage that trains."""
    assert isinstance(spec, TrainingSpec)
    return spec
