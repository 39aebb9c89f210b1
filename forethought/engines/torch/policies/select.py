"""Choosing single numbers among all of a model's, without a copy of them and without sorting them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

HALF = 1 << 16
INFINITE = 0x7F80  # upper half of the bits of float32 infinity; NaN lies above


@torch.no_grad()
def largest(
    now: Mapping[str, torch.Tensor], then: Mapping[str, torch.Tensor], count: int
) -> dict[str, torch.Tensor]:
    """Flat indices of exactly `count` numbers with the largest |now - then|, by tensor (ascending int64);
    ties go to the earlier.

    The bits of a float32 that is not negative, read as an integer, have its order. So the threshold is exact
    after two counts of 16 bits each: which upper half the count-th largest has, then which lower half within
    it. Memory: one difference at a time.
    """
    bits = lambda key: (now[key].float() - then[key].float()).abs().flatten().view(torch.int32)  # noqa: E731
    upper = sum(torch.bincount(bits(key) >> 16, minlength=HALF // 2) for key in now)
    if upper[INFINITE:].any():
        raise ValueError("weights that are not finite have no order")
    top, above = _reached(upper, count)
    lower = sum(torch.bincount(b[b >> 16 == top] % HALF, minlength=HALF) for b in map(bits, now))
    rest, within = _reached(lower, count - above)
    threshold, ties, out = top * HALF + rest, count - above - within, {}
    for key in now:
        b = bits(key)
        equal = (b == threshold).nonzero()[:ties, 0]
        ties -= len(equal)
        out[key] = torch.cat([(b > threshold).nonzero()[:, 0], equal]).sort().values
    return out


def _reached(histogram: torch.Tensor, count: int) -> tuple[int, int]:
    """Going down from the highest bin: the bin in which the `count`-th number lies, and how many lie above
    that bin."""
    sums = histogram.flip(0).cumsum(0)
    at = int(torch.searchsorted(sums, torch.tensor(count, device=sums.device)))
    return len(histogram) - 1 - at, int(sums[at] - histogram.flip(0)[at])


def draw_indices(size: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` different numbers below `size`, every set equally likely (ascending int64). Memory is
    proportional to `count`; for more than half of all numbers, to `size`, because then the numbers to leave
    out are drawn."""
    if 2 * count > size:
        left = torch.ones(size, dtype=torch.bool)
        left[draw_indices(size, size - count, generator)] = False
        return left.nonzero()[:, 0]
    picked = torch.empty(0, dtype=torch.int64)
    # the first `count` different ones of a sequence; at least every second draw is new
    while len(picked) < count:
        picked = torch.cat(
            [picked, torch.randint(size, (count - len(picked),), generator=generator)]
        ).unique()
    return picked
