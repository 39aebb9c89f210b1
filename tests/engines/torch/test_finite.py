"""What an engine says of numbers that are none, before they are saved over the last good ones."""

from __future__ import annotations

import pytest
import torch
from torch_kit import WORDS, engine_of, forest, model_of

from forethought.core.types import Batch, Objective
from forethought.engines.fake.engine import FakeEngine
from forethought.engines.joined import Joined
from forethought.engines.torch.policies.optim import first_not_finite
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec


def trained(**spec):
    """A base that has moved, an adapter and a frozen copy; AdamW and Muon have begun."""
    engine = engine_of(model_of("qwen2"), **spec)
    engine.fork("base", "copy", "frozen")
    engine.fork("base", "own", "adapter")
    segments = tuple(forest(3, stream="sft", role="plan", weight=lambda rng, n: (1.0,) * n))
    for name, optim in (("base", OptimSpec(name="muon")), ("own", OptimSpec())):
        engine.prepare(name, optim)
        engine.forward_backward(Batch(policy=name, segments=segments), Objective((term("sft", 10.0),)))
        engine.optim_step(name)
    return engine


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("policy", ["base", "own"])
def test_the_first_weight_that_is_not_finite_is_named(policy, value):
    engine = trained()
    assert engine.finite() == ""
    name, weight = list(engine.weights.parameters(policy).items())[-1]
    weight.data.view(-1)[-1] = value
    assert engine.finite() == f"{name} of policy {policy!r}"


@pytest.mark.parametrize(
    ("policy", "key"), [("base", "momentum_buffer"), ("base", "exp_avg"), ("own", "exp_avg_sq")]
)
def test_moments_count_too(policy, key):
    engine = trained()
    name = next(name for name in engine.optimizers[policy].numbers() if name.endswith(f"|{key}"))
    engine.optimizers[policy].numbers()[name].view(-1)[0] = float("nan")
    assert engine.finite() == f"{key} of {name.split('|')[0]} in the optimizer of policy {policy!r}"


def test_what_never_trains_is_not_looked_at():
    """It was checked when it was loaded, and it may be large."""
    engine = trained()
    next(iter(engine.weights.copies["copy"].parameters())).data.view(-1)[0] = float("nan")
    assert engine.finite() == ""
    fresh = engine_of()
    next(iter(fresh.weights.base.parameters())).data.view(-1)[0] = float("nan")
    assert fresh.finite() == ""


def test_numbers_of_every_type_are_looked_at():
    good = {
        "empty": torch.zeros(0),
        "whole": torch.tensor([1]),
        "wide": torch.tensor([1e300], dtype=torch.float64),
        "half": torch.ones(3).half(),
    }
    assert first_not_finite({}) == first_not_finite(good) == ""
    assert (
        first_not_finite(
            good | {"bad": torch.tensor([1.0, float("inf")]).bfloat16(), "worse": torch.tensor(float("nan"))}
        )
        == "bad"
    )


def test_joined_engines_say_in_which_model():
    main, planner = trained(), trained()
    for name in ("own", "copy"):  # a policy's name is one engine's alone
        planner.drop(name)
    joined = Joined(main, {"plan": planner}, [])
    assert joined.finite() == ""
    next(iter(planner.weights.parameters("base").values())).data.view(-1)[0] = float("nan")
    assert (
        joined.finite()
        == f"{next(iter(planner.weights.parameters('base')))} of policy 'base', in the model 'plan'"
    )


def test_the_fake_engine_looks_too():
    engine = FakeEngine(WORDS, {})
    engine.weights["base"]["plan"] = [0.0, 1.0]
    assert engine.finite() == ""
    engine.fork("base", "kept", "frozen")
    engine.weights["kept"]["plan"][0] = float("nan")
    assert engine.finite() == ""
    engine.weights["base"]["plan"][1] = float("inf")
    assert engine.finite() == "the logits of plan in policy 'base'"
    engine.weights["base"]["plan"][1] = 0.0
    engine.prepare("base", OptimSpec())
    engine.momentum["base"]["act"] = [float("nan")]
    assert engine.finite() == "the momentum of act in policy 'base'"
