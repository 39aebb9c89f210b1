"""From a recipe to a run: built, trained, resumed, extended. The one place that builds things from a
recipe."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from forethought import report
from forethought.core import consent
from forethought.core.errors import RecipeError, UserError
from forethought.core.seeds import seed_of
from forethought.core.types import Decision, Event
from forethought.engines import chosen as choices
from forethought.engines.base import Engine
from forethought.envs.guard import Fault
from forethought.grams.lists import FOLDER as GRAMS
from forethought.grams.lists import check_lists, copy_lists
from forethought.learn.credit.own import own_function
from forethought.measure.evaluate import evaluated
from forethought.recipe.check import check
from forethought.recipe.check_reinforce import CREDITS, OVER_BATCH
from forethought.recipe.code import code_in
from forethought.recipe.convert import to_dict
from forethought.recipe.doubts import doubts
from forethought.recipe.kinds.distill import Distill
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.kinds.webrl import WebRL
from forethought.recipe.layout import given, planners, trains_whole
from forethought.recipe.load import load as load_recipe
from forethought.recipe.load import write_resolved
from forethought.recipe.paths import anchored
from forethought.recipe.schema import ModelSpec, Recipe, StageSpec, TrainingSpec
from forethought.recipe.speaking import roles_of
from forethought.runs import changes, handover, rundata
from forethought.runs.faces import check_faces
from forethought.runs.functions import check_functions
from forethought.runs.interrupts import Wish
from forethought.runs.progress import Progress
from forethought.runs.resuming import ensure_records, find, recipe_of, unlike
from forethought.runs.runner import Observer, Result, Runner
from forethought.runs.trackers import makers
from forethought.stages.distill.check import check_distill
from forethought.stages.distill.stage import Load
from forethought.stages.webrl.writing import check_evolving
from forethought.stages.webrl.yes_or_no import words_of
from forethought.store import LOGS, RECIPE, SUMMARY, Store
from forethought.store.locks import unwritten
from forethought.tasks import families
from forethought.tasks.base import DrawsWords, FreeText, Pool, Sees, Shows, Taskset, face, needed
from forethought.workflows.rollout import Rollouts
from forethought.workflows.table import workflow_of
from forethought.workflows.words import longest_turns, read_between

EngineOf = Callable[[Recipe, Taskset], Engine]


def torch_engine(recipe: Recipe, taskset: Taskset) -> Engine:
    """The embedded engine, with the recipe's model; a small one from scratch knows the taskset's words and
    length."""
    from forethought.engines.joined import Joined
    from forethought.engines.torch.engine import TorchEngine
    from forethought.engines.torch.machine.device import prepare
    from forethought.engines.torch.models.loading import Loaded, load

    weights = "fp32" if recipe.engine.weights == "auto" and trains_whole(recipe) else recipe.engine.weights

    def loaded(model: ModelSpec, seed: int) -> Loaded:
        seeing, showing = face(taskset, Sees), face(taskset, Shows)
        if model.path:
            if seeing and not showing:
                why = (
                    f"{taskset.name} gives no whole pictures (`shown`), which such models read; leave it out"
                )
                raise RecipeError("model.path", why)
            return load(model, (), 0, seed, weights, shows=showing.shown if showing else None)
        if taskset.spaced:
            return load(
                model,
                taskset.words(roles_of(recipe)),
                _context(taskset, recipe),
                seed,
                sees=(seeing.sight(), seeing.picture) if seeing else None,
                drawn=_drawn(taskset) if model.masks_absent else (),
            )
        if model.masks_absent:
            _drawn(taskset)
        free = needed(taskset, FreeText, "a model from scratch")
        return load(model, free.marks(), _text_context(taskset, recipe), seed, texts=free.texts())

    main = loaded(recipe.model, recipe.seed)
    if not given(recipe.planner):
        return TorchEngine(main, recipe.engine, recipe.adapter)
    planner = loaded(recipe.planner, seed_of(recipe.seed, "planner"))
    larger = max((main.model, planner.model), key=lambda model: model.num_parameters())
    on = prepare(recipe.engine, larger)  # a process has one number of threads
    probes = taskset.vocabulary()
    if not probes:  # free text has no list of words
        free = needed(taskset, FreeText, "a planner of its own")
        probes = [*free.marks(), *free.texts()[:64]]
    engines = [TorchEngine(one, recipe.engine, recipe.adapter, on) for one in (main, planner)]
    return Joined(engines[0], dict.fromkeys(planners(recipe).values(), engines[1]), probes)


def _drawn(taskset: Taskset) -> list[str]:
    if (drawing := face(taskset, DrawsWords)) is None:
        raise RecipeError(
            "model.masks_absent", f"{taskset.name} draws no words anew for each prompt; leave it out"
        )
    return drawing.drawn_words()


def build(recipe: Recipe, engine_of: EngineOf = torch_engine) -> tuple[Engine, Rollouts]:
    """Engine and rollouts for a recipe; everything that can be refused is refused before a model is
    loaded."""
    check(recipe)
    taskset = families.build(recipe.task, limits=recipe.limits)
    try:
        return _built(recipe, taskset, engine_of)
    except BaseException:
        taskset.close()
        raise


def check_with(recipe: Recipe, taskset: Taskset) -> None:
    """RecipeError for what cannot work with this taskset: levels, roles, distillation, and the code that the
    stages name, which is loaded."""
    for where, levels in [("eval.levels", recipe.eval.levels)] + [
        (f"stage.{i}.levels", s.levels) for i, s in enumerate(recipe.stage) if isinstance(s, TrainingSpec)
    ]:
        if wrong := [level for level in levels if level not in taskset.levels]:
            raise RecipeError(
                where, f"{taskset.name} has no level {wrong[0]} here; its levels are {list(taskset.levels)}"
            )
    # again where the recipe left the levels open
    check(replace(recipe, task=replace(recipe.task, levels=tuple(taskset.levels))))
    for i, stage in enumerate(recipe.stage):
        if isinstance(stage, Distill):
            check_distill(f"stage.{i}", stage.distill, taskset, scratch=not recipe.model.path)
        named_code(stage, f"stage.{i}", taskset, roles_of(recipe))
    makers(recipe.trackers)


def _built(recipe: Recipe, taskset: Taskset, engine_of: EngineOf) -> tuple[Engine, Rollouts]:
    check_with(recipe, taskset)
    if recipe.model.path:  # what a run from scratch does not wait for
        from forethought.estimate.room import check_room

        check_room(recipe)
    engine = engine_of(recipe, taskset)
    check_faces(recipe, engine)
    rollouts = rollouts_of(engine, taskset, recipe)
    rollouts.check_room(demonstrated=any(s.learns_from == "demonstrations" for s in recipe.stage))
    if any(isinstance(stage, WebRL) for stage in recipe.stage):
        words_of(rollouts.words)  # its critic has words to answer with
    return engine, rollouts


def named_code(stage: StageSpec, where: str, taskset: Taskset, roles: Sequence[str]) -> None:
    """RecipeError where a stage names code for rewards or credit that is not there, or that asks for what
    the task does not have: before anything trains."""
    if not isinstance(stage, Reinforce):
        return
    check_functions(stage, where, taskset, roles)
    if isinstance(stage, WebRL):
        check_evolving(stage, where, taskset)
    if stage.credit.name not in CREDITS + OVER_BATCH:
        own_function(stage.credit.name, f"{where}.credit.name", CREDITS + OVER_BATCH, again=True)


def rollouts_of(engine: Engine, taskset: Taskset, recipe: Recipe) -> Rollouts:
    """UserError where the engine's tokenizer cannot write the words of the taskset and the workflow."""
    rollouts = Rollouts(engine, taskset, recipe.workflow, recipe.roles)
    stops = [stop for role in rollouts.roles for stop in rollouts.words.stops(role)]
    engine.check_words(taskset.words(rollouts.roles), stops)
    return rollouts


def _context(taskset: Taskset, recipe: Recipe) -> int:
    """Words that the longest episode can take, with as much again to spare, in steps of 64 (sizes a model
    from scratch)."""
    rng, longest, broken = random.Random(0), 0, None
    workflow = workflow_of(recipe.workflow.name)
    opening = taskset.opening(workflow.roles[0])
    for _ in range(32):
        try:
            task = taskset.family(rng, [max(taskset.levels)], "train")[0]
            shown = [opening, *(t.text for t in workflow.demonstration(taskset, task))]
        except Fault as fault:
            broken = fault
            continue
        longest = max(longest, sum(len(t.split()) for t in [task.context, task.prompt, *shown]))
    if broken and not longest:
        raise broken
    if seeing := face(taskset, Sees):
        longest += seeing.sight().most // 2  # known for certain: nothing to spare
    most = max(2 * (longest + _longest_turns(taskset, recipe)), _longest_read(taskset, recipe))
    return -(-most // 64) * 64


def _longest_read(taskset: Taskset, recipe: Recipe) -> int:
    """Words that the longest given problems can take with all that may be said and read on the way; 0 where
    problems are drawn."""
    if not (given := face(taskset, Pool)):
        return 0
    workflow, shown, tasks = workflow_of(recipe.workflow.name), [], given.longest(16)
    first = len(taskset.opening(workflow.roles[0]).split())
    for task in tasks:
        turns: list[tuple[str | None, int]] = []
        with suppress(UserError):  # without a demonstration: reported where it is demonstrated
            for turn in workflow.demonstration(taskset, task):
                turns.append((None, len(taskset.opening(turn.role).split()) if turn.role else 0))
                turns.append((turn.role, len(turn.text.split())))
        shown.append(turns)
    prompt = first + max(len(f"{task.context} {task.prompt}".split()) for task in tasks)
    stated = taskset.observation + sum(len(taskset.opening(role).split()) for role in workflow.roles)
    read = read_between(shown, workflow.roles[-1], taskset.turns, stated if taskset.observation else 0)
    return prompt + _longest_turns(taskset, recipe) + read


def _text_context(taskset: Taskset, recipe: Recipe) -> int:
    """The same for free text, from above: no token is shorter than a byte, a plan no longer than the
    solution that it comes from, and an observation no longer than the longest text."""
    given = face(taskset, Pool)
    longest = (
        given.longest(16) if given else taskset.family(random.Random(0), [max(taskset.levels)] * 8, "train")
    )
    prompt, text = (
        max(len(said.encode()) for said in some)
        for some in (
            [t.prompt for t in longest],
            needed(taskset, FreeText, "a model from scratch").texts(),
        )
    )
    read = (taskset.turns - 1) * (taskset.observation or text)
    return -(-(prompt + 2 * text + read + _longest_turns(taskset, recipe)) // 64) * 64


def _longest_turns(taskset: Taskset, recipe: Recipe) -> int:
    workflow = workflow_of(recipe.workflow.name)
    budgets = {role: taskset.budget(role) for role in workflow.roles}
    return longest_turns(budgets, workflow.speaks.often(recipe.workflow.options, taskset.turns))


def _beside(recipe: Recipe, rollouts: Rollouts, engine_of: EngineOf) -> Load:
    """What a distillation takes to put another model to work; nothing of it trains. It computes as the run
    does."""
    engine = choices.pinned(recipe.engine, rollouts.engine.chosen())
    return lambda model: engine_of(
        replace(recipe, model=model, planner=ModelSpec(init=""), stage=(), engine=engine), rollouts.taskset
    )


def train(
    recipe: Recipe,
    out: Path,
    observe: Observer,
    engine_of: EngineOf = torch_engine,
    wish: Wish | None = None,
    notes: Sequence[str] = (),
) -> Result:
    """Run a recipe into a new directory. Raises UserError, GateStop, Interrupted, or Asked where `wish` was
    told to stop; what was saved stays. `notes`: what the run says, and records, at its start."""
    recipe = anchored(recipe, Path.cwd())
    check_lists(recipe)
    engine, rollouts = build(recipe, engine_of)
    with closing(rollouts.taskset):
        store = Store.create(out)
        with store.writing() as note:
            Store.create(out)  # again: another process may have begun here meanwhile
            _write_start(store, recipe)
            beside = _beside(recipe, rollouts, engine_of)
            runner = Runner(recipe, engine, rollouts, store, observe, beside, wish)
            said = [*filter(None, [note, *notes]), *doubts(recipe), *rundata.unheld(recipe)]
            return runner.go(Progress(policies=handover.first_policies(recipe)), "start", said)


def _write_start(store: Store, recipe: Recipe) -> None:
    """What a run has before it begins. recipe.json comes first: it makes the folder a run, which can be
    resumed."""
    write_resolved(recipe, store.out / RECIPE)
    consent.remember(code_in(to_dict(recipe)))
    store.write_start()
    copy_lists(recipe, store.out)
    rundata.record(recipe, store.out)


def extend(
    recipe: Recipe, begun: Path, out: Path, observe: Observer, engine_of: EngineOf = torch_engine
) -> Result:
    """Go on from `begun`, a finished run whose stages are the first of `recipe`: the same as training all of
    `recipe`, bit for bit.

    The stages may differ in what a stage does not read (the layout, while every role still speaks through the
    base). `begun` is copied to `out` and stays as it is. UserError where the two do not fit, or where a
    record of `begun` is damaged.
    """
    before, recipe = load_recipe(begun / RECIPE), anchored(recipe, Path.cwd())
    check(recipe)
    rundata.refuse_changed(begun, before)
    check_lists(recipe, begun)
    source = Store.open(begun)
    with unwritten(begun):
        if (why := unlike(before, recipe)) or not _is_finished(source, before, find(source, before).progress):
            raise UserError(f"{begun} cannot be extended: {why or 'it is not finished'}")
        store = Store.create(out)
        with store.writing():
            for name in (*LOGS, SUMMARY):
                if (begun / name).exists():
                    shutil.copy(begun / name, out / name)
            for name in ("checkpoints", "trees", "films", "images", "guided", GRAMS):
                if (begun / name).exists():
                    shutil.copytree(begun / name, out / name)
            _write_start(store, recipe)
    return resume(out, observe, engine_of)


def _is_finished(store: Store, recipe: Recipe, at: Progress) -> bool:
    """Whether a run has trained all its stages and said so. One that was killed on its last line has
    something left to say."""
    return at.finished and at.stage >= len(recipe.stage) and store.read_summary()[0].get("status") == "done"


def resume(
    out: Path,
    observe: Observer,
    engine_of: EngineOf = torch_engine,
    wish: Wish | None = None,
    overrides: Sequence[str] = (),
    changed_code: bool = False,
) -> Result:
    """Continue a run from its newest checkpoint, cutting its logs back to it. What is damaged is refused
    before anything is loaded. `overrides`: changes of its recipe that touch nothing that is done (`changes`),
    which it keeps. `changed_code`: code of the recipe that is not what the run began with is accepted as it
    is now.

    A finished run whose report is missing gets it; UserError for one that has all.
    """
    store = Store.open(out)
    with store.writing() as note:
        store.refuse_links()
        store.mend()
        recipe = recipe_of(store, changed_code)
        rundata.refuse_changed(out, recipe, changed_code)
        found = find(store, recipe)
        recipe, rows = changes.changed(recipe, overrides, found.progress, out)
        if _is_finished(store, recipe, found.progress):
            return _report_again(store, found.progress, observe)
        summary, damage = store.read_summary()
        notes = [*filter(None, [note]), *found.notes, *([f"{damage}; it is written again"] if damage else [])]
        notes += [*(rundata.unwatched(out, recipe) if found.folder else ()), *rundata.unheld(recipe)]
        # Sums depend on threads, precision and kernels in their last bits: a resumed run keeps those that the
        # run began with.
        chosen = found.state.get("chosen") if found.folder else {}
        engine, rollouts = build(
            replace(recipe, engine=choices.pinned(recipe.engine, chosen or {})), engine_of
        )
        with closing(rollouts.taskset):
            store.cut_back(found.state)
            ensure_records(store, found.state)
            progress = found.progress
            if changed_code:
                rundata.accept(store, recipe, progress.step)
            if rows:
                changes.write(store, recipe, rows, progress.step)
                consent.remember(code_in(to_dict(recipe)))
            for text in changes.record(store, recipe, progress):
                observe(Event(kind="note", text=text))
            if found.folder:
                store.prune(recipe.save.keep, [] if progress.finished else [progress.anchor])
                engine.load(found.folder / "engine")
                progress = replace(progress, finished=False)
            else:
                copy_lists(recipe, out)  # a start may have been killed before it had them all
                rundata.record(recipe, out)
            beside = _beside(recipe, rollouts, engine_of)
            runner = Runner(recipe, engine, rollouts, store, observe, beside, wish)
            if found.folder and (moved := choices.differences(chosen, engine.chosen())):
                _elsewhere(store, recipe, progress, moved, observe)
            return runner.go(progress, "resume" if found.folder else "start", notes)


def _elsewhere(store: Store, recipe: Recipe, at: Progress, moved: Sequence[str], observe: Observer) -> None:
    """Say that bit-identity ends here, and why."""
    said = (
        f"from step {at.step} on this run is not, bit for bit, the one that was never stopped: "
        f"{'; '.join(moved)}"
    )
    store.decide(
        Decision(
            step=at.step,
            stage=min(at.stage, len(recipe.stage) - 1),
            kind="run",
            name=recipe.name,
            outcome="elsewhere",
            reason=said,
        )
    )
    observe(Event(kind="note", text=said))


def _report_again(store: Store, at: Progress, observe: Observer) -> Result:
    if (store.out / "report.html").exists():
        report.sweep(store.out)
        raise UserError(f"{store.out} is finished; there is nothing to resume")
    page = report.write(store.out)
    observe(
        Event(
            kind="end",
            text=f"the run was finished; its report was missing and is written: {page}",
            step=at.step,
        )
    )
    return Result(
        out=store.out,
        status="done",
        values=evaluated(at.evaluations[-1]["metrics"]) if at.evaluations else {},
        exit_code=0,
    )
