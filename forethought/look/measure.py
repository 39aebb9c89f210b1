"""`forethought eval`: the factored numbers (`recipe.measurements`) of a run or a model, or avg@k, pass@k and
maj@k of repeated samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from forethought.core.errors import UserError
from forethought.core.grounding import grounding
from forethought.core.metrics import avg_at_k, maj_at_k, pass_at_k, share_interval
from forethought.core.seeds import seed_of
from forethought.core.types import NO_EVIDENCE, Task, Undrawn
from forethought.look.chosen import oracle_plans, to_measure
from forethought.look.quality import leaks, references
from forethought.look.records import Record, Response, Said, Tell, play
from forethought.look.source import Source
from forethought.recipe.roles import counts_of, once
from forethought.recipe.schema import Recipe, TreeSpec
from forethought.recipe.speaking import roles_of
from forethought.runs.run import EngineOf, rollouts_of, torch_engine
from forethought.tasks import families
from forethought.tasks.base import Comparable, JudgesActs, Origins, Taskset, face
from forethought.workflows.rollout import Rollouts

UNJUDGED = (
    "the task has no grader, so nothing says whether an answer is right; what the run's rewards measured "
    "stands in its metrics.jsonl as eval_reward/ROLE"
)
Values = dict[str, tuple[list[float], int]]
"""Name of a measure -> one value per problem, and how many samples stand behind each."""


def evaluate(
    source: Source,
    *,
    problems: Path | None = None,
    tasks: int | None = None,
    levels: Sequence[int] | None = None,
    tree: TreeSpec = TreeSpec(temperature=0.0),
    samples: int | None = None,
    alone: int = 0,
    engine_of: EngineOf = torch_engine,
    tell: Tell = lambda done, n: None,
) -> dict:
    """{"plan": {"value", "low", "high", "n", "by_level"}, "act": ..., "e2e": ...} on held-out tasks or the
    problems of a file.

    `tree`: greedy, or several `samples` of each problem (of the role that speaks first) with a temperature
    and top_p, top_k and min_p; then "avg@K", "pass@1", "pass@2", "pass@4", ..., "pass@K" (unbiased, arXiv
    2107.03374) and
    "maj@K" (arXiv 2203.11171) stand in place of "e2e". Intervals are 95 % over problems
    (`metrics.share_interval`); "by_file" is there where there are several, "by_task" of a taskset with kinds
    of task. Of other roles it has theirs: the first one's own turn, each later one under the oracle's turns
    before it (where all tasks have an oracle's plan), and all together. With `problems` of a family that
    judges acts apart also "executable",
    "goal" and "optimal" (the goal in the fewest steps).

    Beside the measures: "cost" (means over responses, `measure.costs.Cost`), "latency" where so many tasks
    are played `alone` (`latency`), "grounding" (of the last role's steps under the oracle's turns, where they
    can be watched: `core.grounding`), "tokens" (means), "truncated", "refused" and, where there are some,
    "overlong" (shares; these are not solved), "failed" (a number: responses that the family, its environment,
    grader or parser broke over; they are in no measure, a problem without any other response is in none
    either), "leaks" and "references" where plans are free text (see `look.quality`), "note" where the run's
    data have changed, and "settings". UserError for tasks that are not there, and where none fits the model's
    context (of drawn families: where one does not).
    """
    tree = of_samples(source.recipe, tree, samples)
    if (samples := samples_of(source, tree)) > 1 and tree.temperature == 0:
        raise UserError(
            f"{samples} samples at temperature 0 are {samples} times the same; give a temperature above 0"
        )
    recipe = source.recipe
    with closing(families.build(recipe.task, to_measure=True, limits=recipe.limits)) as taskset:
        return _evaluate(source, taskset, problems, tasks, levels, tree, alone, engine_of, tell)


def _evaluate(
    source: Source,
    taskset: Taskset,
    problems: Path | None,
    tasks: int | None,
    levels: Sequence[int] | None,
    tree: TreeSpec,
    alone: int,
    engine_of: EngineOf,
    tell: Tell,
) -> dict:
    recipe = source.recipe
    chosen = to_measure(taskset, recipe.eval, problems, tasks, levels)
    rollouts = rollouts_of(source.open(taskset, engine_of), taskset, recipe)
    rollouts.check_room(chosen)
    records = list(
        play(
            rollouts,
            chosen,
            source.policies,
            tree,
            seed=seed_of(recipe.eval.seed, "eval"),
            noise=recipe.eval.noise,
            oracle=oracle_plans(rollouts, chosen),
            rows=recipe.engine.rows,
            tell=tell,
        )
    )
    said = [response for record in records for response in record.judged()]
    if not said:
        raise UserError(
            f"all {len(records)} tasks failed, so there is nothing to measure; the most "
            f"frequent: {rollouts.guard.worst()}"
        )
    samples = samples_of(source, tree)
    found = _measures(taskset, records, samples, rollouts.roles, problems is not None)
    found |= _beside(records, said, rollouts.roles)
    if alone:
        found["latency"] = latency(rollouts, chosen[:alone], source.policies, recipe)
    if steps := grounding([pair for record in records for pair in record.steps]):
        found["grounding"] = steps
    if face(taskset, Comparable) and len(rollouts.roles) > 1:
        known = [record for record in records if not isinstance(record.task.state, Undrawn)]
        found |= leaks(taskset, known) | references(taskset, known)
    settings = {
        "model": str(source.path),
        **({} if source.step is None else {"step": source.step}),
        "task": recipe.task.name,
        "samples": samples,
        "temperature": tree.temperature,
        "top_p": tree.top_p,
        **({"top_k": tree.top_k} if tree.top_k else {}),
        **({"min_p": tree.min_p} if tree.min_p else {}),
        "seed": recipe.eval.seed,
    }
    unjudged = [] if taskset.judges else [UNJUDGED]
    notes = [*source.notes, *unjudged, *_broken(rollouts)]
    return found | ({"note": "; ".join(notes)} if notes else {}) | {"settings": settings}


def latency(
    rollouts: Rollouts, tasks: Sequence[Task], policies: Mapping[str, str], recipe: Recipe
) -> dict[str, float]:
    """{"seconds": the median time of an episode that is played with no other beside it, greedily, "tasks": of
    how many}. The machine's speed is in it: compare what was measured in turns on one machine."""
    seed, tree = seed_of(recipe.eval.seed, "eval"), once(rollouts.roles, temperature=0.0)
    seconds = []
    for place, task in enumerate(tasks):
        began = perf_counter()
        rollouts.grow([task], tree, policies, seed, noise=recipe.eval.noise, first=place)
        seconds.append(perf_counter() - began)
    return {"seconds": median(seconds), "tasks": float(len(seconds))}


def _cost(said: Sequence[Response]) -> dict[str, float]:
    """Means over the responses."""
    known = [asdict(r.cost) for r in said if r.cost]
    return {name: avg_at_k([float(one[name]) for one in known]) for name in (known[0] if known else ())}


def _measures(
    taskset: Taskset, records: Sequence[Record], samples: int, roles: Sequence[str], of_file: bool
) -> dict[str, Any]:
    """Each measure with its interval, and by group."""
    values = (_single if samples == 1 else _repeated)(records, roles)
    if of_file and face(taskset, JudgesActs):
        values |= _judged(taskset, records, samples, roles[-1])
    if not taskset.judges:  # that nothing says what is right is no 0
        values = {name: found for name, found in values.items() if name in roles[:-1]}
    groups = {"by_level": _groups(records, lambda record: record.task.level)}
    if face(taskset, Origins):
        kinds = _groups(records, lambda record: taskset.origin(record.task))
        if len(kinds) > 1 or taskset.origins != "file":
            groups[f"by_{taskset.origins}"] = kinds
    return {
        name: _entry(per_problem, behind, groups)
        for name, (per_problem, behind) in values.items()
        if any(value is not None for value in per_problem)
    }


def _beside(records: Sequence[Record], said: Sequence[Response], roles: Sequence[str]) -> dict[str, Any]:
    """What is said beside the measures: lengths, and what was cut off, refused, without room, or failed."""
    found: dict[str, Any] = {
        "tokens": _of_roles(said, roles, lambda turns: sum(turn.tokens for turn in turns)),
        "truncated": _of_roles(said, roles, lambda turns: any(t.status == "truncated" for t in turns)),
        "refused": avg_at_k([r.refused for r in said]),
        "cost": _cost(said),
    }
    if any(r.overlong for r in said):
        found["overlong"] = avg_at_k([float(r.overlong) for r in said])
    failed = sum(len(r.responses) - len(r.judged()) + list(r.alone.values()).count(None) for r in records)
    return found | ({"failed": failed} if failed else {})


def _broken(rollouts: Rollouts) -> list[str]:
    """A sentence where foreign code broke, be it in an answer or in what was asked beside the answers."""
    if not (times := sum(kind.count for kind in rollouts.guard.kinds.values())):
        return []
    often = "once" if times == 1 else f"{times} times"
    return [f"foreign code failed {often}; the most frequent: {rollouts.guard.worst()}"]


def of_samples(recipe: Recipe, tree: TreeSpec, samples: int | None) -> TreeSpec:
    """The tree with one turn of each role, and as many `samples` of the one that speaks first (None: as it
    says)."""
    roles = roles_of(recipe)
    counts = {**dict.fromkeys(roles, 1), **tree.counts} | ({} if samples is None else {roles[0]: samples})
    return replace(tree, counts=counts)


def samples_of(source: Source, tree: TreeSpec) -> int:
    """Of each problem: what the role that speaks first is sampled, with one turn of each other role after
    it."""
    return next(iter(counts_of(tree, roles_of(source.recipe)).values()))


def _single(records: Sequence[Record], roles: Sequence[str]) -> Values:
    first = [next(iter(r.judged()), None) for r in records]
    return {
        **_by_role(records, roles, ([s.valid if s else None for s in first], 1)),
        "e2e": ([s.success if s else None for s in first], 1),
    }


def _repeated(records: Sequence[Record], roles: Sequence[str]) -> Values:
    k = len(records[0].responses)
    right = [[s.success for s in r.judged()] for r in records]
    votes = [[s.vote for s in r.judged()] for r in records]
    values = {
        **_by_role(
            records,
            roles,
            ([avg_at_k([s.valid for s in r.judged()]) if r.judged() else None for r in records], k),
        ),
        f"avg@{k}": ([avg_at_k(grades) if grades else None for grades in right], k),
    }
    for n in [*(1 << i for i in range((k - 1).bit_length())), k]:
        values[f"pass@{n}"] = (
            [pass_at_k(len(grades), int(sum(grades)), n) if len(grades) >= n else None for grades in right],
            k // n,
        )
    return values | {
        f"maj@{k}": ([maj_at_k(*pair) if pair[1] else None for pair in zip(votes, right, strict=True)], 1)
    }


def _by_role(
    records: Sequence[Record], roles: Sequence[str], first: tuple[list[float | None], int]
) -> Values:
    """Each role by itself, where there are several and something judges it: the first one's own turns
    (`first`), the others under the oracle's."""
    if len(roles) == 1:
        return {}
    found = {roles[0]: first}
    if all(record.alone for record in records):
        found |= {role: ([record.alone[role] for record in records], 1) for role in roles[1:]}
    return {role: values for role, values in found.items() if role == roles[-1] or _is_judged(records, role)}


def _is_judged(records: Sequence[Record], role: str) -> bool:
    """Whether the executor judged a turn of the role, or would have: none came to its end."""
    turns = [
        turn for record in records for said in record.responses for turn in said.turns if turn.role == role
    ]
    return any(turn.valid is not None for turn in turns) or all(turn.status in NO_EVIDENCE for turn in turns)


def _judged(taskset: JudgesActs, records: Sequence[Record], k: int, role: str) -> Values:
    """What the family's executor of acts says of every response; after a refused turn there are none, and
    they do nothing."""
    judged = [[_acts(taskset, r.task, s.texts(role)) for s in r.judged()] for r in records]
    success = [[s.success for s in r.judged()] for r in records]
    executable = [[float(j.get("executable", 0)) for j in row] for row in judged]
    optimal = [
        [float(s and j.get("optimal", 0)) for s, j in zip(*pair, strict=True)]
        for pair in zip(success, judged, strict=True)
    ]
    rows = {"executable": executable, "goal": success, "optimal": optimal}
    return {name: ([avg_at_k(shares) if shares else None for shares in row], k) for name, row in rows.items()}


def _acts(taskset: JudgesActs, task: Task, acts: Sequence[str]) -> Mapping[str, object]:
    return taskset.judge_acts(task, " ".join(acts)) if acts else {}


def _groups(records: Sequence[Record], of: Callable[[Record], int | str]) -> dict[int | str, list[int]]:
    """Indices of the records of each level or file, in order."""
    found: dict[int | str, list[int]] = {}
    for i, record in enumerate(records):
        found.setdefault(of(record), []).append(i)
    return dict(sorted(found.items()))


def _entry(
    values: Sequence[float | None], samples: int, groups: dict[str, dict[int | str, list[int]]]
) -> dict:
    def one(part: Sequence[float]) -> dict:
        mean, low, high = share_interval(part, samples)
        return {"value": mean, "low": low, "high": high, "n": len(part)}

    def there(members: Iterable[int]) -> list[float]:
        return [values[i] for i in members if values[i] is not None]

    return one(there(range(len(values)))) | {
        kind: {str(name): one(there(members)) for name, members in found.items() if there(members)}
        for kind, found in groups.items()
    }


def _of_roles(
    said: Sequence[Response], roles: Sequence[str], value: Callable[[Sequence[Said]], float]
) -> dict[str, float | None]:
    """Role -> the mean of `value` of all its turns in a response in which it spoke."""
    spoken = {role: [turns for r in said if (turns := r.of(role)) or role == roles[0]] for role in roles}
    return {
        role: avg_at_k([float(value(t)) for t in turns]) if turns else None for role, turns in spoken.items()
    }
