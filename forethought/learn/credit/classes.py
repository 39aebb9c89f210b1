"""What a step's rollouts say about planning tokens and all others (execution), apart: HICRA's curves (arXiv
2509.03646)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from forethought.core.metrics import Last, Mean, Metric
from forethought.core.types import NO_EVIDENCE, Tree
from forethought.learn.credit.hicra import Entropies, Mask

PLANNING = (True, "hicra/ppl_plan", "hicra/entropy_plan")
OTHERS = (False, "hicra/ppl_exec", "hicra/entropy_exec")


def class_metrics(
    trees: Sequence[Tree], planning: Sequence[Mask], entropies: Sequence[Entropies | None]
) -> dict[str, Metric]:
    """`hicra/share_plan`: planning tokens among those that policies wrote. For each class that has tokens
    (`plan`: planning; `exec`: all others):

    hicra/ppl_CLASS       exp of the mean of -log p of what was sampled, under the policy that sampled it
    hicra/entropy_CLASS   mean entropy of the policy (nats): exact where a tree has `entropies` (the masks
                          that read them do); else the mean of -log p of what was sampled, whose expectation
                          it is at temperature 1 and top_p 1, without a forward pass
    """
    tokens, surprise, entropy = ([0.0, 0.0] for _ in range(3))  # of the others, of planning
    for tree, mask, exact in zip(trees, planning, entropies, strict=True):
        for n in tree.nodes:
            if n.policy is None or n.status in NO_EVIDENCE:
                continue
            row = (exact or {}).get(n.id) or [-p for p in n.logprobs]
            for plans, logprob, h in zip(mask[n.id], n.logprobs, row, strict=True):
                tokens[plans] += 1
                surprise[plans] -= logprob
                entropy[plans] += h
    out: dict[str, Metric] = {"hicra/share_plan": Mean(tokens[True], tokens[True] + tokens[False])}
    for plans, ppl, mean in PLANNING, OTHERS:
        if tokens[plans]:
            out[ppl] = Last(math.exp(min(surprise[plans] / tokens[plans], 700.0)))
            out[mean] = Mean(entropy[plans], tokens[plans])
    return out
