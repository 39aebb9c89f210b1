"""When a stage ends, and the learning rate at each of its steps."""

from __future__ import annotations

import pytest

from forethought.learn.schedule import lr_scale, reached
from forethought.recipe.schema import OptimSpec, UntilSpec


def scales(steps: int, **optim) -> list[float]:
    return [lr_scale(OptimSpec(**optim), step, steps) for step in range(steps)]


def test_warm_up_is_linear_and_never_0():
    assert scales(6, warmup=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert scales(3, warmup=0) == [1, 1, 1]
    assert scales(3, warmup=1) == [1, 1, 1]


def test_decay_is_linear_over_the_last_share_and_its_last_step_still_moves():
    assert scales(10, warmup=0, decay=0.4) == pytest.approx([1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert scales(4, warmup=0, decay=1.0) == pytest.approx([1, 0.75, 0.5, 0.25])


def test_warm_up_and_decay_multiply_where_they_meet():
    assert scales(4, warmup=4, decay=1.0) == pytest.approx([0.25 * 1, 0.5 * 0.75, 0.75 * 0.5, 1 * 0.25])


def ends(values: list[float | None], **until) -> str:
    """The stage's start first, as the run keeps them."""
    return reached(
        UntilSpec(metric="eval/plan", **until), [{} if v is None else {"eval/plan": v} for v in values]
    )


def test_a_stage_ends_when_its_metric_is_there():
    assert ends([0.1, 0.95], at_least=0.95) == "eval/plan is 0.950, at least 0.95"
    assert ends([0.1, 0.949], at_least=0.95) == ""
    assert ends([0.9, 0.2], at_most=0.2) == "eval/plan is 0.200, at most 0.2"
    assert ends([0.9, 0.201], at_most=0.2) == ""
    assert ends([0.1, 0.5], at_least=0.4, at_most=0.6) != ""
    assert ends([0.1, 0.7], at_least=0.4, at_most=0.6) == ""


def test_the_start_does_not_end_a_stage():
    assert ends([0.99], at_least=0.95) == ""
    assert ends([0.99, 0.5], at_least=0.95) == ""


def test_patience_asks_for_evaluations_in_a_row():
    assert ends([0.1, 0.96], at_least=0.95, patience=2) == ""
    assert ends([0.99, 0.96], at_least=0.95, patience=2) == ""  # the start is none of the two
    assert ends([0.1, 0.96, 0.94, 0.97], at_least=0.95, patience=2) == ""
    assert (
        ends([0.1, 0.94, 0.96, 0.97], at_least=0.95, patience=2)
        == "eval/plan is 0.970, at least 0.95, 2 evaluations in a row"
    )


def test_a_missing_number_ends_nothing():
    assert ends([0.1, None], at_least=0.0) == ""
    assert ends([0.1, None, 0.99], at_least=0.5, patience=2) == ""
    assert reached(UntilSpec(steps=1), [{"eval/plan": 1.0}] * 5) == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_ends_nothing(value):
    assert ends([0.1, value], at_least=0.5) == "" and ends([0.1, value], at_most=0.5) == ""
