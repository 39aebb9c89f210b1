"""The update: what a batch is scored by, and one optimizer step of every policy that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from forethought.core.metrics import Metric, merge
from forethought.core.types import Advantages, Objective, Segment, Tree
from forethought.learn.batches import for_policy, targets
from forethought.learn.losses import term
from forethought.learn.losses.terms import needs
from forethought.learn.schedule import lr_scale
from forethought.recipe.schema import TrainingSpec
from forethought.stages.isolation.conflict import conflict_of
from forethought.stages.isolation.reconcile import reconciled
from forethought.stages.setting import Setting


def update(
    s: Setting, k: int, segments: list[Segment], objective: Objective, conflict: bool
) -> dict[str, Metric]:
    """One optimizer step of every trained policy; each sees its own roles' tokens as targets, the rest as
    context. `conflict`: also measure how far the roles' gradients pull apart in weights that they share."""
    with s.rollouts.parts.part("training"):
        return _updated(s, k, segments, objective, conflict)


def _updated(
    s: Setting, k: int, segments: list[Segment], objective: Objective, conflict: bool
) -> dict[str, Metric]:
    scale = lr_scale(s.spec.optim, k, s.spec.until.steps)
    parts = []
    batches = [for_policy(segments, policy, s.policies) for policy in s.trained()]
    for batch in batches:  # all gradients first: if one is refused, no policy has moved
        shared = conflict and len(s.speakers(batch.policy)) > 1
        if s.spec.isolation.surgery != "none":
            parts.append(reconciled(s, k, batch, objective, shared))
            continue
        parts.append(s.engine.forward_backward(batch, objective))
        if shared:
            parts.append(conflict_of(s, k, batch, objective))
    moving = [batch.policy for batch in batches if any(one.stream for one in batch.segments)]
    if len(moving) > 1:  # one alone is checked by its own step
        s.engine.check_gradients(moving)
    for policy in moving:
        parts.append(s.engine.optim_step(policy, scale))
        s.engine.publish(policy)
    return merge(parts)


def objective_of(spec: TrainingSpec, stream: str, denominator: float) -> Objective:
    """The stage's loss and, on rollouts, the pull to the policy at its start."""
    own = term(spec.loss_name, denominator, stream=stream, options=spec.loss.options)
    away = term("k3", denominator, weight=spec.ref_kl)
    return Objective((own, away) if spec.ref_kl else (own,))


def imitation(spec: TrainingSpec, segments: Sequence[Segment]) -> Objective:
    """The stage's loss on the tokens of these demonstrations."""
    return objective_of(spec, "sft", max(targets(segments, "sft"), 1.0))


def on_rollouts(
    s: Setting, segments: list[Segment], trees: Sequence[Tree], advantages: Sequence[Advantages]
) -> tuple[list[Segment], Objective]:
    """The stage's loss on the tokens of these trees, which have the log-probs of the stage's start where the
    loss reads them."""
    objective = objective_of(s.spec, "pg", _denominator(s, trees, advantages))
    if any(needs(one, "ref") for one in objective.terms):
        with s.rollouts.parts.part("training"):
            segments = _with_references(s, segments)
    return segments, objective


def _denominator(s: Setting, trees: Sequence[Tree], advantages: Sequence[Advantages]) -> float:
    """Over all groups, those without gradient too: leaving them out must not change the update."""
    sizes = [
        (n.role, len(n.token_ids))
        for tree, a in zip(trees, advantages, strict=True)
        for n in tree.nodes
        if n.id in a and n.role is not None
    ]
    if s.spec.loss_norm == "tokens":
        return float(max(sum(size for _, size in sizes), 1))
    if s.spec.loss_norm == "sequences":
        return float(max(len(sizes), 1))
    tokens = s.spec.tree.tokens
    budgets: dict[str, int] = {role: tokens.get(role) or s.rollouts.words.budgets[role] for role in s.roles}
    return float(max(sum(budgets[role] for role, _ in sizes), 1))


def _with_references(s: Setting, segments: list[Segment]) -> list[Segment]:
    out = list(segments)
    for policy, reference in s.references.items():
        batch = for_policy(segments, policy, s.policies)
        logps = s.engine.logprobs(replace(batch, policy=reference))
        for i, logp in enumerate(logps):
            if logp:
                out[i] = replace(out[i], ref_logprobs=logp)
    return out
