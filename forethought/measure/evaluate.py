"""Factored evaluation: the planning alone, the acting alone, and both.

    plan  own plan, judged by the domain's exact executor
    act   own acting under the oracle's plan
    e2e   own acting under the own plan (a refused plan is not executed and counts as a failure of e2e)

Always greedy, always on the same held-out tasks, so that two evaluations can be compared task by task.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from forethought.core.metrics import paired_difference, wilson
from forethought.core.types import Node, Task, Tree
from forethought.measure.gates import Evaluation
from forethought.recipe.schema import EvalSpec, TreeSpec
from forethought.tasks.base import Pool, Taskset, face
from forethought.workflows.drawing import drawn
from forethought.workflows.rollout import Rollouts

SIDES = ("plan", "act", "e2e")


def held_out(domain: Taskset, spec: EvalSpec, levels: Sequence[int]) -> list[Task]:
    """`spec.tasks` tasks of each level, from the evaluation split, the same for the same seed."""
    tasks = []
    for level in levels:
        rng = random.Random(f"{spec.seed}/{level}")
        # a finite set of problems: each at most once, and all where there are no more
        if face(domain, Pool):
            pool = domain.pool(level, "eval")
            tasks += rng.sample(pool, min(spec.tasks, len(pool)))
        else:
            tasks += [drawn(domain, rng, [level], "eval")[0] for _ in range(spec.tasks)]
    return tasks


def evaluate(
    rollouts: Rollouts,
    tasks: Sequence[Task],
    policies: Mapping[str, str],
    *,
    noise: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Scores of every task and their means, by level and over all, with 95 % Wilson intervals.

    Metrics: `eval/SIDE`, `eval/SIDE@LEVEL`, and `eval_low/...`, `eval_high/...`, `eval_n/...` for each; where
    tasks left the model no room in its context, which counts as not solved, `eval_overlong/SIDE` says how
    many. A task that failed on a side (the environment, the family, a grader or the parser broke) is not in
    that side's share, its score is None, and `eval_failed/SIDE` counts it; a side on which all failed has no
    value.
    """
    own, oracle = play(rollouts, tasks, policies, noise=noise, seed=seed)
    scores = score(own, oracle)
    return Evaluation(metrics=summary(scores) | overlong(own, oracle) | failed(scores), scores=scores)


def play(
    rollouts: Rollouts,
    tasks: Sequence[Task],
    policies: Mapping[str, str],
    *,
    noise: bool = False,
    seed: int = 0,
) -> tuple[list[Tree], list[Tree]]:
    """(own plan and own acting, own acting under the oracle's plan), one greedy tree per task each; the
    second is empty where the domain knows no plans."""
    # without an oracle's plans acting cannot be measured alone
    known = rollouts.domain.has_plans
    trees = rollouts.grow(
        tasks,
        TreeSpec(counts={"plan": 1, "act": 1}, temperature=0.0),
        policies,
        seed,
        noise=noise,
        beside=known,
    )
    if not known:
        return trees, []
    parts = [[_under(tree, plan) for plan in tree.children(0)] for tree in trees]
    return [own for own, _ in parts], [oracle for _, oracle in parts]


def _under(tree: Tree, plan: Node) -> Tree:
    """The tree with one of its plans alone."""
    kept = {0, plan.id}
    for node in tree.nodes:  # parents precede children
        if node.parent in kept and node.parent != 0:
            kept.add(node.id)
    return replace(tree, nodes=tuple(n for n in tree.nodes if n.id in kept))


Scores = Mapping[str, Sequence[float | None]]
"""`eval/SIDE` and `eval/SIDE@LEVEL` -> one score per task, in the order of the tasks; None where it
failed."""


def score(own: Sequence[Tree], oracle: Sequence[Tree]) -> dict[str, list[float | None]]:
    """Scores of every task; without `oracle` there is no act."""
    scores: dict[str, list[float | None]] = {f"eval/{side}": [] for side in SIDES if oracle or side != "act"}
    for mine, given in zip(own, oracle or [None] * len(own), strict=True):
        plan = next(n for n in mine.nodes if n.role == "plan")
        valid = None if plan.status == "failed" else plan.reward_parts.get("valid", 0.0)
        row = {"plan": valid, **({"act": success(given)} if given else {}), "e2e": success(mine)}
        for side, value in row.items():
            scores[f"eval/{side}"].append(value)
            scores.setdefault(f"eval/{side}@{mine.task.level}", []).append(value)
    return scores


def overlong(own: Sequence[Tree], oracle: Sequence[Tree]) -> dict[str, float]:
    """`eval_overlong/SIDE`: tasks whose turns on that side had no room in the model's context, for the sides
    that have some."""
    ran_out = {
        "plan": [_no_room(tree, "plan") for tree in own],
        "act": [_no_room(tree, "act") for tree in oracle],
        "e2e": [_no_room(tree, "plan") or _no_room(tree, "act") for tree in own],
    }
    return {f"eval_overlong/{side}": float(sum(tasks)) for side, tasks in ran_out.items() if any(tasks)}


def evaluated(metrics: Mapping[str, float]) -> dict[str, float]:
    """What an evaluation says, of a whole line."""
    return {name: value for name, value in metrics.items() if name.startswith("eval")}


def _no_room(tree: Tree, role: str) -> bool:
    return any(n.role == role and n.status == "overlong" for n in tree.nodes)


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
    """`eval_failed/SIDE`: tasks that failed on that side, for the sides where some did."""
    counts = {side: list(scores.get(f"eval/{side}", ())).count(None) for side in SIDES}
    return {f"eval_failed/{side}": float(n) for side, n in counts.items() if n}


def failures(scores: Scores) -> tuple[int, int]:
    """(tasks that failed on some side, all of them)"""
    rows = list(zip(*(scores[f"eval/{side}"] for side in SIDES if f"eval/{side}" in scores), strict=True))
    return sum(None in row for row in rows), len(rows)


def success(tree: Tree) -> float | None:
    """Whether an execution succeeded; None where something broke instead."""
    if any(n.status == "failed" for n in tree.nodes):
        return None
    return max(
        (n.reward_parts["outcome"] for n in tree.nodes if n.role == "act" and "outcome" in n.reward_parts),
        default=0.0,
    )


def summary(scores: Scores) -> dict[str, float]:
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
