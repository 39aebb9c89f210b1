"""What a step leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt

from forethought.core.metrics import Last, Mean, Metric, Sum
from forethought.core.types import Advantages, Tree


@dataclass(slots=True)
class Step:
    """What one step leaves behind."""

    metrics: dict[str, Metric]
    trees: Sequence[Tree] = ()
    advantages: Sequence[Advantages] = ()
    failed: int = 0  # of `tried` trajectories or demonstrations: environment, task, grader or parser broke
    tried: int = 0


def failures(trees: Sequence[Tree]) -> tuple[int, int]:
    """(trajectories that failed, all of them): of every path that a role ends."""
    ends = [leaf.status for tree in trees for leaf in tree.leaves() if leaf.role is not None]
    return ends.count("failed"), len(ends)


def tree_metrics(trees: Sequence[Tree], prepare: Sequence[str]) -> dict[str, Metric]:
    """Rewards by role, with their spread over all turns (`reward_std/ROLE`, a standard deviation), and their
    parts; refusals, truncations, failures, turns without room, tokens sampled."""
    means: dict[str, list[float]] = {}  # name -> total, weight
    rewards: dict[str, list[float]] = {}
    sums: dict[str, int] = {}

    def mean(name: str, x: float, weight: float = 1.0) -> None:
        own = means.setdefault(name, [0.0, 0.0])
        own[0] += x
        own[1] += weight

    for n in (n for tree in trees for n in tree.nodes):
        role, status = n.role, n.status
        if role is None:
            continue
        if n.policy is None:  # the oracle's
            mean(f"failed/{role}", status == "failed")
            continue
        size = len(n.token_ids)
        sums["tokens/sampled"] = sums.get("tokens/sampled", 0) + size
        mean(f"tokens/{role}", size, status != "overlong" and bool(size or status != "failed"))
        for ended in ("truncated", "failed", "overlong"):
            mean(f"{ended}/{role}", status == ended)
        if role in prepare:
            mean(f"refused/{role}", status in ("refused", "truncated"), status != "failed")
        if n.reward is not None:
            mean(f"reward/{role}", n.reward)
            rewards.setdefault(role, []).append(n.reward)
        for part, value in n.reward_parts.items():
            if part == "timed_out":  # a verifier gave up on it
                sums[f"timed_out/{role}"] = sums.get(f"timed_out/{role}", 0) + 1
            else:
                mean(f"reward/{role}.{part}", value)
    counted: dict[str, Metric] = {name: Sum(total) for name, total in sums.items()}
    averaged = {name: Mean(total, weight) for name, (total, weight) in means.items()}
    return counted | averaged | {f"reward_std/{role}": Last(_spread(all_)) for role, all_ in rewards.items()}


def _spread(values: Sequence[float]) -> float:
    mean = fsum(values) / len(values)
    return sqrt(fsum((x - mean) ** 2 for x in values) / len(values))
