"""What a step's own rollouts show: how many different plans they hold, and which formats they are written
in."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from forethought.core.metrics import entropy
from forethought.core.scores import success_of
from forethought.core.types import NO_EVIDENCE, Tree
from forethought.envs.guard import Fault


def meaning_entropy(
    trees: Sequence[Tree], meaning: Callable[[Tree, str], str], role: str
) -> dict[str, float]:
    """Semantic entropy of plans (arXiv 2302.09664, used on planning in 2509.03646): plans of one task that
    mean the same are one.

    `meaning/ROLE`: entropy (nats) over the meanings of a task's plans, the turns of `role`, averaged over
    tasks; `meaning/distinct`: their number. Refused plans have no meaning and are left out, as are those that
    the family cannot read (`meaning` raises Fault); tasks with fewer than two plans say nothing."""
    groups = []
    for tree in trees:
        said: Counter[str] = Counter()
        for n in tree.nodes:
            if n.role == role and n.status == "finished":
                with suppress(Fault):
                    said[meaning(tree, n.text)] += 1
        if sum(said.values()) > 1:
            groups.append(said)
    if not groups:
        return {}
    return {
        f"meaning/{role}": sum(entropy(g.values()) for g in groups) / len(groups),
        "meaning/distinct": sum(len(g) for g in groups) / len(groups),
    }


def format_share(
    trees: Sequence[Tree], patterns: Mapping[str, re.Pattern], collapse: float
) -> dict[str, float]:
    """Which format each rollout is written in, by a declared classifier (Echo Chamber, arXiv 2504.07912): the
    first of `patterns` that matches anywhere in it, else "other". `format/share_NAME`, `format/right_NAME`
    (success within it), `format/entropy` (nats) and `format/collapsed`: 1.0 when one format holds at least
    `collapse` of the rollouts."""
    counts: Counter[str] = Counter()
    right: dict[str, float] = defaultdict(float)
    for tree in trees:
        for leaf in tree.leaves():
            if leaf.role is None or leaf.status in NO_EVIDENCE:
                continue
            path = [n for n in tree.path(leaf) if n.role is not None]
            text = " ".join(n.text for n in path)
            name = next((name for name, pattern in patterns.items() if pattern.search(text)), "other")
            counts[name] += 1
            right[name] += (
                success_of({"outcome": leaf.reward_parts.get("valid", 0.0), **leaf.reward_parts}) or 0.0
            )
    total = sum(counts.values())
    if not total:
        return {}
    names = [*patterns, *(["other"] if counts["other"] else [])]
    out = {f"format/share_{name}": counts[name] / total for name in names}
    out |= {f"format/right_{name}": right[name] / counts[name] for name in names if counts[name]}
    return out | {
        "format/entropy": entropy(counts.values()),
        "format/collapsed": float(max(counts.values()) / total >= collapse),
    }
