"""The loss of one pack: its streams, each divided by its own denominator, their gradients and their metrics.

Axes: _N tokens of the `sft` and `pg` streams, _K tokens of the `keep` stream, _H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from forethought.core.errors import RecipeError
from forethought.core.metrics import Max, Mean, Metric, Sum
from forethought.core.types import Objective, Segment
from forethought.engines.torch.forest.forward import Row, Targets, hidden_of, targets_of
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.forest.lora import is_lora
from forethought.engines.torch.loss import objectives
from forethought.engines.torch.policies.table import Policies

Loss = tuple[torch.Tensor, dict[str, Metric]]


def backward(weights: Policies, policy: str, row: Row, objective: Objective) -> Loss:
    """Add the gradient of the pack's loss to the policy's, if the loss is finite. ValueError where the batch
    has a `keep` stream and the objective no policy to keep to."""
    kept = targets_of(row, ("keep",))
    # first: adapters share the modules of the policy that trains
    reference_KH = _reference(weights, policy, row, kept, objective)
    with weights.training(policy) as model:
        tokens = Tokens(row, targets_of(row, ("sft", "pg")))
        places = torch.cat([tokens.targets.before_N, kept.before_N])
        hidden_NH, hidden_KH = hidden_of(model, row, places).split(
            [len(tokens.targets.before_N), len(kept.before_N)]
        )
        loss, metrics = hidden_NH.new_zeros((), dtype=torch.float32), {}
        if tokens.targets.spans:
            logp_N, entropy_N = objectives.logprobs_of(
                logits_of(model), hidden_NH, tokens.targets.ids_N, model.config.get_text_config().vocab_size
            )
            loss, metrics = _on_tokens(logp_N, entropy_N, tokens, objective)
        if kept.spans:
            total, found = _keep(weights, model, hidden_KH, reference_KH, Tokens(row, kept), objective)
            loss, metrics = loss + total, metrics | found
        if torch.isfinite(loss) and loss.requires_grad:
            loss.backward()
    trained = sum(w != 0 for s in row.segments if s.stream for w in s.weight)
    return loss.detach(), metrics | {
        "tokens/trained": Sum(trained),
        "tokens/forward": Sum(sum(len(s.token_ids) for s in row.segments)),
    }


class Tokens:
    """What the segments say of each target token, as flat float32 tensors."""

    def __init__(self, row: Row, targets: Targets):
        self.targets, self.segments, self.device = targets, row.segments, targets.ids_N.device
        self.sizes = torch.tensor([n for _, _, n in targets.spans], device=self.device)

    def field(self, name: str) -> torch.Tensor:
        """Zeros where a segment does not have it."""
        return self._tensor(
            [x for i, _, n in self.targets.spans for x in (getattr(self.segments[i], name) or (0.0,) * n)]
        )

    def where(self, test: Callable[[Segment], object]) -> torch.Tensor:
        """1 on the tokens of the segments that pass the test, else 0."""
        return self._tensor(
            [float(bool(test(self.segments[i]))) for i, _, _ in self.targets.spans]
        ).repeat_interleave(self.sizes)

    def roles(self) -> list[str]:
        return sorted({self.segments[i].role for i, _, _ in self.targets.spans if self.segments[i].role})

    def _tensor(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)


def _on_tokens(logp_N: torch.Tensor, entropy_N: torch.Tensor, tokens: Tokens, objective: Objective) -> Loss:
    """The streams that read log-probs of given tokens: sft, pg, and ref_kl on the tokens of pg."""
    weight_N, metrics, loss = tokens.field("weight"), {}, logp_N.new_zeros(())
    sft_N, pg_N = (
        weight_N * tokens.where(lambda s: s.stream == "sft"),
        weight_N * tokens.where(lambda s: s.stream == "pg"),
    )
    if "sft" in objective.denominators:
        total = objectives.sft(logp_N, sft_N)
        loss = loss + objective.weights.get("sft", 1.0) * total / objective.denominators["sft"]
        metrics["loss/sft"] = Mean(total.item(), float(sft_N.sum()))
    if "pg" in objective.denominators:
        old_N = torch.where(
            tokens.where(lambda s: s.old_logprobs) > 0, tokens.field("old_logprobs"), logp_N.detach()
        )
        total, held = objectives.clipped_pg(
            logp_N, old_N, tokens.field("advantage"), pg_N, objective.clip_low, objective.clip_high
        )
        loss = loss + objective.weights.get("pg", 1.0) * total / objective.denominators["pg"]
        count = float(pg_N.sum())
        gap_N = (logp_N.detach() - old_N).abs() * pg_N
        metrics |= {
            "loss/pg": Mean(total.item(), count),
            "clip/share": Mean(held.item(), count),
            "gap/sampler": Mean(gap_N.sum().item(), count),
            "gap/sampler_max": Max(gap_N.max().item()),
        }
    if objective.ref_kl:
        kl_N = pg_N * tokens.where(lambda s: s.ref_logprobs)
        total = objectives.k3(logp_N, tokens.field("ref_logprobs"), kl_N)
        loss = loss + objective.ref_kl * total / objective.denominators["pg"]
        metrics["kl/ref"] = Mean(total.item(), float(kl_N.sum()))
    return loss, metrics | _by_role(logp_N.detach(), entropy_N, sft_N, pg_N, tokens, objective)


def _by_role(logp_N, entropy_N, sft_N, pg_N, tokens: Tokens, objective: Objective) -> dict[str, Metric]:
    """loss/sft_ROLE, and entropy/ROLE over one stream's tokens only: those of pg where the objective has that
    stream (the policy on what it samples), else those of sft. Demonstrations beside rollouts would move the
    mean though no policy moved."""
    metrics: dict[str, Metric] = {}
    trained_N = ((pg_N if "pg" in objective.denominators else sft_N) != 0).float()
    for role in tokens.roles():
        role_N = tokens.where(lambda s, role=role: s.role == role)
        metrics[f"entropy/{role}"] = Mean(
            (entropy_N * trained_N * role_N).sum().item(), float((trained_N * role_N).sum())
        )
        if "sft" in objective.denominators:
            metrics[f"loss/sft_{role}"] = Mean(
                -(logp_N * role_N * sft_N).sum().item(), float((role_N * sft_N).sum())
            )
    return metrics


# The keep stream --------------------------------------------------------------------------------------------


@torch.no_grad()
def _reference(
    weights: Policies, policy: str, row: Row, kept: Targets, objective: Objective
) -> torch.Tensor | None:
    """Hidden states of the reference before the kept tokens; None where there are none."""
    if not kept.spans:
        return None
    if not objective.keep or objective.keep == policy or "keep" not in objective.denominators:
        raise ValueError(
            f"the keep stream needs a policy other than {policy!r} to keep to (here "
            f"{objective.keep!r}) and a denominator"
        )
    return hidden_of(weights.model(objective.keep), row, kept.before_N)


def _keep(weights: Policies, model, hidden_KH, reference_KH, tokens: Tokens, objective: Objective) -> Loss:
    """weight * sum of w KL(keep || policy) / denominator."""
    other = weights.copies.get(objective.keep, weights.base)
    if other is model and is_lora(model.get_output_embeddings()):
        raise RecipeError(
            "adapter.targets",
            "an adapter on the head gives two policies of one base "
            "different heads, which the keep "
            "stream cannot use at once; leave the head out",
        )
    weight_K = tokens.field("weight")
    kl_K = objectives.kl_of(
        logits_of(other), reference_KH, logits_of(model), hidden_KH, model.config.get_text_config().vocab_size
    )
    total = (weight_K * kl_K).sum()
    loss = objective.weights.get("keep", 1.0) * total / objective.denominators["keep"]
    return loss, {"kl/keep": Mean(total.item(), float(weight_K.sum()))}
