"""What a step leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forethought.core.metrics import Mean, Metric, Sum, merge
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
    """Rewards and their parts by role, refusals, truncations, failures, turns without room, tokens
    sampled."""
    parts: list[dict[str, Metric]] = []
    for tree in trees:
        for n in tree.nodes:
            if n.policy is None:
                if n.role is not None:  # the oracle's
                    parts.append({f"failed/{n.role}": Mean(n.status == "failed")})
                continue
            size, said = (
                len(n.token_ids),
                n.status != "overlong" and bool(n.token_ids or n.status != "failed"),
            )
            one: dict[str, Metric] = {
                "tokens/sampled": Sum(size),
                f"tokens/{n.role}": Mean(size, said),
                **{
                    f"{status}/{n.role}": Mean(n.status == status)
                    for status in ("truncated", "failed", "overlong")
                },
            }
            if n.role in prepare:
                one[f"refused/{n.role}"] = Mean(n.status in ("refused", "truncated"), n.status != "failed")
            if n.reward is not None:
                one[f"reward/{n.role}"] = Mean(n.reward)
            if "timed_out" in n.reward_parts:  # a verifier gave up on it
                one[f"timed_out/{n.role}"] = Sum(1)
            parts.append(
                one
                | {
                    f"reward/{n.role}.{part}": Mean(v)
                    for part, v in n.reward_parts.items()
                    if part != "timed_out"
                }
            )
    return merge(parts)
