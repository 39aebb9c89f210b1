"""A loss of one's own: one function and one row, beside a recipe that names it.

    [[stage]]
    kind = "reinforce"
    loss = { name = "loss_row.py:SAPO", negative = 1.5 }

Soft adaptive policy optimisation (arXiv 2511.20347): where PPO's clip is a wall, this is a slope. A token
counts less the further its ratio has moved, sooner where it is pushed down (a higher temperature).

    r = exp(logp - old);  loss = -(4 / tau) sigmoid(tau (r - 1)) A

On policy its gradient is that of plain policy gradient, -A d(logp), at any temperature.
"""

from forethought.learn.losses.row import Loss


def sapo(t, *, positive=1.0, negative=1.05):
    """`positive`, `negative`: tau of tokens whose advantage is above 0, and of the others. t.logp, t.old and
    t.advantage hold one number a token."""
    ratio = (t.logp - t.old).exp()
    tau = negative + (t.advantage > 0) * (positive - negative)
    gate = (tau * (ratio - 1)).sigmoid()
    return -(gate * t.advantage) * 4 / tau, {"sapo/slope": gate * (1 - gate) * 4}


SAPO = Loss(
    per_token=sapo,
    needs={"advantage", "old"},
    measures=("sapo/slope",),  # 1 on policy, towards 0 where nothing is learned any more
    bounds={"positive": (0, 100), "negative": (0, 100)},
)
