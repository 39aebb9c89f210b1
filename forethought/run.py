"""From a recipe to a run: built, trained, resumed, extended. The one place that builds things from a recipe."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from forethought import handover, tasks
from forethought.distill.check import check_distill
from forethought.distill.stage import Load
from forethought.engines import kept
from forethought.engines.base import Engine
from forethought.errors import RecipeError, UserError
from forethought.grams.kept import FOLDER as GRAMS
from forethought.grams.kept import check_lists, keep_lists
from forethought.progress import Progress
from forethought.recipe.check import check
from forethought.recipe.layout import given, trains_whole, weights_of
from forethought.recipe.load import load as load_recipe
from forethought.recipe.load import write_resolved
from forethought.recipe.schema import ModelSpec, Recipe
from forethought.rollout import Rollouts, seed_of
from forethought.runner import Observer, Result, Runner
from forethought.store import Store
from forethought.tasks.base import Domain
from forethought.types import Decision, Event

EngineOf = Callable[[Recipe, Domain], Engine]


def torch_engine(recipe: Recipe, domain: Domain) -> Engine:
    """The embedded engine, with the recipe's model; a small one from scratch knows the domain's words and length."""
    from forethought.engines.joined import Joined
    from forethought.engines.torch.engine import TorchEngine
    from forethought.engines.torch.loading import Loaded, load
    from forethought.engines.torch.machine import prepare

    weights = "fp32" if recipe.engine.weights == "auto" and trains_whole(recipe) else recipe.engine.weights

    def loaded(model: ModelSpec, seed: int) -> Loaded:
        if model.path:
            return load(model, (), 0, seed, weights)
        if getattr(domain, "spaced", True):
            return load(model, domain.vocabulary(), _context(domain), seed)
        return load(model, domain.marks(), _text_context(domain), seed, texts=domain.texts())

    main = loaded(recipe.model, recipe.seed)
    if not given(recipe.planner):
        return TorchEngine(main, recipe.engine, recipe.adapter)
    planner = loaded(recipe.planner, seed_of(recipe.seed, "planner"))
    larger = max((main.model, planner.model), key=lambda model: model.num_parameters())
    on = prepare(recipe.engine, larger.num_parameters(), larger.config.get_text_config())  # a process has one number of threads
    probes = domain.vocabulary() or [*domain.marks(), *domain.texts()[:64]]  # free text has no list of words
    engines = [TorchEngine(one, recipe.engine, recipe.adapter, on) for one in (main, planner)]
    return Joined(engines[0], {"plan": engines[1]}, probes)


def build(recipe: Recipe, engine_of: EngineOf = torch_engine) -> tuple[Engine, Rollouts]:
    """Engine and rollouts for a recipe; everything that can be refused is refused before a model is loaded."""
    check(recipe)
    domain = tasks.build(recipe.task)
    for where, levels in [("eval.levels", recipe.eval.levels)] + [(f"stage.{i}.levels", s.levels) for i, s in enumerate(recipe.stage)]:
        if wrong := [level for level in levels if level not in domain.levels]:
            raise RecipeError(where, f"{domain.name} has no level {wrong[0]} here; its levels are {list(domain.levels)}")
    check(replace(recipe, task=replace(recipe.task, levels=tuple(domain.levels))))  # again where the recipe left the levels open
    for i, stage in enumerate(recipe.stage):
        if stage.kind == "distill":
            check_distill(f"stage.{i}", stage.distill, domain, scratch=not recipe.model.path)
    engine = engine_of(recipe, domain)
    rollouts = rollouts_of(engine, domain)
    rollouts.check_room(shown=any(stage.kind == "imitate" for stage in recipe.stage))
    return engine, rollouts


def rollouts_of(engine: Engine, domain: Domain) -> Rollouts:
    """UserError where the engine's tokenizer cannot write the domain's words."""
    engine.check_words(domain.vocabulary(), [stop for stop in domain.stops.values() if stop])
    return Rollouts(engine, domain)


def _context(domain) -> int:
    """Words that the longest episode can take, with as much again to spare, in steps of 64 (sizes a model from scratch)."""
    rng, longest = random.Random(0), 0
    for _ in range(32):
        task = domain.family(rng, [max(domain.levels)], "train")[0]
        shown = [t.text for t in domain.demonstrate(task)]
        longest = max(longest, sum(len(t.split()) for t in [task.context, task.prompt, *shown]))
    return -(-2 * (longest + domain.budgets["plan"] + domain.turns * domain.budgets["act"]) // 64) * 64


def _text_context(domain) -> int:
    """The same for free text, from above: no token is shorter than a byte, and a plan no longer than the solution that it comes from."""
    prompt, text = (max(len(said.encode()) for said in some) for some in ([t.prompt for t in domain.longest(16)], domain.texts()))
    return -(-(prompt + 2 * text + domain.budgets["plan"] + domain.turns * domain.budgets["act"]) // 64) * 64


def _beside(recipe: Recipe, rollouts: Rollouts, engine_of: EngineOf) -> Load:
    """What a distillation takes to put another model to work; nothing of it trains. It computes as the run does."""
    engine = kept.pinned(recipe.engine, rollouts.engine.chosen())
    return lambda model: engine_of(replace(recipe, model=model, planner=ModelSpec(init=""), stage=(), engine=engine), rollouts.domain)


def train(recipe: Recipe, out: Path, observe: Observer, engine_of: EngineOf = torch_engine) -> Result:
    """Run a recipe into a new directory. Raises UserError, GateStop or Interrupted; what was saved stays."""
    check_lists(recipe)
    engine, rollouts = build(recipe, engine_of)
    store = Store.create(out)
    write_resolved(recipe, out / "recipe.json")
    keep_lists(recipe, out)
    runner = Runner(recipe, engine, rollouts, store, observe, _beside(recipe, rollouts, engine_of))
    return runner.go(Progress(policies=handover.first_policies(recipe)), "start")


def extend(recipe: Recipe, begun: Path, out: Path, observe: Observer, engine_of: EngineOf = torch_engine) -> Result:
    """Go on from `begun`, a finished run whose stages are the first of `recipe`: the same as training all of `recipe`, bit for bit.

    The stages may differ in what a stage does not read (the layout, while every role still speaks through the base). `begun` is
    copied to `out` and stays as it is. UserError where the two do not fit.
    """
    before = load_recipe(begun / "recipe.json")
    check(recipe)
    check_lists(recipe, begun)
    if (why := _unlike(before, recipe)) or Store.open(begun).read_json("summary.json").get("status") != "done":
        raise UserError(f"{begun} cannot be extended: {why or 'it is not finished'}")
    Store.create(out)
    for name in ("metrics.jsonl", "decisions.jsonl", "summary.json"):
        shutil.copy(begun / name, out / name)
    shutil.copytree(begun / "checkpoints", out / "checkpoints")
    for name in ("trees", "guided", GRAMS):
        if (begun / name).exists():
            shutil.copytree(begun / name, out / name)
    write_resolved(recipe, out / "recipe.json")
    keep_lists(recipe, out)
    return resume(out, observe, engine_of)


def _unlike(before: Recipe, recipe: Recipe) -> str:
    """In what the first stages of `recipe` would not be those of `before`, or ""."""
    n = len(before.stage)
    for key in ("seed", "task", "model", "planner", "adapter", "engine", "eval", "probes", "save"):
        if getattr(before, key) != getattr(recipe, key):
            return f"{key} differs"
    if before.stage != recipe.stage[:n] or n >= len(recipe.stage):
        return f"its {n} stages are not the first of the {len(recipe.stage)} here"
    if before.layout != recipe.layout and any(weights_of(r, stage) != "base" for r in (before, recipe) for stage in r.stage[:n]):
        return f'layout "{before.layout}" gave roles weights of their own'
    return ""


def resume(out: Path, observe: Observer, engine_of: EngineOf = torch_engine) -> Result:
    """Continue a run from its newest checkpoint, cutting its logs back to it."""
    store = Store.open(out)
    recipe = load_recipe(out / "recipe.json")
    store.mend()
    latest = store.latest()
    at = latest[1]["progress"] if latest else {}
    if at and at["finished"] and at["stage"] >= len(recipe.stage) and store.read_json("summary.json").get("status") == "done":
        raise UserError(f"{out} is finished; there is nothing to resume")
    # Sums depend on threads, precision and kernels in their last bits: a resumed run keeps those that the run began with.
    chosen = latest[1].get("chosen") if latest else {}
    engine, rollouts = build(replace(recipe, engine=kept.pinned(recipe.engine, chosen or {})), engine_of)
    progress = Progress(policies=handover.first_policies(recipe))
    if latest:
        folder, state = latest
        store.cut_back(state)
        engine.load(folder / "engine")
        progress = replace(Progress(**state["progress"]), finished=False)
    else:  # stopped before the first checkpoint: from the beginning
        store.cut_back({"logs": {"metrics.jsonl": 0, "decisions.jsonl": 0}, "step": -1})
    runner = Runner(recipe, engine, rollouts, store, observe, _beside(recipe, rollouts, engine_of))
    if latest and (moved := kept.differences(chosen, engine.chosen())):
        said = f"from step {progress.step} on this run is not, bit for bit, the one that was never stopped: {'; '.join(moved)}"
        store.decide(Decision(step=progress.step, stage=min(progress.stage, len(recipe.stage) - 1), kind="run", name=recipe.name,
                              outcome="elsewhere", reason=said))
        observe(Event(kind="note", text=said))
    return runner.go(progress, "resume" if latest else "start")
