"""HICRA (arXiv 2509.03646): more credit for planning tokens, on top of any other credit; and the masks that
say which tokens get it.

    A' = A + alpha |A|     on the mask, else A

so that what went well is reinforced 1 + alpha times and what went wrong is discouraged 1 - alpha times. alpha
= 0 changes nothing. Planning tokens are those of phrases that people or a miner have listed (`grams`, as in
the paper), or, since roles are known here, those of the roles before the last (`preparing`). Controls: as
many tokens drawn at random (placebo), and the tokens about which the policy is most uncertain (entropy).

The code released for the paper, as a port of it to TRL quotes it, does something else (`released`): besides
planning tokens it credits the most uncertain tokens of responses that are correct (their advantage is
positive) and longer than the average of their group; its factor, 1 + alpha sign(A), is the same formula.
Whether the paper's numbers come from it is not known. The port also tells of `advantages[group][mask] *= 1 +
alpha`, which multiplies a copy and changes nothing: advantages here are tuples, and what comes back is new.
"""

from __future__ import annotations

import random
from collections.abc import Container, Mapping

from forethought.core.types import NO_EVIDENCE, Advantages, Tree

Mask = Mapping[int, tuple[bool, ...]]
"""Node id -> whether each of its tokens is on the mask."""

Entropies = Mapping[int, tuple[float, ...]]
"""Node id -> entropy of the policy at each of its tokens (nats)."""


def hicra(advantages: Advantages, mask: Mask, alpha: float) -> Advantages:
    """A + alpha |A| on planning tokens (mask 1), A elsewhere; valid on top of any credit."""
    return {
        i: tuple(a + alpha * abs(a) * m for a, m in zip(row, mask[i], strict=True))
        for i, row in advantages.items()
    }


def preparing_mask(tree: Tree, acts: str) -> Mask:
    """The tokens of every role but `acts`, the last one of the workflow."""
    return {n.id: (n.role not in (None, acts),) * len(n.token_ids) for n in tree.nodes}


def placebo_mask(tree: Tree, seed: int, like: Mask, among: Container[int] | None = None) -> Mask:
    """As many tokens as `like` has, drawn at random, both within the nodes `among` (default: all that
    policies wrote): among those that train, the control has the density of what it is the control of."""
    written = [
        (n.id, t)
        for n in tree.nodes
        if n.policy is not None and (among is None or n.id in among)
        for t in range(len(n.token_ids))
    ]
    chosen = set(random.Random(seed).sample(written, sum(like[i][t] for i, t in written)))
    return {n.id: tuple((n.id, t) in chosen for t in range(len(n.token_ids))) for n in tree.nodes}


def entropy_mask(tree: Tree, entropies: Entropies, share: float) -> Mask:
    """The `share` of each turn's tokens with the highest entropy (at least one; ties go to the earlier
    token)."""
    mask = {}
    for n in tree.nodes:
        row = entropies.get(n.id, ())
        count = max(1, round(share * len(row))) if row else 0
        chosen = set(sorted(range(len(row)), key=lambda t: (-row[t], t))[:count])
        mask[n.id] = tuple(t in chosen for t in range(len(n.token_ids)))
    return mask


def released_mask(
    tree: Tree, advantages: Advantages, entropies: Entropies, share: float, planning: Mask
) -> Mask:
    """Planning tokens, and of each correct response that is longer than its group's mean the tokens whose
    entropy lies above the (1 - `share`) quantile of that response (linear between two tokens, as numpy and
    torch take it; strictly above).

    A response is a path: what policies wrote from the root to a leaf; it is correct if its last turn's
    advantage is positive. The length is in tokens, and the mean is over all responses, as in the code (where
    it is named after the correct ones). A turn on several paths, such as a plan, is credited where one of
    them asks for it and its own advantage is positive. In a flat group this is the code's rule.
    """
    paths = [
        [n for n in tree.path(leaf) if n.policy is not None]
        for leaf in tree.leaves()
        if leaf.status not in NO_EVIDENCE
    ]
    lengths = [sum(len(n.token_ids) for n in path) for path in paths]
    chosen: set[tuple[int, int]] = set()
    for path, length in zip(paths, lengths, strict=True):
        if not path or _of(path[-1].id, advantages) <= 0 or length <= sum(lengths) / len(lengths):
            continue
        row = [(entropy, n.id, t) for n in path for t, entropy in enumerate(entropies.get(n.id, ()))]
        threshold = _quantile([entropy for entropy, _, _ in row], 1 - share)
        chosen |= {(i, t) for entropy, i, t in row if entropy > threshold and _of(i, advantages) > 0}
    return {n.id: tuple(m or (n.id, t) in chosen for t, m in enumerate(planning[n.id])) for n in tree.nodes}


def _of(node: int, advantages: Advantages) -> float:
    """The advantage that a turn's tokens share."""
    return next(iter(advantages.get(node, ())), 0.0)


def _quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    if not ordered:
        return 0.0
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
