"""Credit that sees the trees of a step together, and may remember earlier steps: a function `(trees, spec,
state) -> one Advantages a tree`. `state` begins empty, is the row's own to change, holds what JSON can hold,
and is saved with the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forethought.core.types import Advantages, Tree
from forethought.learn.credit.flat import Responses, moments, onto_nodes, responses
from forethought.learn.credit.roles import shared, zeros
from forethought.learn.peers import value
from forethought.recipe.schema import CreditSpec

State = dict[str, Any]


def rae(trees: Sequence[Tree], spec: CreditSpec, state: State) -> list[Advantages]:
    """Role-conditioned advantage estimation of SPIRAL (arXiv 2506.24119): A = r - b, with one running
    baseline b for each (task family, role), b <- decay b + (1 - decay) r after each branch, from 0 on.

    Needs no peers, so one trajectory a task is enough; made for roles that play against each other, whose
    rewards have different means. As in the released code, b is read before it takes in the branch that it is
    for, which keeps it unbiased. The paper's decay is 0.95. A branch is a player's part of the game: its
    turns share the advantage. decay = 0: against the branch before; = 1: the reward itself.
    """
    baselines: dict[str, float] = state.setdefault("baselines", {})
    found: list[Advantages] = []
    for tree in trees:
        advantages = zeros(tree)
        for branch in tree.branches().values():
            reward = value(branch)
            if reward is None:
                continue
            key = f"{tree.task.taskset}/{branch.role}"
            baseline = baselines.get(key, 0.0)
            advantages |= shared([branch], [reward - baseline])
            baselines[key] = spec.decay * baseline + (1 - spec.decay) * reward
        found.append(advantages)
    return found


def reinforce_pp(trees: Sequence[Tree], spec: CreditSpec, state: State) -> list[Advantages]:
    """REINFORCE++ (arXiv 2501.03262): A = (R - mean) / (std + eps) over all responses of the step, not within
    a task. So one response per task is enough, and a task that is always solved gets positive advantages. The
    paper subtracts its KL term from the rewards; here KL is `ref_kl`, a stream of the loss. With one tree per
    batch it is GRPO."""
    found = [responses(tree) for tree in trees]
    return _normalised(trees, found, [one.rewards for one in found], spec.eps)


def reinforce_pp_baseline(trees: Sequence[Tree], spec: CreditSpec, state: State) -> list[Advantages]:
    """REINFORCE++ after subtracting the mean of the task's own responses (same paper), for several responses
    per task: the baseline weighs all tasks alike, and a task with a small spread is not scaled up by its own
    std."""
    found = [responses(tree) for tree in trees]
    centred = []
    for one in found:
        spread = len(set(one.rewards)) > 1
        mean = moments(one.rewards, one.weights)[0] if spread else 0.0
        centred.append([r - mean for r in one.rewards] if spread else [0.0] * len(one.rewards))
    return _normalised(trees, found, centred, spec.eps)


def _normalised(
    trees: Sequence[Tree], found: Sequence[Responses], rewards: Sequence[list[float]], eps: float
) -> list[Advantages]:
    every = [r for one in rewards for r in one]
    if len(set(every)) <= 1:  # 0 by rule
        mean, scale = 0.0, 0.0
    else:
        mean, std = moments(every, [w for one in found for w in one.weights])
        scale = 1 / (std + eps)
    return [
        onto_nodes(tree, one, [(r - mean) * scale for r in mine])
        for tree, one, mine in zip(trees, found, rewards, strict=True)
    ]
