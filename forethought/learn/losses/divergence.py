"""Staying where a reference is: KL over the whole vocabulary, and KL estimated from the tokens that were
sampled. Axes: _N tokens."""

from __future__ import annotations

from collections.abc import Mapping

from forethought.learn.losses.row import Numbers, Tokens


def kl(t: Tokens) -> tuple[Numbers, Mapping[str, Numbers]]:
    """KL(reference || policy) at each token, exact: the sum over the vocabulary of q (log q - log p).

    The engine computes both distributions a few tokens at a time; its gradient on the logits is p - q. It
    needs no sample of the policy: any text will do, as demonstrations of a role that is to stay in place
    (`isolation.keep_kl`). 0, with gradient 0, where the policy is the reference.
    """
    return t.kl, {}


def k3(t: Tokens) -> tuple[Numbers, Mapping[str, Numbers]]:
    """Schulman's k3 estimate of KL(policy || reference) on sampled tokens, the term of GRPO (arXiv
    2402.03300).

        d = ref - logp;  loss = exp(d) - d - 1

    Never negative, and without bias where the tokens are the policy's own. As a loss its gradient is
    (1 - exp(d)) d(logp), which on policy is that of KL(reference || policy): tokens are sampled, not
    differentiated through, so the policy is held where the reference is, not kept out of where it is not. TRL
    multiplies it by the ratio unless `use_bias_correction_kl = False`. exp(d) overflows where the policy has
    left the reference far behind on a token.
    """
    away_N = t.ref - t.logp
    return away_N.expm1() - away_N, {}
