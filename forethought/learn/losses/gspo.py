"""GSPO: the ratio of a whole sequence. Axes: _N tokens."""

from __future__ import annotations

from collections.abc import Mapping

from forethought.learn.losses.clipped import clipped
from forethought.learn.losses.row import Numbers, Tokens


def gspo(
    t: Tokens, *, clip_low: float = 3e-4, clip_high: float = 4e-4
) -> tuple[Numbers, Mapping[str, Numbers]]:
    """Group sequence policy optimisation (arXiv 2507.18071), in its form by token (GSPO-token).

        s = exp(mean over the sequence of (logp - old)), without gradient;  r = s exp(logp - sg(logp))
        loss = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)

    Rewards are given to sequences, so the ratio that corrects for them is a sequence's: the geometric mean of
    its tokens' ratios, and one decision to clip for all of them. Its gradient is -s A d(logp): with one
    advantage a sequence and one weight a sequence, that of the paper's GSPO; unlike that, each token may have
    an advantage of its own (credit by role or by turn, HICRA).

    A sequence is what one branch of a tree holds, the turns of one response: a plan is one, each of its
    executions another. The paper averages over the tokens of a sequence first: `loss_norm = "sequences"` (for
    a sequence of several turns each turn counts once). Its bounds are hundreds of times narrower than
    `grpo`'s, because means of log-ratios move little. On policy it is plain policy gradient; on sequences of
    one token it is `grpo`. `clip/share`: weighted by tokens; TRL counts sequences.
    """
    ratio_N = (t.mean(t.logp - t.old).detach() + (t.logp - t.logp.detach())).exp()
    return clipped(ratio_N, t, clip_low, clip_high)
