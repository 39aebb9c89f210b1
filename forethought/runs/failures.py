"""What broke in a run, beside the numbers that leave it out: told once a kind, kept with its traceback, and
the end of a run in which too much of it breaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from forethought.core.errors import CodeFault, FaultStop
from forethought.envs.guard import Guard
from forethought.measure.evaluate import failures
from forethought.recipe.schema import Recipe
from forethought.runs import rundata
from forethought.runs.progress import Progress
from forethought.store import Store

# in the run directory: every kind of fault of this process, with the first one's traceback
FILE = "faults.json"


class Failures:
    """Reads the guard of the run's task family. `decide(kind, name, outcome, reason, numbers)` records what a
    reader should know."""

    def __init__(self, guard: Guard, recipe: Recipe, store: Store, decide: Callable[..., None]):
        self.guard, self.limits, self.store, self.decide = guard, recipe.limits, store, decide
        self.way_on = rundata.way_on(store.out, recipe)
        self.written = 0
        self.save: Callable[[], None] | None = None
        guard.watchdog.last_resort = self._end

    def after(
        self,
        p: Progress,
        failed: int = 0,
        tried: int = 0,
        measured: dict[str, float] | None = None,
        last: bool = False,
    ) -> FaultStop | None:
        """After a step, in which `failed` of `tried` trajectories failed: the error that ends the run, or
        None. `measured`: the line of a step that was evaluated; where it ends the run, the evaluation is
        taken back, and made again on resume. `last`: of the stage; one that is shorter than the window, and
        in which everything failed, is taken back as a whole, and begun anew on resume."""
        self._tell(p)
        if tried:
            p.failures = [*p.failures, [failed, tried]][-self.limits.window :]
        why = self.guard.gone() or self._share(p)
        nothing = "" if why or not last else self._nothing(p)
        self.guard.fresh()
        if not why and measured is not None:
            lost, tasks = failures(p.evaluations[-1]["scores"])
            unplayed = int(measured.get("eval_unplayed", 0))  # they have no score, and did not fail
            lost, tasks = lost - unplayed, tasks - unplayed
            if lost > self.limits.max_failed * tasks:
                why = (
                    f"{lost} of {tasks} tasks of the evaluation failed (limits.max_failed = "
                    f"{self.limits.max_failed:g})"
                )
        why = nothing or why
        if not why:
            return None
        if measured is not None:
            p.evaluations.pop()
        if nothing:
            p.stage_step = 0
        elif measured is not None:
            p.unmeasured = {name: value for name, value in measured.items() if not name.startswith("eval")}
        p.failures = []  # a resumed run begins to count anew
        return self._stop(p, why)

    def of_code(self, p: Progress, error: CodeFault, whole: bool) -> FaultStop:
        """The error that ends the run where code of the user's broke. What is not saved yet is saved first,
        where the run is `whole`: no checkpoint is of the middle of a step."""
        if self.save and whole and p.step not in self.store.steps():
            self.save()
        said = f"{error.key if error.key == 'workflow' else f'stage.{p.stage}.{error.key}'}: {error}"
        self.decide("guard", "failures", "stop", said, told=False)
        steps = self.store.steps()
        kept = _kept(p) if not steps or p.step in steps else f"it goes on from step {max(steps)}"
        return FaultStop(
            f"stopped at step {p.step}: {said}; {kept}. Mend it, then continue with: {self.way_on}"
        )

    def told(self) -> list[str]:
        """A clause for the end of a run in which something broke and was left out."""
        n = self.guard.total
        return [f"{n:,} calls of foreign code broke and were left out ({FILE})"] if n else []

    @contextmanager
    def saving(self, save: Callable[[], None]) -> Iterator[None]:
        """Inside, the run's state is one that a checkpoint may keep, whenever a call of the task family has
        to be given up."""
        self.save = save
        try:
            yield
        finally:
            self.save = None

    def _share(self, p: Progress) -> str:
        """Why too many trajectories have failed: more than the window may have, even if all that is still to
        come in it went well."""
        lost, most = sum(f for f, _ in p.failures), max((t for _, t in p.failures), default=0)
        if lost <= self.limits.max_failed * self.limits.window * most:
            return ""
        n, tried = len(p.failures), sum(t for _, t in p.failures)
        return (
            f"{lost} of {tried} trajectories of the last {f'{n} steps' if n > 1 else 'step'} failed "
            f"(limits.max_failed = {self.limits.max_failed:g} of {self.limits.window} steps)"
        )

    def _nothing(self, p: Progress) -> str:
        """Why a stage that is over has come to nothing: each trajectory of each of its steps has failed. A
        longer one has ended at its window."""
        steps = p.failures[-p.stage_step :]
        if self.limits.max_failed == 1 or len(steps) < p.stage_step or any(f < t for f, t in steps):
            return ""
        n, tried = len(steps), sum(t for _, t in steps)
        return (
            f"all {tried} trajectories of stage {p.stage + 1} ({n} step{'s' if n > 1 else ''}) failed, so it "
            f"trained nothing, and begins anew when the run goes on (limits.max_failed = "
            f"{self.limits.max_failed:g})"
        )

    def _stop(self, p: Progress, why: str) -> FaultStop:
        worst, times = self.guard.worst(), self.guard.total
        self.decide("guard", "failures", "stop", f"{why}; the most frequent: {worst}", told=False)
        often = "" if times == 1 else f" ({times:,} calls broke in all)"
        return FaultStop(
            f"stopped at step {p.step}: {why}. The most frequent: {worst}{often}. Tracebacks are in "
            f"{self.store.out / FILE}; {_kept(p)}. Mend it, then continue with: {self.way_on}"
        )

    def _tell(self, p: Progress) -> None:
        if self.guard.total == self.written:
            return
        self.written = self.guard.total
        for kind in self.guard.kinds.values():
            if (key := f"{kind.boundary} {kind.kind} {kind.place or kind.first}") not in p.faults:
                p.faults.append(key)
                self.decide(
                    "guard",
                    kind.boundary,
                    "failed",
                    f"{kind.first}; what it belongs to is not counted",
                    {"count": kind.count},
                )
        self.store.write_json(FILE, {"faults": self.guard.records()})

    def _end(self) -> None:
        """The last resort, on top of a call that swallows every attempt to end it: there is no way back to
        the run from here."""
        try:
            print(
                "forethought: a call of the task family, or of the recipe's own code, does not end, whatever "
                f"it is told (see limits){'; everything is saved' if self.save else ''}; mend it, then "
                f"continue with: {self.way_on}",
                file=sys.stderr,
                flush=True,
            )
            if self.save:
                self.save()
        finally:
            os._exit(FaultStop.exit_code)


def _kept(p: Progress) -> str:
    return "everything is saved" if p.step else "nothing was trained yet"
