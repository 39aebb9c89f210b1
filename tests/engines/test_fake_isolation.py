"""The fake engine's gradients by objective, regions and token statistics, worked out by hand on its rows of
logits."""

from __future__ import annotations

import math

import pytest

from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective, Segment
from forethought.engines.base import UpdateRefused
from forethought.engines.fake.engine import FakeEngine
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec

PLAIN = OptimSpec(lr=1.0, betas=(0.0, 0.0), clip_norm=1e9)
SFT = Objective((term("sft", 1.0),))


def engine_of(**fields) -> FakeEngine:
    """Three choices a role, every logit 0 at first."""
    return FakeEngine(
        ["a", "b", "c", "</plan>", "</act>", "GO"], {"plan": "</plan>", "act": "</act>"}, **fields
    )


def batch(
    engine: FakeEngine,
    *said: str,
    role: str = "plan",
    policy: str = "base",
    stream: str = "sft",
    weight: float = 1.0,
) -> Batch:
    """One segment for each choice, each after the prompt; a choice has two tokens."""
    segments = [Segment(parent=-1, token_ids=engine.encode("GO"))]
    for words in said:
        ids = engine.encode(f"{words} </{role}>")
        segments.append(
            Segment(parent=0, token_ids=ids, role=role, stream=stream, weight=(weight,) * len(ids))
        )
    return Batch(policy=policy, segments=tuple(segments))


def aside(engine: FakeEngine, name: str, b: Batch, objective: Objective = SFT) -> None:
    engine.forward_backward(b, objective)
    engine.set_aside("base", name)


def test_conflict_and_surgery():
    """At equal logits the gradient of -log p_k is 1/3 - [j = k]: for two choices the cosine is -1/2, and each
    is projected."""
    engine = engine_of()
    engine.prepare("base", PLAIN)
    aside(engine, "a", batch(engine, "a"))
    aside(engine, "b", batch(engine, "b"))
    assert engine.conflict("base", "a", "b") == pytest.approx({"all": -0.5, "head": -0.5})
    metrics = reduce(engine.combine("base", ["a", "b"], "pcgrad"))
    assert metrics == pytest.approx({"surgery/cosine": -0.5, "surgery/projected": 1.0})
    # 1.5 times each of (-2, 1, 1) / 3 and (1, -2, 1) / 3
    assert engine.gradients["base"]["plan"] == pytest.approx([-0.5, -0.5, 1.0])
    with pytest.raises(ValueError, match="no gradient 'a'"):
        engine.combine("base", ["a"])


def test_gradients_of_different_roles_do_not_meet():
    engine = engine_of()
    engine.prepare("base", PLAIN)
    aside(engine, "plan", batch(engine, "a"))
    aside(engine, "act", batch(engine, "a", role="act"))
    aside(engine, "none", batch(engine))
    assert engine.conflict("base", "plan", "act") == {"all": 0.0, "head": 0.0}
    assert engine.conflict("base", "plan", "none") == {}
    engine.combine("base", ["plan", "act"])
    assert engine.gradients["base"] == {
        "plan": pytest.approx([-2 / 3, 1 / 3, 1 / 3]),
        "act": pytest.approx([-2 / 3, 1 / 3, 1 / 3]),
    }
    engine.forget("base")
    assert engine.gradients["base"] == {} and engine.aside == {}


def test_names_of_gradients_are_checked():
    engine = engine_of(nan_losses=(1,))
    engine.prepare("base", PLAIN)
    aside(engine, "a", batch(engine, "a"))
    with pytest.raises(ValueError, match="set aside already"):
        engine.set_aside("base", "a")
    wrong = [(["a", "a"], "sum", "different names"), (["a"], "mean", "no way 'mean'")]
    for names, method, message in wrong:
        with pytest.raises(ValueError, match=message):
            engine.combine("base", names, method)
    with pytest.raises(UpdateRefused):
        engine.forward_backward(batch(engine, "a"), SFT)
    assert engine.aside == {}  # a refused update leaves nothing


def moved() -> FakeEngine:
    """The base has moved from "start" by (3, -1, 0) for plans and (0, 2, 0) for acts."""
    engine = engine_of()
    engine.fork("base", "start", "frozen")
    engine.prepare("base", PLAIN)
    engine.weights["base"] = {"plan": [3.0, -1.0, 0.0], "act": [0.0, 2.0, 0.0]}
    return engine


def test_regions():
    engine = moved()
    assert engine.find_region("core", "base", "start", 0.34) == 2  # floor(0.34 * 6)
    assert engine.regions["core"] == {"plan": (3, [0]), "act": (3, [1])}
    assert engine.find_region("one", "base", "start", 0.01) == 1 and engine.overlap("core", "one") == 0.5
    assert engine.random_region("chance", "core", seed=1) == 2
    assert {role: len(indices) for role, (_, indices) in engine.regions["chance"].items()} == {
        "plan": 1,
        "act": 1,
    }
    engine.random_region("again", "core", seed=1)
    assert engine.overlap("chance", "again") == 1
    with pytest.raises(ValueError, match="share"):
        engine.find_region("x", "base", "start", 0.0)
    with pytest.raises(ValueError, match="no region 'x'"):
        engine.hold("base", "x")
    with pytest.raises(ValueError, match="frozen"):
        engine.hold("start", "core")


def test_held_numbers_stay_and_do_not_shrink_the_others(tmp_path):
    engine = moved()
    engine.prepare("base", OptimSpec(lr=1.0, betas=(0.9, 0.0), clip_norm=1e9))
    engine.forward_backward(batch(engine, "b"), SFT)
    engine.optim_step("base")
    engine.find_region("core", "base", "start", 0.34)
    engine.hold("base", "core")
    before = [engine.weights["base"]["plan"][0], engine.weights["base"]["act"][1]]
    engine.save(tmp_path)
    other = engine_of()
    other.load(tmp_path)
    for e in (engine, other):
        e.forward_backward(batch(e, "c"), SFT)
        gradient = e.gradients["base"]["plan"]
        metrics = reduce(e.optim_step("base"))
        assert metrics["grad_norm/base"] == pytest.approx(math.hypot(*gradient[1:]))
        assert [e.weights["base"]["plan"][0], e.weights["base"]["act"][1]] == before
    assert engine.weights == other.weights and engine.weights["base"]["plan"][1:] != [-1.0, 0.0]
    engine.hold("base", "")
    engine.forward_backward(batch(engine, "c"), SFT)
    engine.optim_step("base")
    assert engine.weights["base"]["plan"][0] != before[0]


def test_transplants_and_arcs():
    engine = moved()
    engine.find_region("core", "base", "start", 0.34)
    engine.transplant("base", "start", "core")
    assert engine.weights["base"] == {"plan": [0.0, -1.0, 0.0], "act": [0.0, 0.0, 0.0]}
    engine = moved()
    engine.fork("base", "other", "model")
    engine.weights["base"]["plan"], engine.weights["other"]["plan"] = [5.0, 2.0, 0.0], [7.0, 0.0, 1.0]
    engine.find_region("first", "other", "start", 0.01)
    engine.slerp("base", "other", 1 / 3, outside="first")  # (2, 0) and (0, 1) at a third of a right angle
    assert engine.weights["base"]["plan"] == pytest.approx([5.0, math.sqrt(3), 0.5])
    assert engine.weights["base"]["act"] == [0.0, 2.0, 0.0]
    with pytest.raises(ValueError, match="frozen"):
        engine.slerp("start", "base", 0.5)
    with pytest.raises(ValueError, match="frozen"):
        engine.transplant("start", "base", "first")


def test_what_a_policy_makes_of_tokens():
    """Logits ln 4, 0, 0 are the probabilities 4/6, 1/6, 1/6; the reference is uniform."""
    engine = engine_of()
    engine.fork("base", "start", "frozen")
    engine.weights["base"]["plan"] = [math.log(4), 0.0, 0.0]
    stats = engine.inspect(batch(engine, "a", "b", "GO"), ["start"])
    assert stats[0] is None
    entropy = math.log(6) - 4 / 6 * math.log(4)
    kl = math.log(3) - entropy
    assert stats[1].logprobs == pytest.approx((math.log(4 / 6), 0.0)) and stats[1].hits == (True, True)
    assert stats[2].logprobs == pytest.approx((math.log(1 / 6), 0.0)) and stats[2].hits == (False, True)
    assert stats[1].entropies == pytest.approx((entropy, 0.0)) and stats[2].kl["start"] == pytest.approx(
        (kl, 0.0)
    )
    # none of the choices
    assert stats[3].logprobs == stats[3].entropies == (0.0, 0.0) and not stats[3].hits[0]


def test_the_keep_stream():
    """Its gradient is p - q; nothing at the reference. Beside another stream, the entropy is that stream's
    alone."""
    engine = engine_of()
    engine.fork("base", "start", "frozen")
    engine.prepare("base", PLAIN)
    kept = batch(engine, "b", stream="keep", weight=2.0)
    objective = Objective((term("kl", 4.0, weight=0.5, reference="start"),))
    assert reduce(engine.forward_backward(kept, objective))["kl/keep"] == 0
    assert engine.gradients["base"]["plan"] == [0.0, 0.0, 0.0]
    engine.weights["base"]["plan"] = [math.log(4), 0.0, 0.0]
    metrics = reduce(engine.forward_backward(kept, objective))
    # ln (1/2) / 3 + 2 ln 2 / 3, on one token of two
    assert metrics["kl/keep"] == pytest.approx(math.log(2) / 3 / 2)
    assert engine.gradients["base"]["plan"] == pytest.approx(
        [2.0 * 0.5 / 4.0 * x for x in (1 / 3, -1 / 6, -1 / 6)]
    )
    assert set(metrics) == {"kl/keep", "tokens/trained", "tokens/forward"}
    for reference in ("", "base"):
        with pytest.raises(ValueError, match="the keep stream needs"):
            engine.forward_backward(kept, Objective((term("kl", 1.0, reference=reference),)))
    with pytest.raises(ValueError, match="the objective has no loss for the keep stream"):
        engine.forward_backward(kept, SFT)
