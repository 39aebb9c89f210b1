"""Factored evaluation: each role by its policy while the oracle speaks the others, and all roles by their
policies (`recipe.measurements`). Of plan and act:

    plan  own plan, judged by the taskset's exact executor
    act   own acting under the oracle's plan
    e2e   own acting under the own plan (a refused plan is not executed and counts as a failure of e2e)

Where the oracle speaks a role, it speaks it whenever the workflow asks: in ReAct every thought of `act` is
the oracle's, the one for the step that comes next. After a step that failed it says the same again, and after
its last turn that one.

Always greedy, always on the same held-out tasks, so that two evaluations can be compared task by task.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from forethought.core.films import Film
from forethought.core.grounding import grounding
from forethought.core.metrics import wilson
from forethought.core.paired import paired_difference
from forethought.core.scores import success_of
from forethought.core.types import NO_EVIDENCE, Task, Tree, Undrawn
from forethought.measure.costs import costs, rounds
from forethought.measure.gates import Evaluation
from forethought.recipe.measurements import END_TO_END, measurements
from forethought.recipe.roles import once
from forethought.recipe.schema import EvalSpec
from forethought.tasks.base import Origins, Pool, Taskset, Watched, face
from forethought.workflows.drawing import drawn
from forethought.workflows.rollout import Rollouts

Played = Mapping[tuple[str, ...], Sequence[Tree]]
"""The roles that the oracle speaks -> one greedy tree for each task."""


Groups = Callable[[Task], tuple[str, ...]]
"""Task -> the groups that are measured apart and that it is in."""


Pay = Callable[[Sequence[Tree]], Sequence[Tree]]
"""Trees -> the same with the rewards that a stage pays."""


def held_out(taskset: Taskset, spec: EvalSpec, levels: Sequence[int]) -> list[Task]:
    """`spec.tasks` tasks of each level, from the evaluation split, the same for the same seed."""
    tasks: list[Task] = []
    for level in levels:
        rng = random.Random(f"{spec.seed}/{level}")
        # a finite set of problems: each at most once, and all where there are no more
        if given := face(taskset, Pool):
            pool = given.pool(level, "eval")
            tasks += rng.sample(pool, min(spec.tasks, len(pool)))
        else:
            tasks += [drawn(taskset, rng, [level], "eval")[0] for _ in range(spec.tasks)]
    return tasks


def evaluate(
    rollouts: Rollouts,
    tasks: Sequence[Task],
    policies: Mapping[str, str],
    *,
    noise: bool = False,
    seed: int = 0,
    pay: Pay | None = None,
    give_up: int = 0,
) -> Evaluation:
    """Scores of every task and their means, by level and over all, with 95 % Wilson intervals.

    Metrics: `eval/NAME`, `eval/NAME@LEVEL`, of a taskset with kinds of task also `eval/NAME@KIND`, and
    `eval_low/...`, `eval_high/...`, `eval_n/...` for each; where tasks left the model no room in its context,
    which counts as not solved, `eval_overlong/NAME` says how many; where steps can be watched,
    `eval_grounding/METRIC` (`core.grounding`) of acting under the oracle's plan. A task that failed in a
    measurement (the environment, the family, a grader or the parser broke) is not in its share, its score is
    None, and `eval_failed/NAME` counts it; one in which all failed has no value. Where outcomes are partial
    credit, `eval_score/NAME` is their mean. What the episodes cost stands in `eval_calls/e2e` and its like
    (`measure.costs`).

    `pay`: of a taskset that judges nothing, what the stage pays for the trees in which every role speaks:
    `eval_reward/ROLE` and `eval_reward/ROLE.PART` are means over turns.

    `give_up`: so many tasks, spread over the levels, are played first. Where every first turn of theirs was
    cut off the evaluation ends: the numbers are of these tasks, the others have the score None, and
    `eval_unplayed` counts them.
    """
    first, rest = parts_of(len(tasks), give_up)
    if watched := face(rollouts.taskset, Watched):
        watched.watch(tasks)
    played = play(rollouts, tasks, policies, noise=noise, seed=seed, places=first)
    cut = bool(rest) and all_cut(rollouts.roles[0], played[()])
    if rest and not cut:
        more = play(rollouts, tasks, policies, noise=noise, seed=seed, places=rest)
        played = {told: _in_order(trees, more[told], first, rest) for told, trees in played.items()}
    groups = groups_of(rollouts.taskset)
    scores = score(rollouts.roles, played, judged=rollouts.taskset.judges, groups=groups)
    metrics = summary(scores) | overlong(rollouts.roles, played) | failed(scores)
    metrics |= mean_scores(rollouts.roles, played)
    metrics |= costs(played[()], rollouts.roles[-1]) | rounds(played[()], rollouts.roles[0])
    metrics |= mean_rewards(pay(played[()])) if pay else {}
    films: tuple[Film, ...] = ()
    if watched:
        metrics |= {
            f"eval_grounding/{name}": x for name, x in grounded(watched, rollouts.roles, played).items()
        }
        films = tuple(film for tree in played[()] if (film := watched.film(tree)))
    if not cut:
        return Evaluation(metrics=metrics, scores=scores, films=films)
    return Evaluation(
        metrics=metrics | {"eval_unplayed": float(len(rest))},
        scores=_padded(scores, tasks, first, groups),
        films=films,
    )


def groups_of(taskset: Taskset) -> Groups:
    """Task -> what follows the @ of its metrics: its level, and its kind where the taskset has kinds."""
    kinds = face(taskset, Origins)
    if kinds is None or taskset.origins == "file":
        return _level
    return lambda task: _level(task) + (() if isinstance(task.state, Undrawn) else (kinds.origin(task),))


def _level(task: Task) -> tuple[str, ...]:
    return (str(task.level),)


def parts_of(n: int, first: int) -> tuple[list[int], list[int]]:
    """(places of `first` of `n` tasks, evenly spread; those of the rest); all and none where there are no
    more, or where `first` is 0."""
    if not 0 < first < n:
        return list(range(n)), []
    chosen = {i * n // first for i in range(first)}
    return sorted(chosen), [i for i in range(n) if i not in chosen]


def all_cut(role: str, trees: Sequence[Tree]) -> bool:
    """Whether every turn of the role ran to the end of its budget."""
    turns = [n for tree in trees for n in tree.nodes if n.role == role and n.policy is not None]
    return bool(turns) and all(n.status == "truncated" for n in turns)


def _in_order(a: Sequence[Tree], b: Sequence[Tree], first: Sequence[int], rest: Sequence[int]) -> list[Tree]:
    """Both parts in the order of the tasks."""
    return [tree for _, tree in sorted(zip([*first, *rest], [*a, *b], strict=True), key=lambda pair: pair[0])]


def _padded(
    scores: Scores, tasks: Sequence[Task], first: Sequence[int], groups: Groups
) -> dict[str, list[float | None]]:
    """A score for every task, None for those that were not played; by group as in a whole evaluation."""
    found: dict[str, list[float | None]] = {}
    for name in (name for name in scores if "@" not in name):
        given = dict(zip(first, scores[name], strict=True))
        found[name] = [given.get(i) for i in range(len(tasks))]
        for i, task in enumerate(tasks):
            for group in groups(task):
                found.setdefault(f"{name}@{group}", []).append(given.get(i))
    return found


def play(
    rollouts: Rollouts,
    tasks: Sequence[Task],
    policies: Mapping[str, str],
    *,
    noise: bool = False,
    seed: int = 0,
    places: Sequence[int] | None = None,
) -> dict[tuple[str, ...], list[Tree]]:
    """The trees from which the measurements are read: one for each choice of roles that the oracle speaks, if
    the taskset has an oracle. Roles after those are spoken by their policies. `places`: of the tasks that
    are played (None: all)."""
    roles = rollouts.roles
    known = rollouts.taskset.has_plans and rollouts.knows_first_role(tasks)
    tree = once(roles, temperature=0.0)
    some = tasks if places is None else [tasks[i] for i in places]
    oracle = known and len(roles) > 1
    trees = rollouts.grow(some, tree, policies, seed, noise=noise, with_oracle=oracle, places=places)
    if not known or len(roles) == 1:
        return {(): trees}
    played = {(): [_under(tree, 0) for tree in trees], roles[:1]: [_under(tree, 1) for tree in trees]}
    for n in range(2, len(roles)):
        told = once(roles, temperature=0.0, oracle=roles[:n])
        played[roles[:n]] = rollouts.grow(some, told, policies, seed, noise=noise, places=places)
    return played


def _under(tree: Tree, i: int) -> Tree:
    """The tree with only one of its two first branches: the policy's own, or the oracle's. A workflow that
    broke before it forked has neither and counts as failed in both."""
    first = tree.children(0)
    return tree.below(first[i]) if len(first) == 2 else tree


Scores = Mapping[str, Sequence[float | None]]
"""`eval/NAME` and `eval/NAME@GROUP` -> one score per task, in the order of the tasks; None where it
failed."""


def score(
    roles: Sequence[str], played: Played, judged: bool = True, groups: Groups = _level
) -> dict[str, list[float | None]]:
    """Scores of every task, for the measurements of `roles` whose trees are there and which something
    judges. `judged`: the environment says whether an episode succeeded (`Taskset.judges`)."""
    scores: dict[str, list[float | None]] = {}
    for one in measurements(roles):
        trees = played.get(one.under)
        if trees is None or len(trees) != len(played[()]):
            if trees is not None:
                raise ValueError(f"{len(trees)} trees for eval/{one.name}, {len(played[()])} tasks")
            continue
        last = one.judged == roles[-1]
        if not (judged if last else _judges(trees, one.judged)):
            continue
        scores[f"eval/{one.name}"] = []
        for tree in trees:
            value = success(tree) if last else valid(tree, one.judged)
            scores[f"eval/{one.name}"].append(value)
            for group in groups(tree.task):
                scores.setdefault(f"eval/{one.name}@{group}", []).append(value)
    return scores


def mean_scores(roles: Sequence[str], played: Played) -> dict[str, float]:
    """`eval_score/NAME`: the mean outcome over tasks, for the measurements of the last role in which some
    outcome is partial credit and so says more than success. A task that failed is not in it; one that was
    not answered counts 0."""
    found: dict[str, float] = {}
    for one in measurements(roles):
        trees = [tree for tree in played.get(one.under, ()) if success(tree) is not None]
        nodes = [[n for n in tree.nodes if "outcome" in n.reward_parts] for tree in trees]
        if one.judged == roles[-1] and any("success" in n.reward_parts for some in nodes for n in some):
            best = [max((n.reward_parts["outcome"] for n in some), default=0.0) for some in nodes]
            found[f"eval_score/{one.name}"] = sum(best) / len(best)
    return found


def mean_rewards(trees: Sequence[Tree]) -> dict[str, float]:
    """`eval_reward/ROLE`, the mean reward of the role's turns that have one, and `eval_reward/ROLE.PART`, the
    mean of each part of it that has a value."""
    found: dict[str, list[float]] = {}
    for node in (n for tree in trees for n in tree.nodes if n.policy is not None and n.reward is not None):
        found.setdefault(f"eval_reward/{node.role}", []).append(node.reward or 0.0)
        for part, value in node.reward_parts.items():
            found.setdefault(f"eval_reward/{node.role}.{part}", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _judges(trees: Sequence[Tree], role: str) -> bool:
    """Whether the executor judged a turn of the role, or would have if one had been completed."""
    turns = [n for tree in trees for n in tree.nodes if n.role == role and n.policy is not None]
    return any("valid" in n.reward_parts for n in turns) or all(n.status in NO_EVIDENCE for n in turns)


def overlong(roles: Sequence[str], played: Played) -> dict[str, float]:
    """`eval_overlong/NAME`: tasks whose turns in that measurement had no room in the model's context, for the
    measurements that have some."""
    found: dict[str, float] = {}
    for one in measurements(roles):
        speaks = roles if one.name == END_TO_END else (one.judged,)
        count = sum(_no_room(tree, speaks) for tree in played.get(one.under, ()))
        found |= {f"eval_overlong/{one.name}": float(count)} if count else {}
    return found


def grounded(watched: Watched, roles: Sequence[str], played: Played) -> dict[str, float]:
    """The metrics of grounding (`core.grounding`) of the last role, where the oracle speaks all others."""
    trees = played.get(tuple(roles[:-1]), ())
    return grounding([pair for tree in trees for pair in watched.groundings(tree)])


def evaluated(metrics: Mapping[str, float]) -> dict[str, float]:
    """What an evaluation says, of a whole line."""
    return {name: value for name, value in metrics.items() if name.startswith("eval")}


def _no_room(tree: Tree, roles: Sequence[str]) -> bool:
    return any(n.role in roles and n.status == "overlong" for n in tree.nodes)


def _names(scores: Scores) -> list[str]:
    """The measurements over all levels, in order."""
    return [name for name in scores if "@" not in name]


def changes(start: Evaluation, now: Evaluation) -> dict[str, float]:
    """`eval_change/KEY` with `eval_change_low/KEY` and `eval_change_high/KEY`: 95 % intervals of the change
    task by task."""
    flat: dict[str, float] = {}
    for name, scores in sorted(now.scores.items()):
        key = name.split("/", 1)[1]
        if all(None in pair for pair in zip(start.scores[name], scores, strict=True)):
            continue
        change, low, high = paired_difference(list(start.scores[name]), list(scores))
        flat |= {f"eval_change/{key}": change, f"eval_change_low/{key}": low, f"eval_change_high/{key}": high}
    return flat


def failed(scores: Scores) -> dict[str, float]:
    """`eval_failed/NAME`: tasks that failed in that measurement, for those where some did."""
    counts = {name.removeprefix("eval/"): list(scores[name]).count(None) for name in _names(scores)}
    return {f"eval_failed/{name}": float(n) for name, n in counts.items() if n}


def failures(scores: Scores) -> tuple[int, int]:
    """(tasks that failed in some measurement, all of them)"""
    rows = list(zip(*(scores[name] for name in _names(scores)), strict=True))
    return sum(None in row for row in rows), len(rows)


def success(tree: Tree) -> float | None:
    """Whether the trajectory succeeded; None where something broke instead."""
    if any(n.status == "failed" for n in tree.nodes):
        return None
    found = [success_of(n.reward_parts) for n in tree.nodes]
    return max((one for one in found if one is not None), default=0.0)


def valid(tree: Tree, role: str) -> float | None:
    """The executor's verdict on a role, the last one where it judged several of its turns: 0 if it was
    refused, cut off or never spoken, None if it broke."""
    turns = [n for n in tree.nodes if n.role == role and n.policy is not None]
    if not turns:
        return None if any(n.status == "failed" for n in tree.nodes) else 0.0
    turn = next((n for n in reversed(turns) if "valid" in n.reward_parts), turns[0])
    return None if turn.status == "failed" else turn.reward_parts.get("valid", 0.0)


def summary(scores: Scores) -> dict[str, float]:
    """Flat metrics: the mean of each measurement, with Wilson bounds and the number of tasks. A measurement
    without any value has no line."""
    flat: dict[str, float] = {}
    for name, found in sorted(scores.items()):
        key, values = name.split("/", 1)[1], [value for value in found if value is not None]
        if found and not values:
            continue  # a missing number is honest, a 0 is not
        low, high = wilson(sum(values), len(values))
        flat |= {
            name: sum(values) / len(values),
            f"eval_low/{key}": low,
            f"eval_high/{key}": high,
            f"eval_n/{key}": len(values),
        }
    return flat
