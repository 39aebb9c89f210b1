"""CISPO: the importance weight is clipped, the gradient is not. Axes: _N tokens."""

from __future__ import annotations

from collections.abc import Mapping

from forethought.learn.losses.row import Numbers, Tokens


def cispo(
    t: Tokens, *, clip_low: float = 1.0, clip_high: float = 4.0
) -> tuple[Numbers, Mapping[str, Numbers]]:
    """Clipped importance-sampling policy optimisation (MiniMax-M1, arXiv 2506.13585), by token.

        r = exp(logp - old);  loss = -sg(clip(r, 1 - clip_low, 1 + clip_high)) A logp

    REINFORCE with a truncated weight: its gradient is -clip(r) A d(logp). No token is ever silent, while
    `grpo` drops those whose ratio has left the bounds, which are often the rare ones at which a chain of
    thought turns. clip_low = 1 leaves the weight without a floor, as the paper does; it gives no number for
    the upper bound. TRL's `epsilon_high` is the largest weight itself: its 5.0 is clip_high = 4.0.

    On policy it is plain policy gradient. The value of the loss says nothing (it is no surrogate of a
    return): a log-prob times an advantage. `clip/share`: the weighted share of tokens with a weight that was
    cut.
    """
    ratio_N = (t.logp - t.old).exp().detach()
    weight_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    return -(weight_N * t.advantage) * t.logp, {"clip/share": (weight_N < ratio_N) + (weight_N > ratio_N)}
