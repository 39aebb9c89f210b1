"""The rollout trees of a step, one group of peers for each task, with their rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forethought.core.metrics import Metric, Sum, merge
from forethought.core.seeds import seed_of
from forethought.core.types import Task, Tree
from forethought.learn.batch_functions import TrainerState, is_batch_function, with_batch_parts
from forethought.learn.credit import BY_BRANCH
from forethought.learn.curriculum import has_spread
from forethought.learn.functions import loaded, with_parts
from forethought.learn.rewards import Weights, default_weights, paid, reward
from forethought.recipe.roles import counts_of, sampled_in
from forethought.stages.setting import Setting


def groups(s: Setting, k: int, tasks: Sequence[Task]) -> tuple[list[Tree], list[Tree], dict[str, Metric]]:
    """(the groups of step `k`, rewarded; all that were sampled for it; what reward functions log, and how
    many were drawn again). Dynamic
    sampling (DAPO, arXiv 2503.14476): where rewards have no spread, another task takes the place, so many
    times at most."""
    trees, told = grown(s, tasks, seed_of(s.seed, k, "rollouts"), k)
    tried = list(trees)
    if not s.spec.dynamic_sampling:
        return trees, tried, told
    for again in range(s.spec.dynamic_sampling):
        flat = [i for i, tree in enumerate(trees) if not has_spread(tree)]
        if not flat:
            break
        drawn = s.tasks(s.rng(k, "again", again), len(flat), k)
        others, more = grown(s, drawn, seed_of(s.seed, k, "rollouts", again), k)
        told = merge([told, more])
        tried += others
        for i, tree in zip(flat, others, strict=True):
            trees[i] = tree
    return trees, tried, told | {"groups/resampled": Sum(len(tried) - len(trees))}


def grown(s: Setting, tasks: Sequence[Task], seed: int, k: int) -> tuple[list[Tree], dict[str, Metric]]:
    """(the trees of these tasks, rewarded as the stage's recipe says at step `k`; what its functions log)."""
    trees = s.rollouts.grow(tasks, s.spec.tree, s.policies, seed, update=k)
    return rewarded(s, trees, k)


def rewarded(s: Setting, trees: Sequence[Tree], k: int) -> tuple[list[Tree], dict[str, Metric]]:
    """(these trees with the rewards of the stage's recipe at step `k`; what its functions log)."""
    spec, weights = s.spec, weights_in(s)
    trees, told = _with_functions(s, trees, weights, k) if spec.functions else (trees, {})
    return [reward(tree, weights, spec.shaping, spec.functions) for tree in trees], told


def weights_in(s: Setting) -> Weights:
    """What the stage pays for: those of its recipe, else success, counted once."""
    spec = s.spec
    whole = all(counts_of(spec.tree, s.roles).values())
    by_branch = spec.credit.name in BY_BRANCH
    return spec.weights_of_parts or default_weights(by_branch, list(sampled_in(spec.tree, s.roles)), whole)


def pay_of(s: Setting, k: int) -> Callable[[Sequence[Tree]], list[Tree]] | None:
    """What the stage pays at step `k`, where nothing but its functions says what is good; else None."""
    if s.rollouts.taskset.judges or not getattr(s.spec, "functions", None):
        return None
    return lambda trees: rewarded(s, trees, k)[0]


def _with_functions(
    s: Setting, trees: Sequence[Tree], weights: Weights, k: int
) -> tuple[list[Tree], dict[str, Metric]]:
    """The trees with the parts that functions of the recipe give, and what these log."""
    guard, taskset = s.rollouts.guard, s.rollouts.taskset
    functions = loaded(s.spec.functions, "stage.reward")
    whole = {part: f for part, f in functions.items() if is_batch_function(f)}
    each = {part: f for part, f in functions.items() if part not in whole}
    state = TrainerState(global_step=k, max_steps=s.spec.until.steps)
    with guard.watch():
        trees, told = with_batch_parts(
            trees, whole, weights, guard, taskset, s.roles, state, s.rollouts.words.completion
        )
        trees = [with_parts(tree, each, weights, guard) for tree in trees] if each else trees
    return (trees if taskset.judges else [paid(tree, weights, s.roles[-1]) for tree in trees]), told
