"""What a policy makes of given tokens, and how far it stands from other policies there. Nothing trains.

Axes: _N tokens looked at, _H hidden size, _V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from forethought.core.types import TokenStats
from forethought.engines.torch.forest.forward import Row, Targets, hidden_of, targets_of
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.loss import distributions, objectives
from forethought.engines.torch.policies.table import Policies

Hidden = dict[str, torch.Tensor]  # policy -> [N, H]


@torch.no_grad()
def stats_of(weights: Policies, policy: str, against: Sequence[str], row: Row) -> list[TokenStats | None]:
    """One for each segment of the row with a stream. One forward per policy; logits of one chunk of tokens at
    a time."""
    targets, policies = targets_of(row), list(dict.fromkeys([policy, *against]))
    hidden = {name: hidden_of(weights.model(name), row, targets.before_N) for name in policies}
    vocabulary = weights.model(policy).config.get_text_config().vocab_size
    absent = objectives.absent_of(weights.model(policy), row, targets)
    rows = objectives.chunk_rows(vocabulary, targets.ids_N.device, held=min(2, len(policies)))
    parts = [
        _chunk(
            weights,
            policy,
            against,
            {k: h[start : start + rows] for k, h in hidden.items()},
            targets.ids_N[start : start + rows],
            absent and (absent[0], absent[1][start : start + rows]),
        )
        for start in range(0, len(targets.ids_N), rows)
    ]
    columns = [torch.cat(column).tolist() for column in zip(*parts, strict=True)]
    return _segments(columns, against, targets, len(row.segments))


def _chunk(
    weights: Policies,
    policy: str,
    against: Sequence[str],
    hidden: Hidden,
    ids_N: torch.Tensor,
    absent: objectives.Absent | None,
) -> list[torch.Tensor]:
    """log-probs, entropies, hits, and one KL(policy || reference) for each of `against`; [N] each."""

    def logits(name: str) -> torch.Tensor:
        logits_NV = logits_of(weights.model(name))(hidden[name])
        if absent is not None:
            absent[0].hide(logits_NV, absent[1])
        return logits_NV

    logits_NV = logits(policy)
    out = [*distributions.logp_of(logits_NV, ids_N)[:2], logits_NV.argmax(-1) == ids_N]
    for name in against:  # adapters share modules: each is switched on while its own logits are computed
        out.append(distributions.kl_of(logits_NV, logits(name))[0])
    return out


def _segments(
    columns: list[list], against: Sequence[str], targets: Targets, segments: int
) -> list[TokenStats | None]:
    out: list[TokenStats | None] = [None] * segments
    for i, first, n in targets.spans:
        logprobs, entropies, hits, *kls = (tuple(column[first : first + n]) for column in columns)
        out[i] = TokenStats(
            logprobs=logprobs, entropies=entropies, hits=hits, kl=dict(zip(against, kls, strict=True))
        )
    return out
