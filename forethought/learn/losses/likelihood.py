"""Supervised: the words of a demonstration become more likely. Axes: _N tokens."""

from __future__ import annotations

from collections.abc import Mapping

from forethought.learn.losses.row import Numbers, Tokens


def sft(t: Tokens) -> tuple[Numbers, Mapping[str, Numbers]]:
    """Negative log-likelihood of the given token, -logp; its gradient on the logits is p - onehot.

    Divided by the weight of all trained tokens, it is the cross-entropy of the demonstrations in nats a
    token. On samples of the policy itself its expected gradient is zero: it needs words from elsewhere.
    """
    return -t.logp, {}
