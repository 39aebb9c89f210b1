"""HICRA (arXiv 2509.03646): more credit for planning tokens, on top of any other credit; and the masks that say which tokens those are.

    A' = A + alpha |A|     on the mask, else A

so that what went well is reinforced 1 + alpha times and what went wrong is discouraged 1 - alpha times. alpha = 0 changes nothing.
The paper finds planning tokens by phrases; here roles are known, so plans are the mask. Two controls: as many tokens drawn at random
(placebo), and the tokens about which the policy is most uncertain (entropy), which the released code mixes in.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from forethought.types import Advantages, Tree

Mask = Mapping[int, tuple[bool, ...]]
"""Node id -> whether each of its tokens counts as planning."""


def hicra(advantages: Advantages, mask: Mask, alpha: float) -> Advantages:
    return {i: tuple(a + alpha * abs(a) * m for a, m in zip(row, mask[i], strict=True)) for i, row in advantages.items()}


def plan_mask(tree: Tree) -> Mask:
    """The tokens of plans."""
    return {n.id: (n.role == "plan",) * len(n.token_ids) for n in tree.nodes}


def placebo_mask(tree: Tree, seed: int) -> Mask:
    """As many tokens as the plans have, drawn at random among all that policies wrote."""
    written = [(n.id, t) for n in tree.nodes if n.policy is not None for t in range(len(n.token_ids))]
    planned = sum(len(n.token_ids) for n in tree.nodes if n.policy is not None and n.role == "plan")
    chosen = set(random.Random(seed).sample(written, planned))
    return {n.id: tuple((n.id, t) in chosen for t in range(len(n.token_ids))) for n in tree.nodes}


def entropy_mask(tree: Tree, entropies: Mapping[int, tuple[float, ...]], share: float) -> Mask:
    """The `share` of each turn's tokens with the highest entropy (at least one; ties go to the earlier token)."""
    mask = {}
    for n in tree.nodes:
        row = entropies.get(n.id, ())
        count = max(1, round(share * len(row))) if row else 0
        chosen = set(sorted(range(len(row)), key=lambda t: (-row[t], t))[:count])
        mask[n.id] = tuple(t in chosen for t in range(len(n.token_ids)))
    return mask
