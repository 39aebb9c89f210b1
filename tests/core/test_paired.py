"""Paired changes: never outside what is possible, never a point, and no surer than the exact test."""

from __future__ import annotations

import math

import pytest

from forethought.core.metrics import t_quantile
from forethought.core.paired import paired, paired_difference, score_interval, sign_test


def test_the_sign_test_counts_coins():
    assert sign_test(0, 4) == 2 / 16 and sign_test(4, 0) == 2 / 16
    assert sign_test(1, 5) == 2 * (1 + 6) / 64
    assert sign_test(0, 0) == sign_test(3, 3) == sign_test(0, 1) == 1


def test_the_ends_of_the_score_interval_are_what_its_test_just_rejects():
    """At the upper end d, gained - lost lies z deviations and the correction below n d; the deviation is that
    of the most likely probabilities with the difference d, found here by search."""
    gained, lost, n, z = 3, 9, 40, 1.959964
    low, high = score_interval(gained, lost, n)
    for d, sign in ((high, 1), (low, -1)):
        grid = [i / 200_000 for i in range(1, 200_000)]  # the share of lost tasks; that of gained is d more
        inside = [q for q in grid if q + d > 0 and 1 - 2 * q - d > 0]
        likely = max(
            inside,
            key=lambda q: (
                gained * math.log(q + d) + lost * math.log(q) + (n - gained - lost) * math.log(1 - 2 * q - d)
            ),
        )
        deviation = math.sqrt(n * (2 * likely + d - d * d))
        assert sign * (n * d - (gained - lost)) - 1 == pytest.approx(z * deviation, abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 7, 30, 100])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9999])
def test_an_interval_is_possible_and_no_point(n, confidence):
    some = range(n + 1) if n <= 30 else (0, 1, 2, 5, 50, 98, 99, 100)
    for gained in some:
        for lost in (k for k in some if gained + k <= n):
            before, after = [0] * gained + [1] * lost, [1] * gained + [0] * lost
            same = [1] * (n - gained - lost)
            found = paired(before + same, after + same, confidence)
            assert -1 <= found.low < found.high <= 1 and found.low <= found.value <= found.high
            if found.low > 0 or found.high < 0:  # the interval is no surer than the exact test
                assert found.p < 1 - confidence


def test_what_no_task_has_is_not_known():
    assert paired_difference([], []) == paired_difference([None], [1.0]) == (0.0, -1.0, 1.0)
    assert paired([1.0], [None]).p == 1
    with pytest.raises(ValueError, match="2 before, 1 after"):
        paired([1, 2], [1])
    for confidence in (0.0, 1.0):
        with pytest.raises(ValueError, match="inside"):
            paired([1], [1], confidence)


def test_other_scores_have_student_s_interval():
    before, after = [0.5, 0.25, 0.75, 1.0], [0.25, 0.25, 0.5, 0.5]  # differences -1/4, 0, -1/4, -1/2
    found = paired(before, after, 0.9)
    error = math.sqrt((1 / 16 + 0 + 1 / 16 + 1 / 4) / 4 - 1 / 16) / math.sqrt(3)
    assert found.value == -0.25
    assert (found.low, found.high) == pytest.approx(
        (-0.25 - t_quantile(3, 0.9) * error, -0.25 + t_quantile(3, 0.9) * error)
    )
    assert found.p == 0.25  # three changed: no exact test gives less than 2/8


def test_other_scores_stay_in_their_range():
    low_to_high = paired([0.0, 0.1], [0.9, 0.5])
    assert (low_to_high.low, low_to_high.high) == (-1, 1)
    wide = paired([0.0, 10.0], [10.0, 0.5])
    assert (wide.low, wide.high) == (-10, 10)  # a reward may be larger than 1
    same = paired([0.5, 0.25], [0.5, 0.25])
    assert same.value == 0 and same.low < 0 < same.high and same.p == 1
    all_alike = paired([0.5] * 10, [0.25] * 10)
    assert all_alike.low < -0.25 < all_alike.high and all_alike.p == 2 / 1024
