"""Gates: each condition passes and fails for its own reason, with the numbers it read."""

from __future__ import annotations

import pytest

from forethought.core.paired import paired_difference
from forethought.measure.gates import Evaluation, judge
from forethought.measure.looks import share
from forethought.recipe.schema import GateSpec


def evaluation(
    value: float | None = None, scores: list[float] = (), metric: str = "eval/act", **more
) -> Evaluation:
    """`scores` of the tasks and their mean, or a value alone."""
    value = sum(scores) / len(scores) if value is None and scores else value
    return Evaluation(
        metrics={**({} if value is None else {metric: value}), **more},
        scores={metric: list(scores)} if scores else {},
    )


def verdict(evaluations: list[Evaluation], **gate) -> tuple[bool, str]:
    judged = judge(GateSpec(**gate), evaluations)
    return judged.passed, judged.reason


@pytest.mark.parametrize(
    ("gate", "value", "passed", "reason"),
    [
        ({"at_least": 0.9}, 0.9, True, "eval/act is at least 0.9: 0.900"),
        ({"at_least": 0.9}, 0.899, False, "eval/act is not at least 0.9: 0.899"),
        ({"at_most": 0.5}, 0.5, True, "eval/act is at most 0.5: 0.500"),
        ({"at_most": 0.5}, 0.501, False, "eval/act is not at most 0.5: 0.501"),
    ],
)
def test_bounds_read_the_newest_evaluation_alone(gate, value, passed, reason):
    judged = judge(GateSpec(**gate), [evaluation(1 - value), evaluation(value)])
    assert (judged.passed, judged.reason) == (passed, reason)
    assert judged.numbers == {"value": value, "bound": next(iter(gate.values()))}


@pytest.mark.parametrize(
    ("before", "after", "gate", "passed", "reason"),
    [
        (
            0.9,
            0.8,
            {"max_drop": 0.05},
            False,
            "eval/act fell by more than 0.05: 0.900 -> 0.800, change -0.100",
        ),
        (
            0.9,
            0.88,
            {"max_drop": 0.05},
            True,
            "eval/act has not fallen by more than 0.05: 0.900 -> 0.880, change -0.020",
        ),
        (
            0.1,
            0.9,
            {"max_drop": 0.05},
            True,
            "eval/act has not fallen by more than 0.05: 0.100 -> 0.900, change +0.800",
        ),
        (0.1, 0.3, {"max_rise": 0.1}, False, "eval/act rose by more than 0.1: 0.100 -> 0.300, change +0.200"),
        (
            0.9,
            0.1,
            {"max_rise": 0.05},
            True,
            "eval/act has not risen by more than 0.05: 0.900 -> 0.100, change -0.800",
        ),
        (0.95, 0.94, {"max_drop": 0.01}, True, None),  # 0.95 - 0.94 is 0.010000000000000009
        (0.94, 0.95, {"max_rise": 0.01}, True, None),
        (0.95, 0.9399, {"max_drop": 0.01}, False, None),
    ],
)
def test_without_confidence_the_change_since_the_start_decides(before, after, gate, passed, reason):
    found = verdict([evaluation(before), evaluation(0.5), evaluation(after)], confidence=0.0, **gate)
    assert found == (passed, reason or found[1])


SIX_OF_TWELVE = [evaluation(scores=[1] * 12), evaluation(scores=[0] * 6 + [1] * 6)]  # exact p: 2 / 2**6


@pytest.mark.parametrize(
    ("confidence", "passed"), [(0.97, True), (0.969, True), (0.968, False), (0.5, False), (0.0, False)]
)
def test_a_drop_counts_only_if_the_exact_test_excludes_chance(confidence, passed):
    """Six lost and none gained: p = 2/64 = 0.03125, so it counts up to a confidence of 0.96875."""
    judged = judge(GateSpec(max_drop=0.1, confidence=confidence), SIX_OF_TWELVE)
    assert judged.passed is passed
    known = {"start": 1.0, "value": 0.5, "change": -0.5, "bound": 0.1}
    if confidence:
        change, low, high = paired_difference([1] * 12, [0] * 6 + [1] * 6, confidence)
        known |= {"low": low, "high": high, "confidence": confidence, "p": 0.03125}
    assert judged.numbers == pytest.approx(known)


def test_the_reason_says_the_interval_and_the_look():
    judged = judge(GateSpec(max_drop=0.1), SIX_OF_TWELVE)
    assert judged.reason == ("eval/act fell by more than 0.1: 1.000 -> 0.500, change -0.500 [-0.807, -0.021]")
    second = judge(GateSpec(max_drop=0.1), [*SIX_OF_TWELVE, SIX_OF_TWELVE[1]], looks=4)
    assert second.passed and second.reason == (  # 1 - 0.05 x 3 / 16
        "eval/act has not fallen by more than 0.1: 1.000 -> 0.500, "
        "change -0.500 [-0.851, +0.140] at 99.06% (look 2 of 4)"
    )


def test_four_lost_of_a_hundred_are_no_reason_to_roll_back():
    """Exact p is 0.125; six would be needed. The normal interval excluded no change."""
    lost = {
        n: [evaluation(scores=[1] * 100), evaluation(scores=[0] * n + [1] * (100 - n))] for n in (4, 5, 6)
    }
    assert [verdict(pair, max_drop=0.01)[0] for pair in lost.values()] == [True, True, False]


@pytest.mark.parametrize("looks", [1, 2, 7, 40])
def test_no_rule_spends_more_than_there_is(looks):
    for rule in ("late", "even"):
        spent = [share(rule, k, looks) for k in range(1, looks + 1)]
        assert sum(spent) == pytest.approx(1) and spent == sorted(spent)
        assert share(rule, looks + 3, looks) == spent[-1]
    assert share("each", 1, looks) == 1


def test_a_gate_that_cannot_fail_is_vacuous():
    """At its floor a metric cannot fall, and at its ceiling it cannot rise."""
    none, all_ = [0] * 100, [1] * 100
    some = [1] * 50 + [0] * 50
    for scores, gate, vacuous in (
        (none, {"max_drop": 0.01}, True),
        (all_, {"max_drop": 0.01}, False),
        (some, {"max_drop": 0.5}, True),
        (some, {"max_drop": 0.4}, False),
        (all_, {"max_rise": 0.0}, True),
        (none, {"max_rise": 0.5}, False),
        (none, {"at_least": 0.0}, True),
        (all_, {"at_least": 0.5}, False),
        (all_, {"at_most": 1.0}, True),
        (none, {"max_slope_down": 0.1, "window": 2}, True),
        (all_, {"max_slope_down": 0.1, "window": 2}, False),
        ([1] * 5 + [0] * 95, {"max_drop": 0.01}, True),  # five lost are p = 1/16
        ([1] * 6 + [0] * 94, {"max_drop": 0.01}, False),
        ([1] * 5 + [0] * 95, {"max_drop": 0.01, "confidence": 0.0}, False),
    ):
        judged = judge(GateSpec(**gate), [evaluation(scores=scores)] * 2)
        assert judged.passed and judged.vacuous is vacuous, (gate, judged.reason)
        assert judged.outcome == ("vacuous" if vacuous else "pass")


def test_a_vacuous_gate_says_why():
    assert verdict([evaluation(scores=[0] * 50)] * 2, max_drop=0.01)[1].endswith(
        "[-0.105, +0.105]; it cannot fall by more than 0.01 from 0.000, so this gate guards nothing"
    )
    assert verdict([evaluation(scores=[1] * 5 + [0] * 95)] * 2, max_drop=0.01)[1].endswith(
        "only 5 of 100 tasks could be lost, too few to tell from chance, so this gate guards nothing"
    )
    numbers = [evaluation(0.0, metric="entropy/plan"), evaluation(0.0, metric="entropy/plan")]
    assert judge(GateSpec(metric="entropy/plan", max_drop=0.1), numbers).vacuous
    unbounded = [evaluation(0.0, metric="reward/plan"), evaluation(0.0, metric="reward/plan")]
    assert not judge(GateSpec(metric="reward/plan", max_drop=0.1), unbounded).vacuous


def test_a_sure_drop_within_the_bound_passes_and_a_sure_drop_beyond_it_fails():
    start, end = [1.0] * 100, [0.0] * 10 + [1.0] * 90
    pair = [evaluation(scores=start), evaluation(scores=end)]
    assert verdict(pair, max_drop=0.1)[0] and verdict(pair, max_drop=0.2)[0]
    assert not verdict(pair, max_drop=0.09)[0]
    assert verdict(pair[::-1], max_drop=0.0)[0] and not verdict(pair[::-1], max_rise=0.09)[0]
    assert verdict(pair, max_rise=0.0)[0]


def test_pairing_matters():
    """The same two means: where the same tasks are lost and others won, nothing is sure; where nothing is
    won, it is."""
    start = [1.0] * 50 + [0.0] * 50
    only_lost = [1.0] * 40 + [0.0] * 60
    shuffled = [0.0] * 50 + [1.0] * 40 + [0.0] * 10
    assert not verdict([evaluation(scores=start), evaluation(scores=only_lost)], max_drop=0.05)[0]
    assert verdict([evaluation(scores=start), evaluation(scores=shuffled)], max_drop=0.05)[0]


def test_a_metric_without_scores_is_judged_by_its_number():
    pair = [evaluation(2.0, metric="entropy/plan"), evaluation(1.0, metric="entropy/plan")]
    judged = judge(GateSpec(metric="entropy/plan", max_drop=0.5, confidence=0.95), pair)
    assert not judged.passed and judged.numbers == {"start": 2.0, "value": 1.0, "change": -1.0, "bound": 0.5}


def test_what_cannot_be_seen_is_not_passed():
    seen = [evaluation(1.0), Evaluation(metrics={"eval/plan": 1.0, "eval/e2e": 1.0}, scores={})]
    for gate in (
        {"at_least": 0.0},
        {"at_most": 1.0},
        {"max_drop": 1.0},
        {"max_rise": 1.0},
        {"max_slope_down": 1.0},
    ):
        judged = judge(GateSpec(**gate), seen)
        assert (judged.passed, judged.numbers) == (False, {})
        assert judged.reason == "eval/act was not measured (measured: eval/e2e, eval/plan)"
    assert (
        verdict([Evaluation(metrics={}, scores={})], at_least=0.5)[1]
        == "eval/act was not measured (measured: none)"
    )
    gap = judge(
        GateSpec(metric="gap/sampler", at_most=0.1), [Evaluation(metrics={"loss/pg": 0.1}, scores={})]
    )
    assert not gap.passed and "none trained, or it read what sampling left" in gap.reason


def test_a_number_that_steps_have_and_the_start_has_not_is_compared_with_its_first():
    history = [
        evaluation(0.9),
        evaluation(0.9, **{"entropy/plan": 2.0}),
        evaluation(0.9, **{"entropy/plan": 1.5}),
    ]
    gate = {"metric": "entropy/plan", "max_drop": 0.4}
    assert verdict(history[:2], **gate) == (
        True,
        "entropy/plan has not fallen by more than 0.4: 2.000 -> 2.000, change +0.000",
    )
    assert verdict(history, **gate) == (
        False,
        "entropy/plan fell by more than 0.4: 2.000 -> 1.500, change -0.500",
    )


def trend(*values: float | None, **gate) -> tuple[bool, str]:
    return verdict([evaluation(v) for v in values], **gate)


def test_a_trend_is_a_least_squares_slope_over_the_window():
    judged = judge(GateSpec(max_slope_down=0.1, window=3), [evaluation(v) for v in (0.0, 0.9, 0.6, 0.5)])
    assert not judged.passed  # over 0.9, 0.6, 0.5: ((-1) 0.9 + 0 + 0.5) / 2 = -0.2
    assert judged.numbers == pytest.approx({"slope": -0.2, "bound": -0.1, "n": 3})
    assert judged.reason == "eval/act falls too fast: it moves -0.2000 per evaluation over 3, bound -0.1"
    assert trend(0.0, 0.9, 0.6, 0.5, max_slope_down=0.2, window=3) == (
        True,
        "eval/act moves -0.2000 per evaluation over 3, bound -0.2",
    )
    assert trend(0.9, 0.6, 0.5, 1.0, max_slope_down=0.0, window=3)[0]  # it rises again
    assert not trend(0.3, 0.2, 0.1, max_slope_down=0.099, window=3)[0]


def test_too_few_evaluations_make_no_trend():
    assert trend(0.9, 0.1, max_slope_down=0.01, window=3) == (
        True,
        "eval/act: 2 of 3 evaluations for a trend",
    )
    assert trend(0.9, None, 0.1, max_slope_down=0.01, window=3) == (
        True,
        "eval/act: 2 of 3 evaluations for a trend",
    )


@pytest.mark.parametrize(
    "gate",
    [
        {"at_least": 0.5},
        {"at_most": 0.5},
        {"max_drop": 0.1},
        {"max_rise": 0.1},
        {"max_slope_down": 0.1, "window": 2},
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_finite_number_is_not_passed(gate, value):
    """Every comparison with NaN is false, so a drop to NaN is no drop to a comparison alone."""
    passed, reason = verdict([evaluation(0.7), evaluation(value)], metric="eval/act", **gate)
    assert not passed and reason == f"eval/act is not a finite number: {value}"


def test_what_was_not_finite_before_is_nothing_to_compare_with():
    broken, fine = evaluation(float("nan")), evaluation(0.7)
    assert verdict([broken, fine], metric="eval/act", max_drop=0.1) == (
        False,
        "eval/act was not a finite number at the start: nan",
    )
    assert verdict([broken, fine], metric="eval/act", max_slope_down=0.1, window=2) == (
        False,
        "eval/act was not a finite number in the last 2 evaluations",
    )
