"""Which levels a step draws, and which groups it learns from. Both observe, both have a state that is
saved."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from forethought.core.metrics import Last, Mean, Metric, Sum
from forethought.core.types import Advantages, Branch, Tree
from forethought.learn.peers import value


class LevelSampler:
    """Draws levels by weight; for the first `easy_steps` steps only the easy ones. The caller's generator is
    used, so a resumed run draws the same levels as an uninterrupted one. `observe` keeps a running pass rate
    by level (exponential, `memory` groups) for the metrics."""

    def __init__(
        self,
        levels: Sequence[int],
        weights: Sequence[float] = (),
        easy_levels: Sequence[int] = (),
        easy_steps: int = 0,
        memory: float = 200.0,
    ):
        self.levels = list(levels)
        self.weights = list(weights) or [1.0] * len(self.levels)
        self.easy = [level in easy_levels for level in self.levels]
        self.easy_steps = easy_steps
        self.memory = memory
        self.passed: dict[int, tuple[float, float]] = {}  # level -> (decayed passes, decayed count)

    def draw(self, rng: random.Random, n: int, step: int) -> list[int]:
        """`n` levels by their weights; in the first `easy_steps` steps only easy ones."""
        weights = self.weights
        if step < self.easy_steps:
            weights = [w if easy else 0.0 for w, easy in zip(weights, self.easy, strict=True)]
        return rng.choices(self.levels, weights, k=n)

    def observe(self, trees: Sequence[Tree]) -> None:
        """Update the moving mean of rewards by level, with a memory of `memory` trees."""
        keep = 1 - 1 / self.memory
        for tree in trees:
            rewards = [n.reward for n in tree.nodes if n.reward is not None]
            if rewards:
                passes, count = self.passed.get(tree.task.level, (0.0, 0.0))
                self.passed[tree.task.level] = (passes * keep + sum(rewards) / len(rewards), count * keep + 1)

    def metrics(self) -> dict[str, Metric]:
        """`curriculum/reward@<level>`: the moving mean reward of each level seen."""
        return {f"curriculum/reward@{level}": Last(p / c) for level, (p, c) in sorted(self.passed.items())}

    def state_dict(self) -> dict:
        """What a resumed run needs to draw the same levels; JSON keys are text."""
        return {"passed": {str(k): v for k, v in self.passed.items()}}

    def load_state_dict(self, state: Mapping) -> None:
        """Take up the state that `state_dict` gave."""
        self.passed = {int(k): tuple(v) for k, v in state["passed"].items()}


def admit(trees: Sequence[Tree], advantages: Sequence[Advantages]) -> tuple[list[int], dict[str, Metric]]:
    """Indices of the groups that carry a gradient (some advantage is not zero), and counts of the others by
    reason.

    Leaving the others out changes no gradient: the loss is still divided by all tokens.
    """
    kept = [i for i, a in enumerate(advantages) if any(x for tokens in a.values() for x in tokens)]
    dropped = set(range(len(trees))) - set(kept)
    reasons = {"all_solved": 0, "all_failed": 0, "no_spread": 0, "overlong": 0}
    for i in dropped:
        why = _why(trees[i])
        reasons[why] = reasons.get(why, 0) + 1  # "failed" is named only where something did
    metrics: dict[str, Metric] = {"groups/zero": Mean(len(dropped), len(trees))}
    return kept, metrics | {f"groups/{reason}": Sum(n) for reason, n in reasons.items()}


def has_spread(tree: Tree) -> bool:
    """Whether two branches of one role were rewarded differently."""
    values: dict[str | None, set[float]] = {}
    for branch in tree.branches().values():
        if (worth := value(branch)) is not None:
            values.setdefault(branch.role, set()).add(worth)
    return any(len(found) > 1 for found in values.values())


def _why(tree: Tree) -> str:
    """Why a group carries no gradient."""
    branches = tree.branches()
    won = successes(branches)
    deep = {b.id for b in branches.values() if b.above is not None and branches[b.above].above is not None}
    known = any("outcome" in last_parts(b) for b in ends(branches) if b.id in deep)
    for status in ("failed", "overlong"):
        lost = {b.id for b in branches.values() if any(n.status == status for n in b.turns)}
        # nothing was won, or what other branches were to end in was lost, and no other such end is known
        if lost and (not won or (lost & deep and not known)):
            return status
    if not won:
        return "unrewarded"
    # partial credit is no success
    return "all_failed" if max(won) <= 0 else "all_solved" if min(won) >= 1 else "no_spread"


def successes(branches: Mapping[int, Branch]) -> list[float]:
    """Whether each trajectory succeeded, independent of the reward weights: its outcome, or 0 if it was
    refused. If no trajectory has an outcome, whether the last turn is valid; else rewards."""
    ended = ends(branches)
    for part in ("outcome", "valid"):
        found = [last_parts(b)[part] for b in ended if part in last_parts(b)]
        if found:
            return found + [0.0 for b in ended if b.status == "refused" and part not in last_parts(b)]
    return [n.reward for b in branches.values() for n in b.nodes if n.reward is not None]


def ends(branches: Mapping[int, Branch]) -> list[Branch]:
    """The branches that say how a trajectory ended: nothing forks from them."""
    above = {b.above for b in branches.values()}
    return [b for b in branches.values() if b.id not in above and b.role is not None]


def last_parts(branch: Branch) -> Mapping[str, float]:
    """The parts of its last turn that has some."""
    return next((n.reward_parts for n in reversed(branch.nodes) if n.reward_parts), {})
