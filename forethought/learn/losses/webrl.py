"""KL regression: the log-ratio to a reference is what the advantage says. As WebRL's paper has it, and as its
code was released. Axes: _N tokens.

A sequence here is one turn (an action of the paper): the stage kind `webrl` numbers them so, and with
`loss_norm = "sequences"` each counts once.
"""

from __future__ import annotations

from collections.abc import Mapping

from forethought.learn.losses.row import Numbers, Tokens


def webrl(t: Tokens, *, beta: float = 1.0) -> tuple[Numbers, Mapping[str, Numbers]]:
    """WebRL, equation 6 (arXiv 2411.02337), of a turn a in the state s:

        R = sum over the turn of (logp - ref);  loss = (beta R - A)^2

    Its gradient is -2 beta (A - beta R) d(log p(a)): a turn whose log-ratio is above A / beta is pushed down
    even where A > 0, and one below it up even where A < 0, so that the policy ends at
    ref exp(A / beta), whoever said the turns (replay is no special case: nothing is corrected by importance).
    For that A must be the soft advantage, Q - beta log E exp(Q / beta); a critic that estimates mean success
    leaves a bias, which vanishes for large beta. A beta of 0.01 harms in the paper, and 1 and more without
    replay; what its tables were made with is not said. `webrl/ratio`: |R| of a turn.
    """
    ratio_N = t.mean(t.logp - t.ref) * t.size()
    miss_N = ratio_N * beta - t.advantage
    return miss_N * miss_N, {"webrl/ratio": ratio_N.detach().abs()}


def webrl_released(
    t: Tokens, *, beta: float = 1.0, beta_sure: float = 5.0, sure: float = 0.8
) -> tuple[Numbers, Mapping[str, Numbers]]:
    """The loss of WebRL's released code, which is another one: `webrl` is its control, or it that of `webrl`.

        g = 1 where A >= 0, else 0;  r = mean over the turn of (logp - ref)
        b = beta_sure where the reference's mean probability of a token (geometric) is `sure` or more, else
        beta; then b = min(b, |1 / r|), without gradient
        loss = g SmoothL1(b r - 1) / b,  SmoothL1(x) = x^2 / 2 where |x| < 1, else |x| - 1/2

    Advantages become +1 or, below 0, a mask: turns of a negative one add nothing. So it is imitation of the
    turns that a critic finds no worse, with a trust region: the pull ends where b r = 1. `webrl/kept`: the
    share of turns that are not masked.
    """
    kept_N = 1 - (t.advantage < 0) * 1.0
    ratio_N = t.mean(t.logp - t.ref)
    sure_N = 1 - (t.mean(t.ref).exp() < sure) * 1.0
    most_N = (1 / ratio_N.detach()).abs()
    beta_N = (sure_N * (beta_sure - beta) + beta).minimum(most_N)
    away_N = beta_N * ratio_N - 1
    near_N = (away_N.detach().abs() < 1) * 1.0
    smooth_N = near_N * (away_N * away_N / 2) + (1 - near_N) * (away_N.abs() - 0.5)
    return kept_N * smooth_N / beta_N, {"webrl/kept": kept_N}
