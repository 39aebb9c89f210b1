"""What the policies make of fixed held-out demonstrations, teacher-forced: uncertainty, drift and success by
role.

One forward pass per policy, no decoding, so it can run every few steps. On a demonstration whose every acting
token is the most likely one, greedy decoding under the oracle's plan would write exactly that acting:
`success` needs no sampling. Where a task has other correct answers it is a lower bound of what an evaluation
finds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forethought.core.paired import paired_difference
from forethought.core.types import Segment, Task, TokenStats
from forethought.learn.batches import demonstration_segments, for_policy
from forethought.workflows.drawing import drawn
from forethought.workflows.rollout import Rollouts


@dataclass(frozen=True, slots=True)
class Probed:
    """`metrics`: probe/NAME_ROLE. `scores`: role -> per task 1.0 where greedy would write the demonstration,
    None if there is none."""

    metrics: dict[str, float]
    scores: dict[str, list[float | None]]


class HeldOut:
    """`tasks` demonstrations of each level, from the evaluation split, the same for the same seed."""

    def __init__(self, rollouts: Rollouts, levels: Sequence[int], tasks: int, seed: int):
        self.engine = rollouts.engine
        tasked: list[Task] = []
        failed: list[int] = []
        for i in range(tasks):  # all levels on one context: it is computed once
            tasked += drawn(rollouts.taskset, random.Random(f"probe/{seed}/{i}"), list(levels), "eval")
        # policy -> version, what was asked, the answer
        self.seen: dict[str, tuple[int, tuple, list[TokenStats | None]]] = {}
        self.segments: list[Segment] = demonstration_segments(rollouts, tasked, None, failed=failed)
        self.there = [i for i in range(len(tasked)) if i not in failed]
        at = -1
        self.task_of: list[int] = []  # segment -> task
        said: list[bool] = []  # segment -> whether a turn stands in it or above it
        for s in self.segments:
            above = s.parent >= 0 and said[s.parent]
            said.append(above or s.role is not None)
            at += said[-1] and not above  # the first turn of a demonstration
            self.task_of.append(self.there[at] if at >= 0 else -1)
        self.tasks = len(tasked)

    def measure(
        self, policies: Mapping[str, str], references: Mapping[str, Mapping[str, str]] | None = None
    ) -> Probed:
        """`references`: name (start, base) -> policy -> the frozen copy that KL(policy || copy) is taken
        to."""
        references = references or {}
        stats: list[TokenStats | None] = [None] * len(self.segments)
        names: dict[int, dict[str, str]] = {}
        for policy in sorted(set(policies.values())):
            against = {name: table[policy] for name, table in references.items() if policy in table}
            for i, found in enumerate(self._inspect(policy, policies, sorted(set(against.values())))):
                if found is not None:
                    stats[i], names[i] = found, against
        metrics: dict[str, float] = {}
        scores: dict[str, list[float | None]] = {}
        for role in policies:
            own = [(i, s) for i, s in enumerate(stats) if s is not None and self.segments[i].role == role]
            tokens = sum(len(s.logprobs) for _, s in own)
            if not tokens:
                continue  # a role that nobody demonstrates
            right = dict.fromkeys(self.there, 1.0)
            for i, s in own:
                right[self.task_of[i]] *= float(all(s.hits))
            scores[role] = [right.get(i) for i in range(self.tasks)]
            metrics |= {
                f"probe/success_{role}": sum(right.values()) / len(right),
                f"probe/entropy_{role}": sum(sum(s.entropies) for _, s in own) / tokens,
                f"probe/ppl_{role}": math.exp(min(-sum(sum(s.logprobs) for _, s in own) / tokens, 700.0)),
            }
            for name in references:
                kl = [s.kl[names[i][name]] for i, s in own if name in names[i]]
                if kl:
                    metrics[f"probe/kl_{name}_{role}"] = sum(map(sum, kl)) / sum(map(len, kl))
        return Probed(metrics, scores)

    def _inspect(
        self, policy: str, policies: Mapping[str, str], against: Sequence[str]
    ) -> list[TokenStats | None]:
        """A version names one set of weights, so what does not move is looked at once."""
        version = self.engine.policies()[policy]
        key = (tuple(sorted(policies.items())), tuple(against))
        if self.seen.get(policy, (None,))[:2] != (version, key):
            self.seen[policy] = (
                version,
                key,
                self.engine.inspect(for_policy(self.segments, policy, policies), against),
            )
        return self.seen[policy][2]


def since(start: Probed, now: Probed) -> dict[str, float]:
    """Against the stage's start, on the same tasks: `interference/ROLE` is the change of success (negative:
    harm) with its paired interval; `probe_rel/ppl_ROLE` and `probe_rel/entropy_ROLE` are ratios (relative
    perplexity as in arXiv 2509.03646)."""
    out: dict[str, float] = {}
    for role, scores in now.scores.items():
        change, low, high = paired_difference(start.scores[role], scores)
        out |= {
            f"interference/{role}": change,
            f"interference_low/{role}": low,
            f"interference_high/{role}": high,
        }
        for name in ("ppl", "entropy"):
            before = start.metrics[f"probe/{name}_{role}"]
            if before > 0:
                out[f"probe_rel/{name}_{role}"] = now.metrics[f"probe/{name}_{role}"] / before
    return out
