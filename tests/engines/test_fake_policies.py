"""The fake engine's policies keep the contract of `engines.base`, in numbers that can be read."""

from __future__ import annotations

import pytest

from forethought.core.types import Batch, Objective, Segment
from forethought.engines.fake.engine import FakeEngine
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec

WORDS = ["a", "b", "c", "</plan>", "GO"]
SGD = OptimSpec(lr=1.0, betas=(0.5, 0.0), clip_norm=100.0)


def engine_of() -> FakeEngine:
    return FakeEngine(WORDS, {"plan": "</plan>"})


def learn(engine: FakeEngine, policy: str, word: int = 0) -> None:
    """One step towards a word: the gradient of its logit is p - 1."""
    said = Segment(parent=0, token_ids=(word, 3), role="plan", stream="sft", weight=(1.0, 1.0))
    engine.forward_backward(
        Batch(policy=policy, segments=(Segment(parent=-1, token_ids=(4,)), said)),
        Objective((term("sft", 1.0),)),
    )
    engine.optim_step(policy)


def test_a_model_takes_weights_and_momentum_along_and_an_adapter_none():
    engine = engine_of()
    engine.prepare("base", SGD)
    learn(engine, "base")
    assert engine.weights["base"]["plan"] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    engine.fork("base", "copy", "model")
    engine.fork("base", "lora")
    assert (
        engine.optimizers == {"base": SGD, "copy": SGD} and engine.weights["lora"] == engine.weights["base"]
    )
    for name in ("base", "copy"):
        learn(engine, name, word=1)
    assert engine.weights["copy"] == engine.weights["base"] != engine.weights["lora"]
    assert (
        engine.momentum["copy"] == engine.momentum["base"]
        and engine.momentum["copy"] is not engine.momentum["base"]
    )
    engine.prepare("lora", SGD)
    engine.fork("lora", "merged", "model")
    assert "merged" not in engine.optimizers


def test_assigned_weights_sample_once_they_are_published():
    engine = engine_of()
    engine.fork("base", "start", "frozen")
    engine.prepare("base", SGD)
    learn(engine, "base")
    engine.publish("base")
    moved, momentum = engine.weights["base"], engine.momentum["base"]
    engine.assign("base", "start")
    assert (
        engine.weights["base"] == {}
        and engine.served["base"] == moved
        and engine.momentum["base"] == momentum
    )
    engine.publish("base")
    assert engine.served["base"] == {}


def test_what_the_base_has_learned_moves_into_an_adapter():
    engine = engine_of()
    engine.fork("base", "start", "frozen")
    engine.prepare("base", SGD)
    learn(engine, "base")
    engine.publish("base")
    moved = engine.weights["base"]
    assert engine.factor("plan", "start") == 1.0
    assert (
        engine.weights["plan"] == engine.served["plan"] == moved
        and engine.weights["base"] == engine.served["base"] == {}
    )
    assert engine.policies() == {"base": 2, "start": 0, "plan": 0}
    engine.prepare("plan", SGD)


def test_kinds_outlive_a_checkpoint(tmp_path):
    engine = engine_of()
    engine.fork("base", "lora")
    engine.fork("lora", "lora-then", "frozen")
    engine.fork("base", "copy", "model")
    engine.save(tmp_path)
    other = engine_of()
    other.load(tmp_path)
    with pytest.raises(ValueError, match="an adapter and a whole model"):
        other.assign("copy", "lora-then")
    other.assign("lora", "lora-then")
    with pytest.raises(ValueError, match="'lora-then' cannot train"):
        other.prepare("lora-then", SGD)
    other.drop("lora")
    other.fork("base", "lora", "model")
    other.assign("copy", "lora")


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda e: e.fork("base", "lora", "model"), "policy 'lora' exists already"),
        (lambda e: e.fork("base", "x", "lora"), "forked as 'lora'"),
        (lambda e: e.fork("copy", "x"), "an adapter lies on the base; 'copy'"),
        (lambda e: e.fork("nowhere", "x"), "no policy 'nowhere'"),
        (lambda e: e.fork("nowhere", "x", "model"), "no policy 'nowhere'"),
        (lambda e: e.assign("start", "base"), "'start' is frozen"),
        (lambda e: e.assign("base", "lora"), "an adapter and a whole model"),
        (lambda e: e.factor("x", "base"), "'base' is none"),
        (lambda e: e.factor("x", "lora"), "'lora' is none"),
        (lambda e: e.factor("lora", "start"), "policy 'lora' exists already"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(act, error):
    engine = engine_of()
    engine.fork("base", "lora")
    engine.fork("base", "copy", "model")
    engine.fork("base", "start", "frozen")
    before = engine.policies()
    with pytest.raises((ValueError, KeyError), match=error):
        act(engine)
    assert engine.policies() == before and engine.weights.keys() == before.keys()
