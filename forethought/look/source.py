"""What can be looked at: a run directory (its newest checkpoint, or that of a step), the folder of a
checkpoint, or a bare model with a task that is named beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forethought.core import consent
from forethought.core.errors import CheckpointError, UserError, unknown
from forethought.engines import chosen as choices
from forethought.engines.base import BASE, Engine
from forethought.engines.gguf_header import file_at
from forethought.engines.saved import has_projector
from forethought.recipe.check import check_surroundings
from forethought.recipe.layout import has_planner, planners
from forethought.recipe.load import load as load_recipe
from forethought.recipe.load import override, shipped
from forethought.recipe.schema import EvalSpec, ModelSpec, Recipe, TaskSpec
from forethought.recipe.speaking import roles_of
from forethought.runs.progress import Progress
from forethought.runs.run import EngineOf, torch_engine
from forethought.runs.rundata import changed, unwatched
from forethought.store import Store, run_at
from forethought.tasks.base import Taskset
from forethought.tasks.families import TASKSETS, check_name, is_taskset


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`recipe`: the model to load and the task to measure it on. `checkpoint`: the engine's folder of a run,
    None for a bare model. `policies`: who speaks for each role. `guest`: a model that has no task of its own
    and is looked at on another source's."""

    path: Path
    recipe: Recipe
    checkpoint: Path | None
    policies: Mapping[str, str]
    guest: bool = False
    step: int | None = None  # of a run's checkpoint
    # what a reader of the numbers must know: files that have changed since the run began
    notes: tuple[str, ...] = ()

    def open(self, taskset: Taskset, engine_of: EngineOf = torch_engine) -> Engine:
        """The weights, ready to sample."""
        recipe = self.recipe
        # `override` has made the path a whole one, wherever the run was looked for
        own = self.checkpoint and Path(recipe.model.path).absolute() == (self.checkpoint / BASE).absolute()
        if own and has_projector(self.checkpoint):
            # it is no model of transformers': it is made anew, and its weights are read
            recipe = replace(recipe, model=replace(recipe.model, path=""))
        if recipe.model.path:
            from forethought.estimate.room import check_room

            check_room(recipe, trains=False)
        engine = engine_of(recipe, taskset)
        if self.checkpoint is not None:
            engine.load(self.checkpoint)
            for policy in engine.policies():
                # the moments of an optimizer are twice the weights, and nothing trains
                engine.release(policy)
        return engine


def steps_of(path: Path) -> list[int]:
    """Steps of the checkpoints of the run at `path`, ascending. UserError where there is no run or none."""
    at = run_at(path)
    if at is None or at[1] is not None:
        raise UserError(f"{path} is not a run directory; the checkpoints of a run are looked at one by one")
    store = Store.open(path)
    store.chosen(None)
    return store.steps()


def find(
    path: Path, task: str | None = None, overrides: Sequence[str] = (), step: int | None = None
) -> Source:
    """The run or model at `path` (a folder, or a model's name on the hub), with `task` in place of a run's
    own. Of a run the newest checkpoint, or that of `step`; a checkpoint's folder is its run at its step.

    `task` is a family's name with its own defaults ("desk"), or a recipe (a file or a shipped one's name),
    whose task and eval tables are taken, and for a model its workflow too. `overrides` as for a recipe:
    "task.eval=[...]", "eval.tasks=50", "engine.device=cpu". UserError for a path that is neither, and for a
    model without a task; RecipeError for what does not fit the recipe.
    """
    if (at := run_at(path, step)) is not None:
        return replace(_run(*at, task, overrides), path=path)
    if step is not None:
        raise UserError(f"{path} is not a run, so it has no checkpoint of step {step}")
    if path.exists() and not (path / "config.json").is_file() and not _is_gguf(path):
        raise UserError(
            f"{path} is neither a run (it has no recipe.json) nor a model (it has no config.json, and is no "
            "GGUF file)"
        )
    if task is None:
        what = "is a model" if path.exists() else "is not a run directory; for a model on the hub"
        raise UserError(
            f"{path} {what}: say on which task to look at it, with --task NAME or --task FILE.toml "
            f"(families: {', '.join(sorted(TASKSETS))})"
        )
    bare = _with_task(Recipe(name="look", layout="shared", model=ModelSpec(path=str(path))), task)
    if not is_taskset(task):
        bare = _with_workflow(bare, load_recipe(task))
    if consent.is_given():
        bare = replace(bare, model=replace(bare.model, trust_remote_code=True))
    recipe = _checked(bare, overrides)
    policies = dict.fromkeys(roles_of(recipe), BASE)
    return Source(path=path, recipe=recipe, checkpoint=None, policies=policies)


def find_all(paths: Sequence[Path], task: str | None = None, overrides: Sequence[str] = ()) -> list[Source]:
    """As `find`, but beside a run a bare model needs no task: it is a guest on the task of the first run."""
    runs = [path for path in paths if run_at(path) is not None]
    if task is not None or not runs:
        return [find(path, task, overrides) for path in paths]
    lent = str((run_at(runs[0]) or (runs[0], None))[0] / "recipe.json")
    return [
        find(path, None, overrides) if path in runs else replace(find(path, lent, overrides), guest=True)
        for path in paths
    ]


def _run(path: Path, step: int | None, task: str | None, overrides: Sequence[str]) -> Source:
    recipe = load_recipe(path / "recipe.json", trains=False)
    notes = (*changed(path, recipe), *unwatched(path, recipe)) if task is None else ()
    recipe = _checked(_with_task(recipe, task) if task is not None else recipe, overrides)
    store = Store.open(path)
    if store.begun_with() and not store.has_its_recipe():
        raise UserError(
            f"{path / 'recipe.json'} is not the recipe that the run was trained with: put it back as it was"
        )
    folder, state = store.chosen(step)
    over = store.passed_over()
    engine = folder / "engine"
    # measured as it was trained
    recipe = replace(recipe, engine=choices.pinned(recipe.engine, state.get("chosen") or {}))
    try:
        policies = Progress.read(state["progress"]).policies
    except ValueError as error:
        way = store.way_back(state["step"], lambda step: True)
        raise CheckpointError(f"checkpoint {folder} is damaged (state.json {error}); {way}") from error
    return Source(
        path=path,
        recipe=_from_files(recipe, engine),
        checkpoint=engine,
        policies=policies,
        step=state["step"],
        notes=(*notes, *([over] if over else [])),
    )


def _from_files(recipe: Recipe, engine: Path) -> Recipe:
    """A model from scratch is opened with the tokenizer that it was saved with: another task would give it
    other words."""
    base = engine / BASE
    if not has_planner(recipe):
        return recipe if recipe.model.path else replace(recipe, model=replace(recipe.model, path=str(base)))
    if recipe.model.path:  # both have a path, or neither
        return recipe
    return replace(
        recipe,
        model=replace(recipe.model, path=str(base / BASE)),
        planner=replace(recipe.planner, path=str(engine / next(iter(planners(recipe).values())) / BASE)),
    )


def _is_gguf(path: Path) -> bool:
    try:
        return file_at(str(path)) is not None
    except ValueError as error:
        raise UserError(f"{path} cannot be opened as a model: {error}") from None


def _with_task(recipe: Recipe, task: str) -> Recipe:
    if is_taskset(task):  # families first: a recipe of the same name has its task
        return replace(recipe, task=TaskSpec(name=task), eval=EvalSpec())
    named = [name for name, _, _ in shipped()]
    if task not in named and not Path(task).exists():
        raise UserError(f"--task: {unknown('task', task, {*TASKSETS, *named})}, and no such file")
    found = load_recipe(task)
    return replace(recipe, task=found.task, eval=found.eval)


def _with_workflow(recipe: Recipe, found: Recipe) -> Recipe:
    """A bare model speaks as the recipe has it, in every role itself."""
    roles = {name: replace(role, policy="") for name, role in found.roles.items()}
    return replace(recipe, workflow=found.workflow, roles=roles)


def _checked(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    recipe = override(recipe, overrides)
    check_name(recipe.task.name)
    check_surroundings(recipe)
    return recipe
