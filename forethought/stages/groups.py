"""The rollout trees of a step, one group of peers for each task, with their rewards."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.metrics import Metric, Sum
from forethought.core.seeds import seed_of
from forethought.core.types import Task, Tree
from forethought.learn.credit import BY_BRANCH
from forethought.learn.curriculum import has_spread
from forethought.learn.functions import loaded, with_parts
from forethought.learn.rewards import default_weights, reward
from forethought.recipe.roles import counts_of, sampled_in
from forethought.stages.setting import Setting


def groups(s: Setting, k: int, tasks: Sequence[Task]) -> tuple[list[Tree], list[Tree], dict[str, Metric]]:
    """(the groups of step `k`, rewarded; all that were sampled for it; how many were drawn again). Dynamic
    sampling (DAPO, arXiv 2503.14476): where rewards have no spread, another task takes the place, so many
    times at most."""
    trees = grown(s, tasks, seed_of(s.seed, k, "rollouts"))
    tried = list(trees)
    if not s.spec.dynamic_sampling:
        return trees, tried, {}
    for again in range(s.spec.dynamic_sampling):
        flat = [i for i, tree in enumerate(trees) if not has_spread(tree)]
        if not flat:
            break
        others = grown(
            s, s.tasks(s.rng(k, "again", again), len(flat), k), seed_of(s.seed, k, "rollouts", again)
        )
        tried += others
        for i, tree in zip(flat, others, strict=True):
            trees[i] = tree
    return trees, tried, {"groups/resampled": Sum(len(tried) - len(trees))}


def grown(s: Setting, tasks: Sequence[Task], seed: int) -> list[Tree]:
    """The trees of these tasks, rewarded as the stage's recipe says."""
    spec = s.spec
    whole = all(counts_of(spec.tree, s.roles).values())
    by_branch = spec.credit.name in BY_BRANCH
    weights = spec.reward or default_weights(by_branch, list(sampled_in(spec.tree, s.roles)), whole)
    trees = s.rollouts.grow(tasks, spec.tree, s.policies, seed)
    if spec.parts:
        functions, guard = loaded(spec.parts, "stage.parts"), s.rollouts.guard
        with guard.watch():
            trees = [with_parts(tree, functions, weights, guard) for tree in trees]
    return [reward(tree, weights, spec.shaping) for tree in trees]
