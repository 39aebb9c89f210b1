"""The stages of a run in order: hand-over between them, probes, gates and what follows from them,
checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from forethought import __version__
from forethought.core.errors import Asked, CodeFault, Diverged, FaultStop, GateStop, Interrupted, UserError
from forethought.engines.base import Engine, UpdateRefused
from forethought.envs.guard import Fault
from forethought.envs.images import UNREAD
from forethought.measure.evaluate import evaluated
from forethought.measure.probes.monitor import Monitor
from forethought.recipe.kinds.distill import Distill
from forethought.recipe.roles import frozen_in
from forethought.recipe.schema import Recipe, StageSpec, TrainingSpec
from forethought.runs import endings, handover, idle
from forethought.runs.cold import ColdStart
from forethought.runs.endings import Observer
from forethought.runs.failures import Failures
from forethought.runs.interrupts import Interrupts, Wish
from forethought.runs.judging import AGAIN, Judge
from forethought.runs.ledger import Ledger
from forethought.runs.measuring import Measuring
from forethought.runs.probing import Probing
from forethought.runs.progress import Progress
from forethought.runs.recording import record_guided, record_lists, save_trees_of, step_line
from forethought.runs.silence import Silence
from forethought.runs.stages import stage_of
from forethought.runs.trackers import Trackers, makers
from forethought.stages.distill.records import Provenance
from forethought.stages.distill.stage import Load, Tools, account, guide
from forethought.stages.groups import pay_of
from forethought.stages.isolation.core import find_cores, fuse
from forethought.stages.outcome import Step
from forethought.stages.step import Stage
from forethought.store import Store
from forethought.workflows.rollout import Rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    out: Path
    status: str
    values: dict[str, float]
    exit_code: int


class Runner:
    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        rollouts: Rollouts,
        store: Store,
        observe: Observer,
        load: Load | None = None,
        wish: Wish | None = None,
    ):
        self.wish = wish or Wish()
        self.recipe, self.engine, self.rollouts, self.store, self.load = recipe, engine, rollouts, store, load
        levels = recipe.eval.levels or rollouts.taskset.levels
        self.cold = ColdStart() if recipe.model.path or not rollouts.taskset.spaced else None
        self.monitor = Monitor(rollouts, recipe.probes, levels, recipe.eval.seed)
        self.ledger = Ledger(recipe, engine, store, self.monitor, endings.outliving(observe), rollouts.parts)
        self.ledger.saved = self.wish.saved
        self.failures = Failures(rollouts.guard, recipe, store, self.ledger.decide)
        self.silence = Silence(self.ledger.decide)
        self.measuring = Measuring(recipe, rollouts, self.ledger, levels)
        self.probing = Probing(recipe, engine, self.ledger, self.monitor, self.measuring.measure)
        self.judge = Judge(recipe, engine, store, self.ledger, self.measuring.measure)

    def go(self, progress: Progress, how: str, notes: Sequence[str] = ()) -> Result:
        """`notes`: what was found where the run was left; each is told, and is a decision on record."""
        self.progress = progress
        self.ledger.begin(progress)
        self.measuring.begin()
        if progress.probes:
            self.monitor.load_state_dict(progress.probes)
        with (
            Trackers(makers(self.recipe.trackers), self.store.out, self.recipe) as self.ledger.trackers,
            Interrupts() as self.interrupts,
        ):
            self._told(how, notes)
            try:
                self._stages()
            except (Interrupted, Asked):
                self.ledger.close("interrupted")
                raise
            except Diverged as error:
                self.ledger.decide("guard", "finite", "stop", str(error))
                self.ledger.close("stopped")
                raise endings.diverged(self.store, self.recipe, progress, error) from error
            except CodeFault as error:
                stop = self.failures.of_code(progress, error, whole=False)
                self.ledger.close("stopped")
                raise stop from error
            except (GateStop, FaultStop, Fault, UserError):
                self.ledger.close("stopped")
                raise
            self.ledger.decide("run", self.recipe.name, "end", f"{progress.step} steps")
            page = self.ledger.close("done")
            said = [
                f"done in {progress.seconds:.0f} s",
                *endings.idle_stages(progress),
                *self.failures.told(),
                *([f"the report: {page}"] if page else []),
            ]
            self.ledger.emit("end", text="; ".join(said), values=self.measuring.values)
        return Result(out=self.store.out, status="done", values=self.measuring.values, exit_code=0)

    def _told(self, how: str, notes: Sequence[str]) -> None:
        """What a run says, and writes, before its first stage."""
        note, ledger = lambda text: self.ledger.emit("note", text=text), self.ledger
        ledger.emit("start", text=str(self.store.out))
        ledger.trackers.open(self.progress.step, note)
        for text in self.rollouts.notes():
            note(text)
        self.engine.listen(lambda *said: ledger.decide("guard", "memory", *said))
        ledger.decide("run", self.recipe.name, how, f"forethought {__version__}, seed {self.recipe.seed}")
        endings.keep_machine(self.progress, endings.facts_of(self.engine))
        for text in notes:
            ledger.decide("run", self.recipe.name, "note", text)
            note(text)
        record_lists(self.store)
        self.store.write_summary(ledger.summary("running"))

    def _stages(self) -> None:
        """Every stage that is left, one after the other."""
        p, stages = self.progress, self.recipe.stage
        for i, spec in enumerate(stages[: p.stage]):
            if isinstance(spec, Distill):  # what an earlier stage distilled is part of the task
                self._guided(i)
        while p.stage < len(stages):
            self._stage(stages[p.stage])
            p.stage, p.stage_step, p.begun = p.stage + 1, 0, False
            p.curriculum, p.credit = {}, {}
            if p.stage == len(stages):
                p.finished = True
                self.ledger.save()

    # ---- one stage

    def _stage(self, spec: StageSpec) -> None:
        """A stage until it ends; a gate can send it back to its start, to be run again in another way."""
        while self._attempt(handover.changed(spec, self.progress.changed)) == AGAIN:
            pass

    def _attempt(self, spec: StageSpec) -> str:
        p, self.judge.rolled_back = self.progress, False
        self.measuring.paying = stage = self._prepare(spec) if isinstance(spec, TrainingSpec) else None
        does = f"trains {', '.join(spec.roles)}" if stage is not None else "distils plans"
        known: dict[str, float] = {}
        if p.begun and p.evaluations:  # it is resumed: the evaluation at its start, and the newest
            first = evaluated(p.evaluations[0]["metrics"])
            begun = {name.replace("eval", "eval_start", 1): x for name, x in first.items()}
            known = self.measuring.values | begun
        self.ledger.emit("stage", text=f"{spec.title}: {does}", stage_steps=spec.steps, values=known)
        if not p.begun:
            self._begin(spec, stage)
        if stage is None or not isinstance(spec, TrainingSpec):
            return self._end(spec, self._distill())
        if p.unmeasured is not None and (ending := self._measure_again(spec)):
            return self._end(spec, ending)
        while p.stage_step < spec.steps:
            stage, ending = self._step(spec, stage)
            if ending:
                return self._end(spec, ending)
        return self._end(spec, f"its {spec.steps} steps are done")

    def _step(self, spec: TrainingSpec, stage: Stage) -> tuple[Stage, str]:
        """One step with all that follows from it: (the stage as it is after it, why it ends now or "")."""
        p, started = self.progress, time.perf_counter()
        result = self._guarded_step(stage)
        p.step, p.stage_step = p.step + 1, p.stage_step + 1
        line = step_line(p.records[-1], result, time.perf_counter() - started, idle.pays_success(spec))
        p.curriculum = stage.curriculum.state_dict()
        with self.rollouts.parts.part("probes"):
            line |= self.probing.probe(stage, result, line)
        stage = self._as_it_is(stage)
        last = p.stage_step == spec.steps
        measured = last or bool(self.recipe.eval.every and p.stage_step % self.recipe.eval.every == 0)
        if measured:
            line |= self.measuring.measure(line)
        self.ledger.log(line, "eval" if measured else "step", spec)
        due = bool(result.metrics) and p.step % self.recipe.save.every == 0
        self._tell_trouble(spec)
        if stop := self.failures.after(p, result.failed, result.tried, line if measured else None, last):
            save_trees_of(self.store, self.recipe.save, p, result, self.rollouts, last=True)
            self.ledger.save(interim=not due)
            raise stop
        if measured:
            self.probing.evaluation(stage)
            stage = self._as_it_is(stage)
        if save_trees_of(self.store, self.recipe.save, p, result, self.rollouts, last):
            self.ledger.trackers.sample(p.step, result.trees)
        self._tell_seen(result, stage)
        if measured and (ending := self.judge.evaluation(spec)):
            return stage, ending
        # The stage's last step is saved with the start of the next stage, or as the finished run. Weights
        # that a refused update has just called in question push no earlier ones out.
        asked = self.interrupts.caught or self.wish.why  # read once: the run saves before it leaves
        if not last and (asked or due):
            self.ledger.save(interim=not due)
        if not last and asked:
            self.ledger.leave(asked)
        return stage, ""

    def _tell_trouble(self, spec: TrainingSpec) -> None:
        """Judges that answer nothing, and a stage that has trained nothing so far."""
        record = self.progress.records[-1]
        self.silence.hear(record, getattr(spec, "functions", {}))
        if idle.early(record) and not idle.broken(record):  # what broke was told when it did
            self._tell_idle(spec)

    def _tell_seen(self, result: Step, stage: Stage) -> None:
        """What a step's rollouts show for the first time: turns that cannot be read, images."""
        if self.cold and (said := self.cold.hear(result.trees, stage.roles)):
            self.ledger.emit("note", text=said)
        if (images := self.rollouts.taskset.episodes.images).seen and not images.announced:
            images.announced = True
            self.ledger.emit("note", text=UNREAD)

    def _prepare(self, spec: TrainingSpec) -> Stage:
        """Policies for the stage's roles, fresh optimizers at its start (a resumed stage has loaded its
        own)."""
        p = self.progress
        if not p.begun:
            handover.take_up(
                self.engine, self.recipe, spec, p, lambda *said: self.ledger.decide("schedule", *said)
            )
        self.probing.begin(spec)
        return stage_of(self.recipe, p, self.engine, self.rollouts, self.store.out)

    def _as_it_is(self, stage: Stage) -> Stage:
        """The stage, built anew where a probe or an evaluation has changed who holds which weights."""
        if not self.probing.moved:
            return stage
        self.probing.moved = False
        return stage_of(self.recipe, self.progress, self.engine, self.rollouts, self.store.out)

    def _begin(self, spec: StageSpec, stage: Stage | None) -> None:
        """Measure the start (the last stage's end is the same model on the same tasks), and save it as the
        anchor."""
        p = self.progress
        carried = p.evaluations[-1] if p.evaluations and self._paid_alike(spec) else None
        p.evaluations = []
        if carried:
            line = evaluated(carried["metrics"])
            p.evaluations.append({"metrics": line, "scores": carried["scores"]})
        else:
            line = self.measuring.measure()
        if not p.attempts:
            p.records.append(
                {
                    "name": spec.title,
                    "kind": spec.kind,
                    "roles": list(spec.roles),
                    "steps": 0,
                    "seconds": 0.0,
                    "tokens_sampled": 0,
                    "tokens_trained": 0,
                    "trained_nothing": False,
                }
            )
        if stage is not None and isinstance(spec, TrainingSpec) and spec.isolation.core != "none":
            policy, frozen = stage.trained()[0], frozen_in(self.recipe, spec)
            start = p.references[policy]
            found = find_cores(self.engine, self.rollouts, spec, frozen, policy, start, stage.seed)
            p.records[-1]["tokens_trained"] += found.tokens
            line["tokens/trained"] = float(found.tokens)
            self.ledger.decide("schedule", "core", spec.isolation.core, found.reason, found.numbers)
        with self.rollouts.parts.part("probes"):
            line |= self.monitor.begin(p.step, p.policies, self.probing.references())
        p.evaluations[0]["metrics"] = dict(line)
        p.begun, p.anchor, p.adaptive = True, p.step, {}
        p.curriculum = stage.curriculum.state_dict() if stage is not None else {}
        self.ledger.log(line, "eval", spec)
        if stop := self.failures.after(p, measured=None if carried else line):
            raise stop
        self.ledger.save()

    def _paid_alike(self, spec: StageSpec) -> bool:
        """Whether the last evaluation, of the stage before or of an earlier attempt, measured what one of
        this stage does: where only functions of the stage say what is good, these may be others."""
        p = self.progress
        if p.attempts or (paying := self.measuring.paying) is None or pay_of(paying, 0) is None:
            return True
        before = self.recipe.stage[p.stage - 1]
        return all(getattr(before, key, None) == getattr(spec, key) for key in ("reward", "parts"))

    def _measure_again(self, spec: TrainingSpec) -> str:
        """The evaluation that failed when the run stopped, and what gates make of it."""
        p, line = self.progress, self.progress.unmeasured
        p.step += 1
        self.ledger.log(self.measuring.measure(line), "eval", spec)
        p.unmeasured = None
        if stop := self.failures.after(p, measured=line):
            self.ledger.save()
            raise stop
        return self.judge.evaluation(spec)

    def _distill(self) -> str:
        """Plans for the training problems, once; a resumed run reads what is there."""
        reason, numbers = account(self._guided(self.progress.stage))
        self.progress.records[-1]["distill"] = numbers
        self.ledger.decide("schedule", "distill", "data", reason, numbers)
        return f"{numbers['kept']:.0f} plans are there"

    def _guided(self, i: int) -> Provenance:
        """The data set of a stage that distils is there, and the task family knows it."""
        tools = Tools(
            rollouts=self.rollouts,
            policies=self.progress.policies,
            model=self.recipe.model.path,
            load=self.load,
        )
        folder = self.store.out / "guided" / f"stage-{i}"
        with self.interrupts.at_once(self.ledger.leave):
            spec = self.recipe.stage[i]
            assert isinstance(spec, Distill)
            found = guide(spec.distill, tools, folder, lambda text: self.ledger.emit("note", text=text))
        record_guided(self.store, folder)
        return found

    def _guarded_step(self, stage: Stage) -> Step:
        """A step whose update was refused moves nothing; too many of them stop the run. So does code of the
        user's that breaks in a step, which then has never been."""
        p = self.progress
        versions, remembered = self.engine.policies(), deepcopy(p.credit)
        try:
            with self.failures.saving(
                lambda: self.ledger.save(interim=True)
            ):  # a step calls the task family, and credit, before it moves any weights
                try:
                    return stage.step(p.stage_step, self.monitor.conflict_due(p.stage_step + 1))
                except CodeFault as e:
                    p.credit = remembered
                    raise self.failures.of_code(p, e, self.engine.policies() == versions) from e
        except UpdateRefused as e:
            p.bad_updates += 1
            self.ledger.decide(
                "guard", "finite", "refuse", f"update refused: {e}", {"refused": p.bad_updates}
            )
            if p.bad_updates < self.recipe.max_bad_updates:
                return Step({})
            raise Diverged(f"{p.bad_updates} updates were refused, the last because {e}") from e

    def _end(self, spec: StageSpec, why: str) -> str:
        """Close the stage, unless it is to be run once more. What core isolation does at the end is measured,
        and gates judge it."""
        p = self.progress
        if (
            why != AGAIN
            and not self.judge.rolled_back
            and isinstance(spec, TrainingSpec)
            and spec.isolation.core == "core"
            and (done := fuse(self.engine, spec, frozen_in(self.recipe, spec), p.policies[spec.roles[0]]))
        ):
            self.ledger.decide("schedule", "core", "fuse", done)
            p.step += 1
            self.ledger.log(self.measuring.measure(), "eval", spec)
            why = self.judge.gates(spec) or why
        if why == AGAIN:
            return why
        handover.lay_down(self.engine, p)
        record = p.records[-1]
        told = idle.early(record) and not idle.broken(record)  # just now
        if record.get("trained_nothing") and not told:
            self._tell_idle(spec)
        p.records[-1] |= {"ended": why}
        p.attempts, p.changed, p.adaptive = 0, {}, {}
        self.ledger.decide("schedule", spec.title, "advance", why)
        return why

    def _tell_idle(self, spec: StageSpec) -> None:
        record, levels = self.progress.records[-1], len(self.rollouts.taskset.levels)
        said = f"{spec.title} {idle.why(record, f'stage.{self.progress.stage}', levels)}"
        numbers = {"steps": record["steps"], **record.get("left_out", {})}
        self.ledger.decide("guard", "gradient", "trained nothing", said, numbers)
