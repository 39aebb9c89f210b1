"""`forethought sample`: the turns of every role to read, with what the verifiers say of them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from forethought.core.seeds import seed_of
from forethought.look.chosen import oracle_plans, to_show
from forethought.look.measure import of_samples
from forethought.look.records import Record, Tell, play
from forethought.look.source import Source
from forethought.recipe.schema import TreeSpec
from forethought.runs.run import EngineOf, rollouts_of, torch_engine
from forethought.tasks import families
from forethought.tasks.base import Taskset
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
    last role where there are some, and the verdicts. `tree`: temperature and top_p. UserError as `evaluate`
    raises it."""
    recipe, tree = source.recipe, of_samples(source.recipe, tree, 1)
    with closing(families.build(recipe.task, to_measure=True, limits=recipe.limits)) as taskset:
        return _sample(source, taskset, n, level, tree, seed, problems, engine_of, tell)


def _sample(
    source: Source,
    taskset: Taskset,
    n: int,
    level: int | None,
    tree: TreeSpec,
    seed: int,
    problems: Path | None,
    engine_of: EngineOf,
    tell: Tell,
) -> list[dict]:
    recipe = source.recipe
    chosen = to_show(taskset, n, level, seed, problems)
    rollouts = rollouts_of(source.open(taskset, engine_of), taskset, recipe)
    rollouts.check_room(chosen)
    oracle = oracle_plans(rollouts, chosen)
    records = play(
        rollouts,
        chosen,
        source.policies,
        tree,
        seed=seed_of(seed, "trees"),
        noise=recipe.eval.noise,
        oracle=False,
        rows=recipe.engine.rows,
        tell=tell,
    )
    return [_sample_record(rollouts, record, oracle) for record in records]


def _sample_record(rollouts: Rollouts, record: Record, oracle: bool) -> dict:
    task, (said,) = record.task, record.responses
    before = rollouts.roles[:-1] if oracle else ()
    return {
        "task": task.id,
        "level": task.level,
        "context": task.context,
        "prompt": task.prompt,
        "oracle": {role: given.text for role in before if not (given := rollouts.oracle(task, role)).fault},
        "turns": [asdict(turn) for turn in said.turns],
        "success": bool(said.success) if rollouts.taskset.judges else None,
        "reason": said.reason,
        **({"status": "failed"} if said.failed else {}),
    }
