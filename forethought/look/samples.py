"""`forethought sample`: the turns of every role to read, with what the verifiers say of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from forethought.core.errors import UserError
from forethought.core.films import Film
from forethought.core.seeds import seed_of
from forethought.core.types import Task
from forethought.look.chosen import oracle_plans, to_show
from forethought.look.measure import of_samples
from forethought.look.records import Record, Tell, play
from forethought.look.source import Source
from forethought.recipe.load import override
from forethought.recipe.options import TASKSETS, names
from forethought.recipe.schema import Recipe, TreeSpec
from forethought.runs.run import EngineOf, rollouts_of, torch_engine
from forethought.tasks import families
from forethought.tasks.base import Spells, Taskset, Watched, face, needed
from forethought.workflows.rollout import Rollouts


def sample(
    source: Source,
    *,
    n: int,
    level: int | None = None,
    tree: TreeSpec = TreeSpec(),
    seed: int = 0,
    problems: Path | None = None,
    engine_of: EngineOf = torch_engine,
    tell: Tell = lambda done, n: None,
) -> list[dict]:
    """`n` held-out tasks, or problems of a file, each with the model's turns, those of the oracle before the
    last role where there are some, and the verdicts. `tree`: temperature, top_p, top_k and min_p. UserError
    as `evaluate` raises it."""
    recipe = source.recipe
    with closing(families.build(recipe.task, to_measure=True, limits=recipe.limits)) as taskset:
        chosen = to_show(taskset, n, level, seed, problems)
        rollouts, records = _played(source, taskset, chosen, tree, seed, engine_of, tell)
        oracle = oracle_plans(rollouts, chosen)
        return [_sample_record(rollouts, record, oracle) for record in records]


def watch(
    source: Source,
    *,
    n: int,
    level: int | None = None,
    tree: TreeSpec = TreeSpec(),
    seed: int = 0,
    engine_of: EngineOf = torch_engine,
    tell: Tell = lambda done, n: None,
    window: bool = False,
) -> list[Film]:
    """The tasks that `sample` plays, in pictures; `window`: in a visible browser too, one after the other.
    UserError where the taskset has none to show."""
    source = replace(source, recipe=_with_pictures(source.recipe, n, window))
    recipe = source.recipe
    with closing(families.build(recipe.task, to_measure=True, limits=recipe.limits)) as taskset:
        needed(taskset, Watched, "--watch")
        chosen = to_show(taskset, n, level, seed)
        _, records = _played(source, taskset, chosen, tree, seed, engine_of, tell)
        played = list(records)
    films = [record.film for record in played if record.film]
    broken = next((one.reason for record in played for one in record.responses if one.failed), "")
    if not films and broken:
        raise UserError(f"nothing can be shown: {broken}")
    if not films and not window:
        raise UserError("nothing can be shown: no plan was accepted, and so no page was opened")
    return films


def _with_pictures(recipe: Recipe, n: int, window: bool) -> Recipe:
    name = recipe.task.name
    known = names(TASKSETS[name]) if name in TASKSETS else ()
    steps = window and recipe.task.options.get("stepwise")  # of these no pictures are taken
    changes = [f"task.pictures={n}"] if "pictures" in known and not steps else []
    if "pages" in known:  # a recording shows nothing
        changes.append(f"task.pages={'live' if recipe.task.options.get('pages') == 'live' else 'eval'}")
    if window and "window" not in known:
        raise UserError(f"--watch window: {name} plays in no browser; --watch FILE.html shows its pictures")
    if window:
        changes.append("task.window=true")
    return override(recipe, changes) if changes else recipe


def _played(
    source: Source,
    taskset: Taskset,
    chosen: list[Task],
    tree: TreeSpec,
    seed: int,
    engine_of: EngineOf,
    tell: Tell,
) -> tuple[Rollouts, Iterator[Record]]:
    recipe = source.recipe
    rollouts = rollouts_of(source.open(taskset, engine_of), taskset, recipe)
    rollouts.check_room(chosen)
    return rollouts, play(
        rollouts,
        chosen,
        source.policies,
        of_samples(recipe, tree, 1),
        seed=seed_of(seed, "trees"),
        noise=recipe.eval.noise,
        oracle=False,
        rows=recipe.engine.rows,
        tell=tell,
    )


def _sample_record(rollouts: Rollouts, record: Record, oracle: bool) -> dict:
    task, (said,) = record.task, record.responses
    before = rollouts.roles[:-1] if oracle else ()
    told = {role: given.text for role in before if not (given := rollouts.oracle(task, role)).fault}
    spells, shown = face(rollouts.taskset, Spells), {}
    if spells:  # words of the model's own: beside them what they mean
        texts = [*told.values(), *(turn.text for turn in said.turns)]
        asked, *texts = spells.in_words(task, task.prompt, texts)
        oracles = dict(zip(told, texts, strict=False))
        shown = {"shown": {"prompt": asked, "oracle": oracles, "turns": texts[len(told) :]}}
    return {
        "task": task.id,
        "level": task.level,
        "context": task.context,
        "prompt": task.prompt,
        "oracle": told,
        **shown,
        "turns": [asdict(turn) for turn in said.turns],
        "success": bool(said.success) if rollouts.taskset.judges else None,
        "reason": said.reason,
        **({"status": "failed"} if said.failed else {}),
    }
