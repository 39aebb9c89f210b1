"""The controller of adaptive isolation on made-up probes."""

from __future__ import annotations

from forethought.recipe.schema import AdaptiveSpec
from forethought.stages.isolation.adaptive import Controller

ALL, HALF = [1.0] * 40, [1.0, 0.0] * 20


def read(controller: Controller, now: list[float], cosine: float | None = None, start: list[float] = ALL):
    if cosine is not None:
        controller.hear(cosine)
    return controller.read(["act"], {"act": start}, {"act": now})


def test_nothing_happens_while_nothing_changes():
    controller = Controller(AdaptiveSpec(to="model"))
    assert all(read(controller, ALL, 0.3) is None for _ in range(10))
    assert controller.apart == ""


def test_a_fall_beyond_the_bound_with_an_interval_below_zero_isolates_the_harmed_role():
    controller = Controller(AdaptiveSpec(to="model", max_drop=0.02))
    move = read(controller, HALF)
    assert (move.outcome, move.role, controller.apart) == ("isolate", "act", "act")
    assert move.numbers["change"] == -0.5 and move.numbers["high"] < 0
    assert "-0.500" in move.reason and "0.02" in move.reason


def test_one_task_of_forty_is_not_enough_evidence():
    controller = Controller(AdaptiveSpec(to="model", max_drop=0.02))
    assert read(controller, [0.0] + [1.0] * 39) is None  # -0.025, but the interval reaches above zero
    certain = Controller(AdaptiveSpec(to="model", max_drop=0.02, confidence=0.0))
    assert read(certain, [0.0] + [1.0] * 39).outcome == "isolate"  # the number alone decides


def test_the_most_harmed_of_two_roles_is_the_one():
    controller = Controller(AdaptiveSpec(to="model"))
    move = controller.read(
        ["plan", "act"], {"plan": ALL, "act": ALL}, {"plan": HALF, "act": [1.0] * 30 + [0.0] * 10}
    )
    assert move.role == "plan"


def test_the_cosine_is_read_as_a_mean_over_its_window():
    controller = Controller(AdaptiveSpec(to="adapter", min_cosine=-0.1, window=3))
    assert [read(controller, ALL, c) for c in (-0.9, -0.9)] == [None, None]  # two of three
    assert read(controller, ALL, None) is None  # a probe without a new cosine adds none
    move = read(controller, ALL, 1.0)  # mean -0.267
    assert move.outcome == "isolate" and abs(move.numbers["cosine"] + 0.8 / 3) < 1e-12


def test_positive_transfer_is_said_once():
    controller = Controller(AdaptiveSpec(to="model"))
    first = read(controller, ALL, start=HALF)
    assert first.outcome == "share" and "positive" in first.reason and controller.apart == ""
    assert read(controller, ALL, start=HALF) is None


def test_what_a_role_learns_itself_is_no_transfer():
    controller = Controller(AdaptiveSpec(to="model"))
    assert controller.read(["act"], {"act": HALF}, {"act": ALL}, training=True) is None


def test_after_enough_probes_without_harm_the_roles_share_again():
    controller = Controller(AdaptiveSpec(to="model", rejoin=2))
    read(controller, HALF)
    assert controller.reread("act", ALL, ALL) is None
    assert controller.reread("act", ALL, HALF) is None  # harm: the count begins anew
    assert controller.reread("act", ALL, ALL) is None
    move = controller.reread("act", ALL, ALL)
    assert move.outcome == "share" and controller.apart == ""


def test_without_rejoin_they_stay_apart():
    controller = Controller(AdaptiveSpec(to="model"))
    read(controller, HALF)
    assert all(controller.reread("act", ALL, ALL) is None for _ in range(5))


def test_the_state_goes_through_a_checkpoint():
    controller = Controller(AdaptiveSpec(to="model", min_cosine=0.0))
    read(controller, ALL, 0.5)
    read(controller, HALF)
    other = Controller(controller.spec)
    other.load_state_dict(controller.state_dict())
    assert other == controller
