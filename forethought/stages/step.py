"""The stage loop. Read this page first: everything that happens in one step stands here, in the order of the
data.

    tasks -> demonstrations or rollout trees -> reward -> credit -> admit -> batch -> update -> evaluate ->
    gates
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from forethought.core.metrics import Last, Mean, Metric, Sum, merge
from forethought.core.seeds import seed_of
from forethought.core.types import Advantages, Batch, Objective, Segment, Task, Tree
from forethought.engines.base import Engine
from forethought.grams.planning import Planning
from forethought.learn import credit
from forethought.learn.batches import (
    demonstration_segments,
    for_policy,
    for_role,
    joined,
    targets,
    tree_segments,
)
from forethought.learn.curriculum import LevelSampler, admit, has_spread
from forethought.learn.functions import loaded, with_parts
from forethought.learn.losses import term
from forethought.learn.losses.terms import needs
from forethought.learn.rewards import default_weights, reward
from forethought.learn.schedule import lr_scale
from forethought.recipe.roles import counts_of, sampled_in
from forethought.recipe.schema import TrainingSpec
from forethought.workflows.drawing import drawn
from forethought.workflows.rollout import Rollouts

DEMOS_SHARE = 8  # demonstrations of the other role that share a context, where the domain has contexts


@dataclass(slots=True)
class Step:
    """What one step leaves behind."""

    metrics: dict[str, Metric]
    trees: Sequence[Tree] = ()
    advantages: Sequence[Advantages] = ()
    failed: int = 0  # of `tried` trajectories or demonstrations: environment, task, grader or parser broke
    tried: int = 0


@dataclass(slots=True)
class Stage:
    """One stage at work. `policies` maps every role, in the order of the workflow, to the policy that speaks for
    it; those of `spec.roles` train."""

    engine: Engine
    rollouts: Rollouts
    spec: TrainingSpec
    policies: Mapping[str, str]
    curriculum: LevelSampler
    seed: int  # of the run and the stage; every step derives its own from it
    # policy -> frozen copy from the stage's start
    references: Mapping[str, str] = field(default_factory=dict)
    planning: Planning | None = None  # finds the planning tokens, where the credit names a list of grams
    remembered: dict = field(
        default_factory=dict
    )  # what credit keeps between steps; saved with the checkpoint

    @property
    def roles(self) -> tuple[str, ...]:
        """All of the workflow, in the order in which they first speak."""
        return tuple(self.policies)

    def trained(self) -> list[str]:
        """Names of the policies that this stage moves, sorted."""
        return sorted({self.policies[role] for role in self.spec.roles})

    def others(self) -> list[str]:
        """Roles that do not train but speak through weights that do: what interference can reach."""
        return [
            role
            for role in self.policies
            if role not in self.spec.roles and self.policies[role] in self.trained()
        ]

    def sharing(self) -> list[str]:
        """The roles that training can harm: those that do not train, else those that train in weights they share."""
        return self.others() or [
            role for role in self.spec.roles if len(self._speakers(self.policies[role])) > 1
        ]

    def beside(self, role: str) -> str:
        """The role whose weights `role` shared before it was isolated: one that trains, where there is another."""
        return next(other for other in (*self.spec.roles, *self.roles) if other != role)

    def step(self, k: int, conflict: bool = False) -> Step:
        """Step `k` of the stage (from 0); `conflict`: also measure the cosine between the roles' gradients.
        Raises UpdateRefused if a loss or a gradient is not finite: then no policy has moved in this update."""
        rng = random.Random(seed_of(self.seed, k))
        tasks = self._tasks(rng, self.spec.batch, k)
        imitates = self.spec.learns_from == "demonstrations"
        return self._imitate(k, tasks, rng, conflict) if imitates else self._reinforce(k, tasks, conflict)

    def _tasks(self, rng: random.Random, n: int, k: int) -> list[Task]:
        """`n` tasks of step `k`; those of a share stand on one context."""
        imitates, share = self.spec.learns_from == "demonstrations", self.spec.share
        levels = self.curriculum.draw(rng, n, k)
        draw = (
            self.rollouts.shown
            if imitates
            else lambda rng, some: drawn(self.rollouts.domain, rng, some, "train")
        )
        return [t for i in range(0, len(levels), share) for t in draw(rng, levels[i : i + share])]

    def _imitate(self, k: int, tasks: list[Task], rng: random.Random, conflict: bool) -> Step:
        failed: list[int] = []
        segments = demonstration_segments(self.rollouts, tasks, self._loss_roles(tasks, rng), failed=failed)
        counts = {"failed/task": Mean(len(failed), len(tasks))}
        if not segments:
            return Step(counts, failed=len(failed), tried=len(tasks))
        objective = self._objective("sft", max(targets(segments, "sft"), 1.0))
        found = self._update(k, *self._keeping(k, segments, objective), conflict)
        return Step(found | counts, failed=len(failed), tried=len(tasks))

    def _loss_roles(self, tasks: list[Task], rng: random.Random) -> list[set[str]]:
        """For each task, the roles whose tokens carry loss: drawn with the recipe's `loss_share` at the
        task's level."""
        shares = {
            role: dict(zip(self.curriculum.levels, row, strict=True))
            for role, row in self.spec.loss_share.items()
        }
        return [
            {r for r in self.spec.roles if rng.random() < shares.get(r, {}).get(t.level, 1.0)} for t in tasks
        ]

    def _reinforce(self, k: int, tasks: list[Task], conflict: bool) -> Step:
        spec = self.spec
        trees, tried = self._groups(k, tasks)
        entropies = (
            self._entropies(trees)
            if spec.credit.alpha and spec.credit.mask in credit.NEED_ENTROPIES
            else [None] * len(trees)
        )
        masks, classes = self._classes(trees, entropies)
        scored = credit.score(trees, spec.credit, self.remembered.setdefault("row", {}))
        advantages = [
            credit.measured(
                tree,
                spec.credit,
                credit.weigh(
                    tree,
                    spec.credit,
                    given,
                    spec.roles,
                    seed_of(self.seed, k, "mask", i),
                    entropies[i],
                    masks[i],
                ),
            )
            for i, (tree, given) in enumerate(zip(trees, scored, strict=True))
        ]
        credit.watch(trees, spec.credit.name, spec.roles, self.remembered.setdefault("coverage", {}))
        self.curriculum.observe(tried)
        kept, counts = admit(trees, advantages)
        # KL has a gradient where credit has none
        train = kept if spec.skip_zero and not spec.ref_kl else range(len(trees))
        segments = tree_segments(
            self.rollouts, [trees[i] for i in train], [advantages[i] for i in train], spec.loss_norm
        )
        objective = self._objective("pg", self._denominator(trees, advantages))
        if any(needs(one, "ref") for one in objective.terms):
            segments = self._with_references(segments)
        segments, objective = self._keeping(k, segments, objective)
        if spec.dynamic_sampling:
            counts["groups/resampled"] = Sum(len(tried) - len(trees))
        parts = [counts, self.curriculum.metrics(), tree_metrics(tried, self.roles[:-1]), classes]
        for i in range(spec.updates if segments else 0):
            parts.append(self._update(k, segments, objective, conflict and i == 0))
        return Step(merge(parts), trees, advantages, *failures(tried))

    def _groups(self, k: int, tasks: list[Task]) -> tuple[list[Tree], list[Tree]]:
        """(the groups of the step, rewarded; all that were sampled for it). Dynamic sampling (DAPO, arXiv
        2503.14476): where rewards have no spread, another task takes the place, so many times at most."""
        trees = self._grown(tasks, seed_of(self.seed, k, "rollouts"))
        tried = list(trees)
        for again in range(self.spec.dynamic_sampling):
            flat = [i for i, tree in enumerate(trees) if not has_spread(tree)]
            if not flat:
                break
            tasks = self._tasks(random.Random(seed_of(self.seed, k, "again", again)), len(flat), k)
            others = self._grown(tasks, seed_of(self.seed, k, "rollouts", again))
            tried += others
            for i, tree in zip(flat, others, strict=True):
                trees[i] = tree
        return trees, tried

    def _grown(self, tasks: list[Task], seed: int) -> list[Tree]:
        spec = self.spec
        whole = all(counts_of(spec.tree, self.roles).values())
        by_branch = spec.credit.name in credit.BY_BRANCH
        weights = spec.reward or default_weights(by_branch, list(sampled_in(spec.tree, self.roles)), whole)
        trees = self.rollouts.grow(tasks, spec.tree, self.policies, seed)
        if spec.parts:
            functions, guard = loaded(spec.parts, "stage.parts"), self.rollouts.guard
            with guard.watch():
                trees = [with_parts(tree, functions, weights, guard) for tree in trees]
        return [reward(tree, weights, spec.shaping) for tree in trees]

    def _objective(self, stream: str, denominator: float) -> Objective:
        """The stage's loss and, on rollouts, the pull to the policy at its start."""
        own = term(self.spec.loss_name, denominator, stream=stream, options=self.spec.loss.options)
        away = term("k3", denominator, weight=self.spec.ref_kl)
        return Objective((own, away) if self.spec.ref_kl else (own,))

    def _classes(
        self, trees: Sequence[Tree], entropies: Sequence[credit.Entropies | None]
    ) -> tuple[Sequence[credit.Mask | None], dict[str, Metric]]:
        """The planning tokens of each tree, of a list of grams or of the roles before the last, and what the two
        classes of tokens look like; nothing of a stage that does not tell them apart."""
        if self.planning:
            seen = self.planning.look(trees)
            return seen.masks, credit.class_metrics(trees, seen.masks, entropies) | seen.metrics()
        if not self.spec.credit.alpha:
            return [None] * len(trees), {}
        masks = [credit.preparing_mask(tree, self.roles[-1]) for tree in trees]
        return masks, credit.class_metrics(trees, masks, entropies)

    def _entropies(self, trees: Sequence[Tree]) -> list[dict[int, tuple[float, ...]]]:
        """Of each tree, node id -> the entropy of the policy that wrote it at each of its tokens (one more
        forward pass)."""
        written = [
            {n.id: (0.0,) * len(n.token_ids) for n in tree.nodes if n.policy is not None and n.token_ids}
            for tree in trees
        ]
        segments = tree_segments(self.rollouts, trees, written, "tokens")
        found = [dict.fromkeys(row, ()) for row in written]
        order = [(i, n.id) for i, tree in enumerate(trees) for n in tree.nodes if n.id in written[i]]
        at = [j for j, s in enumerate(segments) if s.stream is not None]
        for policy in sorted(set(self.policies.values())):
            stats = self.engine.inspect(for_policy(segments, policy, self.policies))
            for (i, node), j in zip(order, at, strict=True):
                if stats[j] is not None:
                    found[i][node] = stats[j].entropies
        return found

    def _keeping(
        self, k: int, segments: list[Segment], objective: Objective
    ) -> tuple[list[Segment], Objective]:
        """With demonstrations of the roles that do not train: their tokens to imitate (replay), or to speak
        about as at the start (KL)."""
        isolation, terms = self.spec.isolation, list(objective.terms)
        if isolation.replay and self.others():
            replayed = self._demonstrations(k, "replay", "sft")
            if not replayed:  # the family could show none
                pass
            elif (
                terms[0].stream == "sft"
            ):  # imitation: one stream, in which the other role's tokens weigh less
                scale = isolation.replay * terms[0].denominator / targets(replayed, "sft")
                replayed = [replace(s, weight=tuple(scale * w for w in s.weight)) for s in replayed]
            else:
                terms.append(term("sft", targets(replayed, "sft"), weight=isolation.replay))
            segments = joined(segments, replayed)
        if isolation.keep_kl and self.others():
            kept = self._demonstrations(k, "keep", "keep")
            if kept:
                start = self.references.get(self.policies[self.others()[0]], "")
                terms.append(term("kl", targets(kept, "keep"), weight=isolation.keep_kl, reference=start))
                segments = joined(segments, kept)
        return segments, Objective(tuple(terms))

    def _demonstrations(self, k: int, name: str, stream: str, roles: set[str] | None = None) -> list[Segment]:
        """Demonstrations on all levels of the task, drawn anew at every step; `roles` (default: those that do
        not train) carry loss."""
        rng = random.Random(seed_of(self.seed, k, name))
        n = max(1, round(self.spec.isolation.demos * self.spec.batch))
        levels = rng.choices(self.rollouts.domain.levels, k=n)
        tasks = [
            t for i in range(0, n, DEMOS_SHARE) for t in self.rollouts.shown(rng, levels[i : i + DEMOS_SHARE])
        ]
        return demonstration_segments(self.rollouts, tasks, [roles or set(self.others())] * n, stream)

    def _update(
        self, k: int, segments: list[Segment], objective: Objective, conflict: bool
    ) -> dict[str, Metric]:
        """One optimizer step of every trained policy; each sees its own roles' tokens as targets, the rest as
        context."""
        scale = lr_scale(self.spec.optim, k, self.spec.until.steps)
        parts = []
        batches = [for_policy(segments, policy, self.policies) for policy in self.trained()]
        for batch in batches:  # all gradients first: if one is refused, no policy has moved
            shared = conflict and len(self._speakers(batch.policy)) > 1
            if self.spec.isolation.surgery != "none":
                parts.append(self._by_role(k, batch, objective, shared))
                continue
            parts.append(self.engine.forward_backward(batch, objective))
            if shared:
                parts.append(self._conflict(k, batch, objective))
        moving = [batch.policy for batch in batches if any(s.stream for s in batch.segments)]
        if len(moving) > 1:  # one alone is checked by its own step
            self.engine.check_gradients(moving)
        for policy in moving:
            parts.append(self.engine.optim_step(policy, scale))
            self.engine.publish(policy)
        return merge(parts)

    def _speakers(self, policy: str) -> list[str]:
        """The roles that speak through a policy."""
        return [role for role in self.roles if self.policies[role] == policy]

    def _by_role(self, k: int, batch: Batch, objective: Objective, conflict: bool) -> dict[str, Metric]:
        """The gradient, gathered role by role and reconciled (PCGrad); its conflict is that of before."""
        parts, names = [], []
        for role in self._speakers(batch.policy):
            own = for_role(batch, role)
            if any(s.stream for s in own.segments):
                parts.append(self.engine.forward_backward(own, objective))
                self.engine.set_aside(batch.policy, role)
                names.append(role)
        if conflict and len(names) > 1:
            parts.append(pairwise(names, lambda a, b: self.engine.conflict(batch.policy, a, b)))
        parts.append(
            self.engine.combine(
                batch.policy, names, self.spec.isolation.surgery, seed_of(self.seed, k, "surgery")
            )
        )
        return merge(parts)

    def _conflict(self, k: int, batch: Batch, objective: Objective) -> dict[str, Metric]:
        """How far the gradients of the roles that speak through one policy pull apart. A pass more for each role
        (for two that train, for one of them); the gathered gradient stays as it is."""
        engine, policy, started = self.engine, batch.policy, time.perf_counter()
        speakers = self._speakers(policy)
        roles = [role for role in speakers if any(s.stream and s.role == role for s in batch.segments)]
        # nothing to compare, or nothing to compare it with
        if not roles or (len(roles) == 1 and not self.rollouts.shows()):
            return {}
        engine.set_aside(policy, "all")
        if len(speakers) == len(roles) == 2:  # the whole, less one of them, is the other
            engine.forward_backward(for_role(batch, roles[-1]), objective)
            engine.set_aside(policy, "one")
            found = pairwise(roles, lambda a, b: engine.conflict(policy, "all", "one", part=True))
        elif len(roles) == 1 and len(speakers) == 2:  # the other role's is what imitation would ask for
            if not self._imitated(k, policy, [role for role in speakers if role not in roles]):
                engine.combine(policy, ["all"])
                return {}
            engine.set_aside(policy, "one")
            found = pairwise(speakers, lambda a, b: engine.conflict(policy, "all", "one"))
        else:
            found = pairwise(
                [role for role in speakers if self._alone(k, batch, objective, role)],
                lambda a, b: engine.conflict(policy, a, b),
            )
        engine.combine(policy, ["all"])
        return found | {"seconds_probe/conflict": Sum(time.perf_counter() - started)}

    def _alone(self, k: int, batch: Batch, objective: Objective, role: str) -> bool:
        """Set one role's gradient aside under its name: of its own objective, or of the imitation that a role which
        does not train would ask for. False where the family can show nothing of it."""
        own = for_role(batch, role)
        if any(s.stream for s in own.segments):
            self.engine.forward_backward(own, objective)
        elif not (self.rollouts.shows() and self._imitated(k, batch.policy, [role])):
            return False
        self.engine.set_aside(batch.policy, role)
        return True

    def _imitated(self, k: int, policy: str, roles: Sequence[str]) -> bool:
        """Gather the gradient of demonstrations of `roles`; False where the family can show none."""
        shown = self._demonstrations(k, "conflict", "sft", set(roles))
        if not shown:
            return False
        shown = for_policy(shown, policy, self.policies)
        self.engine.forward_backward(shown, Objective((term("sft", targets(shown.segments, "sft")),)))
        return True

    def _denominator(self, trees: Sequence[Tree], advantages: Sequence[Advantages]) -> float:
        """Over all groups, those without gradient too: leaving them out must not change the update."""
        sizes = [
            (n.role, len(n.token_ids))
            for tree, a in zip(trees, advantages, strict=True)
            for n in tree.nodes
            if n.id in a
        ]
        if self.spec.loss_norm == "tokens":
            return float(max(sum(size for _, size in sizes), 1))
        if self.spec.loss_norm == "sequences":
            return float(max(len(sizes), 1))
        tokens = self.spec.tree.tokens
        budgets = {role: tokens.get(role) or self.rollouts.words.budgets[role] for role in self.roles}
        return float(max(sum(budgets[role] for role, _ in sizes), 1))

    def _with_references(self, segments: list[Segment]) -> list[Segment]:
        out = list(segments)
        for policy, reference in self.references.items():
            batch = for_policy(segments, policy, self.policies)
            logps = self.engine.logprobs(replace(batch, policy=reference))
            for i, logp in enumerate(logps):
                if logp:
                    out[i] = replace(out[i], ref_logprobs=logp)
        return out


def pairwise(roles: Sequence[str], cosines: Callable[[str, str], Mapping[str, float]]) -> dict[str, Metric]:
    """`conflict/GROUP`: the cosine between the gradients of two roles, by group of layers. Of more roles it is the
    lowest over the pairs, and `conflict/A-B/GROUP` is there for each pair."""
    pairs = {(a, b): cosines(a, b) for a, b in combinations(roles, 2)}
    groups = dict.fromkeys(group for found in pairs.values() for group in found)
    found = {
        f"conflict/{group}": Last(min(row[group] for row in pairs.values() if group in row))
        for group in groups
    }
    if len(pairs) > 1:
        found |= {
            f"conflict/{a}-{b}/{group}": Last(c) for (a, b), row in pairs.items() for group, c in row.items()
        }
    return found


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
