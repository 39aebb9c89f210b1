"""The stage loop. Read this page first: everything that happens in one step stands here, in the order of the data.

    tasks -> demonstrations or rollout trees -> reward -> credit -> admit -> batch -> update -> evaluate -> gates
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forethought import credit
from forethought.batches import demonstration_segments, for_policy, tree_segments
from forethought.curriculum import LevelSampler, admit
from forethought.engines.base import Engine
from forethought.metrics import Mean, Metric, Sum, merge
from forethought.recipe.schema import StageSpec
from forethought.rewards import default_weights, reward
from forethought.rollout import Rollouts, seed_of
from forethought.schedule import lr_scale
from forethought.types import Advantages, Objective, Segment, Task, Tree


@dataclass(slots=True)
class Step:
    """What one step leaves behind."""

    metrics: dict[str, Metric]
    trees: Sequence[Tree] = ()
    advantages: Sequence[Advantages] = ()


@dataclass(slots=True)
class Stage:
    """One stage at work. `policies` maps every role to the policy that speaks for it; those of `spec.roles` train."""

    engine: Engine
    rollouts: Rollouts
    spec: StageSpec
    policies: Mapping[str, str]
    curriculum: LevelSampler
    seed: int  # of the run and the stage; every step derives its own from it
    references: Mapping[str, str] = field(default_factory=dict)  # policy -> frozen copy from the stage's start

    def trained(self) -> list[str]:
        return sorted({self.policies[role] for role in self.spec.roles})

    def step(self, k: int) -> Step:
        """Step `k` of the stage (from 0). Raises UpdateRefused if a loss (then no policy has moved) or a gradient is not finite."""
        rng = random.Random(seed_of(self.seed, k))
        levels = self.curriculum.draw(rng, self.spec.batch, k)
        share = self.spec.share
        tasks = [t for i in range(0, len(levels), share) for t in self.rollouts.domain.family(rng, levels[i : i + share], "train")]
        return self._imitate(k, tasks, rng) if self.spec.kind == "imitate" else self._reinforce(k, tasks)

    def _imitate(self, k: int, tasks: list[Task], rng: random.Random) -> Step:
        segments = demonstration_segments(self.rollouts, tasks, self._loss_roles(tasks, rng))
        tokens = sum(sum(s.weight) for s in segments)
        objective = Objective(denominators={"sft": max(tokens, 1.0)})
        return Step(self._update(k, segments, objective))

    def _loss_roles(self, tasks: list[Task], rng: random.Random) -> list[set[str]]:
        """For each task, the roles whose tokens carry loss: drawn with the recipe's `loss_share` at the task's level."""
        shares = {role: dict(zip(self.curriculum.levels, row, strict=True)) for role, row in self.spec.loss_share.items()}
        return [{r for r in self.spec.roles if rng.random() < shares.get(r, {}).get(t.level, 1.0)} for t in tasks]

    def _reinforce(self, k: int, tasks: list[Task]) -> Step:
        spec = self.spec
        trees = self.rollouts.grow(tasks, spec.tree, self.policies, seed_of(self.seed, k, "rollouts"))
        weights = spec.reward or default_weights(spec.credit.name, spec.tree.acts)
        trees = [reward(tree, weights) for tree in trees]
        advantages = [credit.assign(tree, spec.credit, spec.roles) for tree in trees]
        self.curriculum.observe(trees)
        kept, counts = admit(trees, advantages)
        train = kept if spec.skip_zero and not spec.ref_kl else range(len(trees))  # KL has a gradient where credit has none
        segments = tree_segments(self.rollouts, [trees[i] for i in train], [advantages[i] for i in train], spec.loss_norm)
        if spec.ref_kl:
            segments = self._with_references(segments)
        objective = Objective(denominators={"pg": self._denominator(trees, advantages)}, clip_low=spec.clip_low,
                              clip_high=spec.clip_high, ref_kl=spec.ref_kl)
        parts = [counts, self.curriculum.metrics(), tree_metrics(trees)]
        for _ in range(spec.updates if segments else 0):
            parts.append(self._update(k, segments, objective))
        return Step(merge(parts), trees, advantages)

    def _update(self, k: int, segments: list[Segment], objective: Objective) -> dict[str, Metric]:
        """One optimizer step of every trained policy; each sees its own roles' tokens as targets, the rest as context."""
        scale = lr_scale(self.spec.optim, k, self.spec.until.steps)
        parts = []
        batches = [for_policy(segments, policy, self.policies) for policy in self.trained()]
        for batch in batches:  # all gradients first: if one is refused, no policy has moved
            parts.append(self.engine.forward_backward(batch, objective))
        for batch in batches:
            if any(s.stream for s in batch.segments):
                parts.append(self.engine.optim_step(batch.policy, scale))
                self.engine.publish(batch.policy)
        return merge(parts)

    def _denominator(self, trees: Sequence[Tree], advantages: Sequence[Advantages]) -> float:
        """Over all groups, those without gradient too: leaving them out must not change the update."""
        sizes = [(n.role, len(n.token_ids)) for tree, a in zip(trees, advantages, strict=True) for n in tree.nodes if n.id in a]
        if self.spec.loss_norm == "tokens":
            return float(max(sum(size for _, size in sizes), 1))
        if self.spec.loss_norm == "sequences":
            return float(max(len(sizes), 1))
        budgets = {"plan": self.spec.tree.plan_tokens or self.rollouts.budgets["plan"],
                   "act": self.spec.tree.act_tokens or self.rollouts.budgets["act"]}
        return float(max(sum(budgets[role] for role, _ in sizes), 1))

    def _with_references(self, segments: list[Segment]) -> list[Segment]:
        from dataclasses import replace

        out = list(segments)
        for policy, reference in self.references.items():
            batch = for_policy(segments, policy, self.policies)
            logps = self.engine.logprobs(replace(batch, policy=reference))
            for i, logp in enumerate(logps):
                if logp:
                    out[i] = replace(out[i], ref_logprobs=logp)
        return out


def tree_metrics(trees: Sequence[Tree]) -> dict[str, Metric]:
    """Rewards and their parts by role, refusals, truncations, failures, tokens sampled."""
    parts: list[dict[str, Metric]] = []
    for tree in trees:
        for n in tree.nodes:
            if n.policy is None:
                continue
            one: dict[str, Metric] = {"tokens/sampled": Sum(len(n.token_ids)), f"tokens/{n.role}": Mean(len(n.token_ids)),
                                      f"truncated/{n.role}": Mean(n.status == "truncated"), f"failed/{n.role}": Mean(n.status == "failed")}
            if n.role == "plan":
                one["refused/plan"] = Mean(n.status in ("refused", "truncated"))
            if n.reward is not None:
                one[f"reward/{n.role}"] = Mean(n.reward)
            parts.append(one | {f"reward/{n.role}.{part}": Mean(v) for part, v in n.reward_parts.items()})
    return merge(parts)
