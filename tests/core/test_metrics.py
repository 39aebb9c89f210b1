"""Numbers that merge: a rate is a sum over a sum; intervals against values worked out elsewhere."""

from __future__ import annotations

import math

import pytest

from forethought.core.metrics import Last, Max, Mean, Sum, merge, reduce, wilson


def test_a_mean_over_parts_is_the_mean_over_everything():
    parts = [{"loss": Mean(1.0, 1)}, {"loss": Mean(30.0, 10)}, {}]
    assert reduce(merge(parts)) == {"loss": 31 / 11}  # not (1 + 3) / 2


def test_each_type_merges_in_its_own_way():
    first = {"n": Sum(2), "top": Max(3.0), "lr": Last(0.1), "only": Sum(1)}
    second = {"n": Sum(5), "top": Max(-1.0), "lr": Last(0.2)}
    assert reduce(merge([first, second])) == {"n": 7, "top": 3.0, "lr": 0.2, "only": 1}
    assert first["n"] == Sum(2)  # the parts are not changed


def test_a_mean_over_nothing_is_left_out_and_a_0_is_not():
    assert reduce({"empty": Mean(0.0, 0), "zero": Mean(0.0, 2)}) == {"zero": 0.0}


def test_what_is_not_finite_stays_what_it_is():
    """A mean over five tokens of which one is NaN was measured; left out, nobody would see it."""
    found = reduce({"loss": Mean(math.nan, 5), "sum": Sum(math.inf)})
    assert math.isnan(found["loss"]) and found["sum"] == math.inf
    assert merge([]) == {}


def test_one_name_has_one_type():
    with pytest.raises(TypeError, match="metric 'n' is a Sum here and a Mean there"):
        merge([{"n": Sum(1)}, {"n": Mean(1)}])


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_by_its_definition():
    """The interval's ends are the proportions p0 from which the observed one is exactly z standard errors
    away."""
    for end in wilson(3, 17, z=1.5):
        assert abs(3 / 17 - end) == pytest.approx(1.5 * math.sqrt(end * (1 - end) / 17))
