"""PPO's clipped surrogate, as GRPO takes it, and with DAPO's higher upper bound.

Axes: _N tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

from forethought.learn.losses.row import Numbers, Tokens


def grpo(
    t: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> tuple[Numbers, Mapping[str, Numbers]]:
    """The loss of PPO (arXiv 1707.06347) and GRPO (arXiv 2402.03300), by token.

        r = exp(logp - old);  loss = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)

    Its gradient is -r A d(logp), and 0 where the clip holds: r above its bound with A > 0, below it with
    A < 0. On policy (old = logp) it is plain policy gradient, whatever the bounds: they act from the second
    update on the same rollouts on, or where sampler and trainer differ. A ratio that is large with A < 0 is
    not bounded. `clip/share`: the weighted share of tokens where the clip holds.
    """
    return clipped((t.logp - t.old).exp(), t, clip_low, clip_high)


def clipped(
    ratio_N: Numbers, t: Tokens, clip_low: float, clip_high: float
) -> tuple[Numbers, Mapping[str, Numbers]]:
    """-min(r A, clip(r) A) of each token for a given ratio r, and whether the clip holds there."""
    plain_N = ratio_N * t.advantage
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high) * t.advantage
    return -plain_N.minimum(clipped_N), {"clip/share": clipped_N < plain_N}


def dapo(
    t: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.28
) -> tuple[Numbers, Mapping[str, Numbers]]:
    """Clip-higher (DAPO, arXiv 2503.14476): `grpo` with an upper bound of its own, 0.28 there.

    A token of probability 0.01 may rise to 0.012 under a bound of 1.2 while one of 0.9 may rise to 1: a
    higher bound leaves unlikely tokens room, against the collapse of entropy; the lower one stays, for it is
    what drives probabilities to 0. Equal bounds give `grpo`. The paper's other parts are the stage's:
    `loss_norm = "tokens"` and `dynamic_sampling`.
    """
    return grpo(t, clip_low=clip_low, clip_high=clip_high)
