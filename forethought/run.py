"""A run: stages in order, hand-over between them, gates, checkpoints, resume. The one place that builds things from a recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from forethought import __version__, gates, report, tasks
from forethought.curriculum import LevelSampler
from forethought.engines.base import BASE, Engine, UpdateRefused
from forethought.errors import GateStop, Interrupted, RecipeError, UserError
from forethought.evaluate import changes, evaluate, held_out
from forethought.gates import Evaluation
from forethought.interrupts import Interrupts
from forethought.metrics import reduce
from forethought.recipe.check import check
from forethought.recipe.layout import weights_of
from forethought.recipe.load import load as load_recipe
from forethought.recipe.load import write_resolved
from forethought.recipe.schema import Recipe, StageSpec
from forethought.rollout import Rollouts, seed_of
from forethought.schedule import reached
from forethought.stage import Stage, Step
from forethought.store import Store
from forethought.tasks.base import Domain
from forethought.trackers import EventFiles
from forethought.types import Decision, Event

Observer = Callable[[Event], None]
EngineOf = Callable[[Recipe, Domain], Engine]


@dataclass(slots=True)
class Progress:
    """Where a run stands: all that a checkpoint keeps beside the engine's files."""

    step: int = 0  # finished steps of the run; never goes back
    stage: int = 0
    stage_step: int = 0  # finished steps of the stage
    begun: bool = False  # whether the stage's start has been measured and saved
    anchor: int = 0  # checkpoint of the stage's start, which a gate rolls back to
    seconds: float = 0.0
    bad_updates: int = 0
    policies: dict[str, str] = field(default_factory=lambda: {"plan": BASE, "act": BASE})
    evaluations: list[dict] = field(default_factory=list)  # of this stage, its start first
    curriculum: dict = field(default_factory=dict)
    records: list[dict] = field(default_factory=list)  # one per begun stage, for the summary
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    out: Path
    status: str
    values: dict[str, float]
    exit_code: int


def torch_engine(recipe: Recipe, domain: Domain) -> Engine:
    """The embedded engine, with the recipe's model; a small one from scratch knows the domain's words and length."""
    from forethought.engines.torch.engine import TorchEngine
    from forethought.engines.torch.loading import load

    return TorchEngine(load(recipe.model, domain.vocabulary(), _context(domain), recipe.seed), recipe.engine, recipe.adapter)


def build(recipe: Recipe, engine_of: EngineOf = torch_engine) -> tuple[Engine, Rollouts]:
    """Engine and rollouts for a recipe; everything that can be refused is refused before a model is loaded."""
    check(recipe)
    domain = tasks.build(recipe.task)
    for where, levels in [("eval.levels", recipe.eval.levels)] + [(f"stage.{i}.levels", s.levels) for i, s in enumerate(recipe.stage)]:
        if wrong := [level for level in levels if level not in domain.levels]:
            raise RecipeError(where, f"{domain.name} has no level {wrong[0]} here; its levels are {list(domain.levels)}")
    check(replace(recipe, task=replace(recipe.task, levels=tuple(domain.levels))))  # again where the recipe left the levels open
    engine = engine_of(recipe, domain)
    engine.check_words(domain.vocabulary(), list(domain.stops.values()))
    rollouts = Rollouts(engine, domain)
    rollouts.check_room()
    return engine, rollouts


def _context(domain) -> int:
    """Words that the longest episode can take, with as much again to spare, in steps of 64 (sizes a model from scratch)."""
    import random

    rng, longest = random.Random(0), 0
    for _ in range(32):
        task = domain.family(rng, [max(domain.levels)], "train")[0]
        shown = [t.text for t in domain.demonstrate(task)]
        longest = max(longest, sum(len(t.split()) for t in [task.context, task.prompt, *shown]))
    return -(-2 * (longest + domain.budgets["plan"] + domain.turns * domain.budgets["act"]) // 64) * 64


def train(recipe: Recipe, out: Path, observe: Observer, engine_of: EngineOf = torch_engine) -> Result:
    """Run a recipe into a new directory. Raises UserError, GateStop or Interrupted; what was saved stays."""
    engine, rollouts = build(recipe, engine_of)
    store = Store.create(out)
    write_resolved(recipe, out / "recipe.json")
    return Runner(recipe, engine, rollouts, store, observe).go(Progress(), "start")


def resume(out: Path, observe: Observer, engine_of: EngineOf = torch_engine) -> Result:
    """Continue a run from its newest checkpoint, cutting its logs back to it."""
    store = Store.open(out)
    recipe = load_recipe(out / "recipe.json")
    store.mend()
    latest = store.latest()
    if latest and latest[1]["progress"]["finished"] and store.read_json("summary.json").get("status") == "done":
        raise UserError(f"{out} is finished; there is nothing to resume")
    # Sums depend on the number of threads in their last bits: a resumed run keeps the number that the run began with.
    threads = store.read_json("summary.json").get("machine", {}).get("threads", recipe.engine.threads)
    engine, rollouts = build(replace(recipe, engine=replace(recipe.engine, threads=threads)), engine_of)
    progress = Progress()
    if latest:
        folder, state = latest
        store.cut_back(state)
        engine.load(folder / "engine")
        progress = Progress(**state["progress"])
    else:  # stopped before the first checkpoint: from the beginning
        store.cut_back({"logs": {"metrics.jsonl": 0, "decisions.jsonl": 0}, "step": -1})
    return Runner(recipe, engine, rollouts, store, observe).go(progress, "resume" if latest else "start")


class Runner:
    def __init__(self, recipe: Recipe, engine: Engine, rollouts: Rollouts, store: Store, observe: Observer):
        self.recipe, self.engine, self.rollouts, self.store, self.observe = recipe, engine, rollouts, store, observe
        levels = recipe.eval.levels or rollouts.domain.levels
        self.held_out = held_out(rollouts.domain, recipe.eval, levels)

    def go(self, progress: Progress, how: str) -> Result:
        self.progress = progress
        self.values = _evaluated(progress.evaluations[-1]["metrics"]) if progress.evaluations else {}
        self.clock = time.perf_counter() - progress.seconds
        with EventFiles(self.store.out / "tensorboard", progress.step) as self.events, Interrupts() as self.interrupts:
            self.emit("start", text=str(self.store.out))
            self._decide("run", self.recipe.name, how, f"forethought {__version__}, seed {self.recipe.seed}")
            self._summary("running")
            try:
                while progress.stage < len(self.recipe.stage):
                    self._stage(self.recipe.stage[progress.stage])
                    progress.stage, progress.stage_step, progress.begun = progress.stage + 1, 0, False
                    progress.curriculum = {}
                    if progress.stage < len(self.recipe.stage):
                        continue
                    progress.finished = True
                    self._save()
            except Interrupted:
                self._close("interrupted")
                raise
            except GateStop:
                self._close("stopped")
                raise
            self._decide("run", self.recipe.name, "end", f"{progress.step} steps")
            page = self._close("done")
            self.emit("end", text=f"done in {progress.seconds:.0f} s; the report: {page}", values=self.values)
        return Result(out=self.store.out, status="done", values=self.values, exit_code=0)

    # ---- one stage

    def _stage(self, spec: StageSpec) -> None:
        p = self.progress
        stage = self._prepare(spec)
        self.emit("stage", text=f"{spec.name or spec.kind}: trains {', '.join(spec.roles)}", stage_steps=spec.until.steps)
        if not p.begun:
            self._begin(stage)
        while p.stage_step < spec.until.steps:
            started = time.perf_counter()
            result = self._guarded_step(stage)
            p.step, p.stage_step = p.step + 1, p.stage_step + 1
            line = self._line(spec, result, time.perf_counter() - started)
            last = p.stage_step == spec.until.steps
            measured = last or bool(self.recipe.eval.every and p.stage_step % self.recipe.eval.every == 0)
            if measured:
                line |= self._measure(line)
            self._log(line, "eval" if measured else "step", spec)
            self._save_trees(spec, result, last)
            p.curriculum = stage.curriculum.state_dict()
            if measured and (ending := self._judge(spec)):
                self._end(spec, ending)
                return
            # The stage's last step is saved with the start of the next stage, or as the finished run.
            asked = self.interrupts.caught  # read once: who leaves has saved
            if not last and (asked or p.step % self.recipe.save.every == 0):
                self._save()
            if not last and asked:
                self._leave(asked)
        self._end(spec, f"its {spec.until.steps} steps are done")

    def _prepare(self, spec: StageSpec) -> Stage:
        """Policies for the stage's roles, fresh optimizers at its start (a resumed stage has loaded its own)."""
        p, name = self.progress, spec.name or spec.kind
        own = weights_of(self.recipe, spec) == "adapter"
        for role in spec.roles if own and not p.begun else ():
            if p.policies[role] == BASE:
                self.engine.fork(BASE, role)
                p.policies[role] = role
                self._decide("schedule", name, "fork", f"{role} speaks through its own adapter from here on")
        sampler = LevelSampler(spec.levels or self.rollouts.domain.levels, spec.level_weights, spec.easy_levels,
                               round(spec.easy_first * spec.until.steps))
        stage = Stage(self.engine, self.rollouts, spec, p.policies, sampler, seed_of(self.recipe.seed, p.stage),
                      {policy: f"{policy}-at-stage-{p.stage}" for policy in {p.policies[r] for r in spec.roles}} if spec.ref_kl else {})
        if p.begun:
            sampler.load_state_dict(p.curriculum)
            return stage
        for policy in stage.trained():
            self.engine.prepare(policy, spec.optim)
        for policy, reference in stage.references.items():
            self.engine.fork(policy, reference, frozen=True)
        return stage

    def _begin(self, stage: Stage) -> None:
        """Measure the start (the last stage's end is the same model on the same tasks), and save it as the anchor."""
        p, spec = self.progress, stage.spec
        carried = p.evaluations[-1] if p.evaluations else None
        p.evaluations = []
        if carried:
            line = _evaluated(carried["metrics"])
            p.evaluations.append({"metrics": line, "scores": carried["scores"]})
        else:
            line = self._measure()
        p.records.append({"name": spec.name or spec.kind, "kind": spec.kind, "roles": list(spec.roles), "steps": 0, "seconds": 0.0,
                          "tokens_sampled": 0, "tokens_trained": 0})
        p.begun, p.anchor = True, p.step
        p.curriculum = stage.curriculum.state_dict()
        self._log(line, "eval", spec)
        self._save()

    def _guarded_step(self, stage: Stage) -> Step:
        """A step whose update was refused moves nothing; too many of them stop the run."""
        p = self.progress
        try:
            return stage.step(p.stage_step)
        except UpdateRefused as e:
            p.bad_updates += 1
            self._decide("guard", "finite", "refuse", f"update refused: {e}", {"refused": p.bad_updates})
            if p.bad_updates < self.recipe.max_bad_updates:
                return Step({})
            last = self.store.steps()[-1]
            self._decide("guard", "finite", "stop", f"{p.bad_updates} updates were refused")
            self._close("stopped")
            raise UserError(f"{p.bad_updates} updates were refused, the last because {e}; the weights of step {last} are intact in "
                            f"{self.store.checkpoints}. Lower the learning rate (stage.{p.stage}.optim.lr) or check the rewards") from e

    def _judge(self, spec: StageSpec) -> str:
        """Check the gates on the newest evaluation. Returns why the stage ends now, or "". GateStop ends the run."""
        p = self.progress
        history = [Evaluation(**e) for e in p.evaluations]
        for i, gate in enumerate(spec.gates):
            judged = gates.judge(gate, history)
            outcome = "pass" if judged.passed else gate.on_fail
            self._decide("gate", f"{gate.metric}", outcome, judged.reason, judged.numbers)
            if outcome == "stop":
                self._save()
                raise GateStop(f"gate {i} of stage {p.stage} stopped the run: {judged.reason}; everything is kept in {self.store.out}")
            if outcome == "roll_back":
                self._roll_back(spec)
                return f"a gate rolled it back ({gate.metric})"
        why = reached(spec.until, [e.metrics for e in history])
        return why if p.stage_step < spec.until.steps else ""

    def _roll_back(self, spec: StageSpec) -> None:
        """Weights, optimizers and curriculum are those of the stage's start again; the start is measured anew to show it."""
        p = self.progress
        folder, state = self.store.state(p.anchor)
        self.engine.load(folder / "engine")
        p.curriculum = state["progress"]["curriculum"]
        p.policies = state["progress"]["policies"]
        p.step += 1
        self._log({**self._measure(), "rolled_back_to": p.anchor}, "eval", spec)

    def _end(self, spec: StageSpec, why: str) -> None:
        p = self.progress
        for name in self.engine.policies():
            if name.endswith(f"-at-stage-{p.stage}"):
                self.engine.drop(name)
            else:
                self.engine.release(name)
        p.records[-1] |= {"ended": why}
        self._decide("schedule", spec.name or spec.kind, "advance", why)

    # ---- measuring, logging, saving

    def _measure(self, line: dict[str, float] | None = None) -> dict[str, float]:
        """Evaluate; gates and `until` read the result together with the step's own numbers (`line`)."""
        found = evaluate(self.rollouts, self.held_out, self.progress.policies, noise=self.recipe.eval.noise,
                         seed=seed_of(self.recipe.eval.seed, "eval"))
        self.progress.evaluations.append({"metrics": {**(line or {}), **found.metrics}, "scores": {k: list(v) for k, v in found.scores.items()}})
        self.values = dict(found.metrics)
        start = Evaluation(**self.progress.evaluations[0])
        return dict(found.metrics) | (changes(start, found) if len(self.progress.evaluations) > 1 else {})

    def _line(self, spec: StageSpec, result: Step, seconds: float) -> dict[str, float]:
        line = reduce(result.metrics)
        tokens = line.get("tokens/sampled", 0) + line.get("tokens/forward", 0)
        record = self.progress.records[-1]
        record["steps"] += 1
        record["seconds"] += seconds
        record["tokens_sampled"] += int(line.get("tokens/sampled", 0))
        record["tokens_trained"] += int(line.get("tokens/trained", 0))
        return line | {"seconds/step": seconds, "tokens_per_second": tokens / seconds if seconds else 0.0}

    def _log(self, line: dict[str, float], kind: str, spec: StageSpec) -> None:
        p = self.progress
        p.seconds = time.perf_counter() - self.clock
        self.store.log(p.step, {"stage": p.stage, "stage_name": spec.name or spec.kind, "kind": spec.kind, "stage_step": p.stage_step,
                                "seconds": round(p.seconds, 3), **line})
        self.events.write(p.step, line)
        self.emit(kind, values=line, stage_steps=spec.until.steps)

    def _save_trees(self, spec: StageSpec, result: Step, last: bool) -> None:
        save, p = self.recipe.save, self.progress
        if result.trees and (last or p.stage_step % save.trees_every == 0 or p.stage_step == 1):
            self.store.save_trees(p.step, p.stage, result.trees[: save.trees], result.advantages[: save.trees],
                                  self.rollouts.domain.oracle_plan)

    def _save(self) -> None:
        p = self.progress
        p.seconds = time.perf_counter() - self.clock
        self.store.save(p.step, {"progress": asdict(p)}, lambda folder: self.engine.save(folder / "engine"))
        self.store.prune(self.recipe.save.keep, [p.anchor] if not p.finished else [])

    def _leave(self, number: int) -> None:
        self._decide("run", self.recipe.name, "interrupt", f"signal {number}")
        raise Interrupted(f"interrupted at step {self.progress.step}, everything is saved; continue with: "
                          f"forethought train --resume {self.store.out}", number)

    def _decide(self, kind: str, name: str, outcome: str, reason: str, numbers: dict | None = None) -> None:
        p = self.progress
        decision = Decision(step=p.step, stage=min(p.stage, len(self.recipe.stage) - 1), kind=kind, name=name, outcome=outcome,
                            reason=reason, numbers=dict(numbers or {}))
        self.store.decide(decision)
        self.emit("decision", text=f"{name}: {reason}", outcome=outcome)

    def _close(self, status: str) -> Path:
        self._summary(status)
        return report.write(self.store.out)

    def _summary(self, status: str) -> None:
        p = self.progress
        self.store.write_json("summary.json", {"name": self.recipe.name, "seed": self.recipe.seed, "status": status, "step": p.step,
                                               "seconds": round(time.perf_counter() - self.clock, 1), "stages": p.records,
                                               "machine": {**self.engine.facts(), "forethought": __version__}})

    def emit(self, kind: str, **fields) -> None:
        p = self.progress
        total = sum(s.until.steps for s in self.recipe.stage)
        self.observe(Event(kind=kind, step=p.step, steps=total, stage=p.stage, stages=len(self.recipe.stage), stage_step=p.stage_step,
                           **fields))


def _evaluated(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("eval")}
