"""The loss of one pack: the terms of an objective on its tokens, their gradients and their metrics.

Axes: _N tokens whose log-probs are read, _K tokens whose distributions a term compares, _H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from forethought.core.errors import RecipeError
from forethought.core.metrics import Mean, Metric, Sum
from forethought.core.types import Objective, Segment, Term
from forethought.engines.torch.forest.activations import Activations, Found
from forethought.engines.torch.forest.forward import Row, Targets, hidden_of, targets_of
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.forest.lora import is_lora
from forethought.engines.torch.loss import objectives
from forethought.engines.torch.loss.tokens import Tokens
from forethought.engines.torch.policies.table import Policies
from forethought.learn.losses.terms import GAPS, measure, split

Loss = tuple[torch.Tensor, dict[str, Metric]]
Slopes = Sequence[torch.Tensor | None]
"""Of each segment, how the loss moves with the log-probs of its tokens; None: no term reads them."""


def backward(
    weights: Policies,
    policy: str,
    row: Row,
    objective: Objective,
    slopes: Slopes | None = None,
    left: Activations | None = None,
) -> Loss:
    """Add the gradient of the pack's loss to the policy's, if the loss is finite. ValueError where a stream
    has no term, or a term no reference to compare with.

    `slopes` (of the row's segments, from `slopes_of`): the terms that read log-probs are worked out already.
    `left`: what sampling has left under the policy's weights; where it covers the row, the forward pass is
    read there.
    """
    streams = {s.stream for s in row.segments if s.stream}
    given, whole = split(objective, policy, streams)
    said = targets_of(row, [term.stream for term in given])
    kept = [targets_of(row, [term.stream]) for term in whole]
    # first: adapters share the modules of the policy that trains
    references = [_reference(weights, row, term, targets) for term, targets in zip(whole, kept, strict=True)]
    with weights.training(policy) as model:
        all_targets = [said, *kept]
        places_M = torch.cat([t.before_N for t in all_targets])
        found = left.find(row.packed, row.segments, places_M) if left else None
        hidden_NH, *hidden_KH = hidden_of(model, row, places_M, found).split(
            [len(t.before_N) for t in all_targets]
        )
        loss, metrics = hidden_NH.new_zeros((), dtype=torch.float32), {}
        if said.spans:
            logp_N, entropy_N = objectives.logprobs_of(
                logits_of(model),
                hidden_NH,
                said.ids_N,
                model.config.get_text_config().vocab_size,
                None if found is None else partial(_left_logits, found, said.before_N.numpy()),
                objectives.absent_of(model, row, said),
            )
            tokens = Tokens(row.segments, said.spans, logp_N)
            if slopes is None:
                loss, metrics = _on_tokens(tokens, given)
            else:
                loss = (torch.cat([slopes[i] for i, _, _ in said.spans]) * logp_N).sum()
            if found is not None:  # the sampler's own numbers: there is nothing to compare
                metrics = {name: metric for name, metric in metrics.items() if name not in GAPS}
            metrics |= _entropies(entropy_N, tokens, objective.terms[0].stream)
        for term, targets, own_KH, reference_KH in zip(whole, kept, hidden_KH, references, strict=True):
            total, found = _on_distributions(weights, model, own_KH, reference_KH, row, targets, term)
            loss, metrics = loss + total, metrics | found
        if torch.isfinite(loss) and loss.requires_grad:
            loss.backward()
    trained = sum(w != 0 for s in row.segments if s.stream for w in s.weight)
    return loss.detach(), metrics | {
        "tokens/trained": Sum(trained),
        "tokens/forward": Sum(sum(len(s.token_ids) for s in row.segments)),
    }


def _left_logits(found: Found, places_N: np.ndarray, start: int, end: int) -> np.ndarray:
    return found.logits(places_N[start:end])


def slopes_of(
    segments: Sequence[Segment],
    logprobs: Sequence[Sequence[float]],
    policy: str,
    objective: Objective,
    device: torch.device,
) -> tuple[Slopes, torch.Tensor, dict[str, Metric]]:
    """(the slopes of all segments of a batch, the loss, its metrics) of the terms that read log-probs, from
    the log-probs alone: how packs go backward where a loss reads sequences that lie in several of them."""
    given, _ = split(objective, policy, {s.stream for s in segments if s.stream})
    streams, spans, first = {term.stream for term in given}, [], 0
    for i, s in enumerate(segments):
        if s.stream in streams:
            spans.append((i, first, len(s.token_ids)))
            first += len(s.token_ids)
    logp_N = torch.tensor([x for i, _, _ in spans for x in logprobs[i]], device=device, requires_grad=True)
    loss, metrics = _on_tokens(Tokens(segments, spans, logp_N), given)
    (slope_N,) = torch.autograd.grad(loss, logp_N)
    slopes: list[torch.Tensor | None] = [None] * len(segments)
    for i, first, n in spans:
        slopes[i] = slope_N[first : first + n]
    return slopes, loss.detach(), metrics


def _on_tokens(tokens: Tokens, terms: Sequence[Term]) -> Loss:
    loss, metrics = tokens.logp.new_zeros(()), {}
    for term in terms:
        total, found = measure(term, tokens.of(term))
        loss, metrics = loss + term.weight * total / term.denominator, metrics | found
    return loss, metrics


def _entropies(entropy_N: torch.Tensor, tokens: Tokens, stream: str) -> dict[str, Metric]:
    """entropy/ROLE over the tokens of one stream, the stage's own: demonstrations beside rollouts would move
    the mean though no policy moved."""
    trained_N = (tokens.weight * tokens.where(lambda s: s.stream == stream) != 0).float()
    metrics: dict[str, Metric] = {}
    for role in tokens.roles():
        own_N = trained_N * tokens.of_role(role)
        metrics[f"entropy/{role}"] = Mean((entropy_N * own_N).sum().item(), float(own_N.sum()))
    return metrics


# Whole distributions ----------------------------------------------------------------------------------------


@torch.no_grad()
def _reference(weights: Policies, row: Row, term: Term, targets: Targets) -> torch.Tensor:
    """Hidden states of the reference before the tokens of a term."""
    return hidden_of(weights.model(term.reference), row, targets.before_N)


def _on_distributions(
    weights: Policies,
    model: PreTrainedModel,
    hidden_KH: torch.Tensor,
    reference_KH: torch.Tensor,
    row: Row,
    targets: Targets,
    term: Term,
) -> Loss:
    other = weights.copies.get(term.reference, weights.base)
    if other is model and is_lora(model.get_output_embeddings()):
        raise RecipeError(
            "adapter.targets",
            "an adapter on the head gives two policies of one base different heads, which the "
            f"{term.stream} stream cannot use at once; leave the head out",
        )
    kl_K = objectives.kl_of(
        logits_of(other),
        reference_KH,
        logits_of(model),
        hidden_KH,
        model.config.get_text_config().vocab_size,
        objectives.absent_of(model, row, targets),
    )
    total, metrics = measure(term, Tokens(row.segments, targets.spans, kl_K.detach(), kl_K))
    return term.weight * total / term.denominator, metrics
