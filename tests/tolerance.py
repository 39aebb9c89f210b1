"""How far two right computations of one number may lie apart: from what is summed and in which precision, not
from one machine.

A sum of n products, rounded after each, is off by at most n/2 eps of the sum of their absolute values, and by
about sqrt(n)/2 eps of it as roundings fall. Another processor sums in another order, in wider vectors or
without fused multiply-adds: it moves the number by as much, whatever the number itself is. So an error is a
share of the sum of the absolute values of the terms, never of what they cancel down to, nor an absolute
number that happened to do. A tolerance of `steps` eps stays far below a real error of 1e-4 of the terms: 64
eps of float32 are 8e-6. (`pytest.approx(x, abs=...)` looks at nothing else: there is no relative part beside
it.)
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

# Roundings of a forward pass of the models here, two layers of width 32 to 64: about 16 products one after
# another, each with sums of at most 64 terms, sqrt(16) * sqrt(64) / 2 eps = 16 eps; norms and a softmax
# stretch it, by 4 at most.
FORWARD = 64


def rounding(terms: Iterable[float], steps: int = FORWARD, precision: torch.dtype = torch.float32) -> float:
    """Of the sum of `terms`, each of which is the end of `steps` roundings. A mean's terms are those of its
    sum over its denominator."""
    return steps * torch.finfo(precision).eps * sum(abs(x) for x in terms)


# Of a log-prob: a logit minus the log of a sum, where the vocabulary has 32 words (ln 32 = 3.5) and logits
# are as large.
LOGP = rounding([4.0])
