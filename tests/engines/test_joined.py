"""Two engines as one: names lead to the engine that has them, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_torch_policies import OBJECTIVE, batch, drawn, learn
from torch_kit import WORDS, bpe_of, engine_of, model_of, same, snapshot

from forethought.core.errors import CheckpointError, UserError
from forethought.core.metrics import Last
from forethought.core.types import Batch, Objective, Request, Segment
from forethought.engines.base import UpdateRefused
from forethought.engines.fake.engine import FakeEngine
from forethought.engines.joined import Joined
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec

FAKE_WORDS = ["a", "b", "c", "</plan>", "GO"]
SGD = OptimSpec(lr=1.0, betas=(0.0, 0.0), clip_norm=100.0)


def fakes(**fields) -> tuple[Joined, FakeEngine, FakeEngine]:
    stops = {"plan": "</plan>"}
    main, planner = (
        FakeEngine(FAKE_WORDS, stops, context=50),
        FakeEngine(FAKE_WORDS, stops, context=40, **fields),
    )
    return Joined(main, {"plan": planner}, FAKE_WORDS), main, planner


def one(policy: str) -> Batch:
    """A step towards "a"."""
    said = Segment(parent=0, token_ids=(0, 3), role="plan", stream="sft", weight=(1.0, 1.0))
    return Batch(policy=policy, segments=(Segment(parent=-1, token_ids=(4,)), said))


ONE = Objective((term("sft", 1.0),))


# Names ------------------------------------------------------------------------------------------------------


def test_the_base_of_another_engine_goes_by_the_engine_s_name_and_its_forks_live_beside_it():
    joined, main, planner = fakes()
    joined.fork("base", "act")
    joined.fork("plan", "plan-then", "frozen")
    joined.fork("plan-then", "plan-again", "model")
    joined.publish("plan")
    assert joined.policies() == {"base": 0, "act": 0, "plan": 1, "plan-then": 0, "plan-again": 0}
    assert set(main.policies()) == {"base", "act"} and set(planner.policies()) == {
        "base",
        "plan-then",
        "plan-again",
    }
    assert joined.context == 40
    joined.drop("plan-again")
    joined.drop("act")
    assert joined.policies() == {"base": 0, "plan": 1, "plan-then": 0}


def test_a_step_of_one_model_goes_by_its_outer_name():
    joined, main, planner = fakes()
    joined.prepare("plan", SGD)
    joined.forward_backward(one("plan"), ONE)
    metrics = joined.optim_step("plan", 0.5)
    assert metrics["grad_norm/plan"].value() == pytest.approx((2 / 3) ** 0.5) and metrics["lr"] == Last(0.5)
    assert not any("base" in name for name in metrics)
    assert (
        planner.weights["base"]["plan"] == pytest.approx([1 / 3, -1 / 6, -1 / 6])
        and main.weights["base"] == {}
    )
    assert joined.logprobs(one("base"))[1][0] != joined.logprobs(one("plan"))[1][0]
    joined.release("plan")
    assert planner.optimizers == {}


def test_completions_come_back_in_the_order_of_the_requests():
    joined, main, planner = fakes(script=lambda *_: "b </plan>")
    main.script = lambda *_: "c </plan>"
    joined.publish("plan")
    ask = Request(policy="base", context=(4,), n=2, stops=("</plan>",), max_tokens=4)
    found = joined.sample(
        [ask, replace(ask, policy="plan", n=1), replace(ask, n=1), replace(ask, policy="plan", n=3)]
    )
    assert [[c.token_ids for c in row] for row in found] == [[(2, 3)] * 2, [(1, 3)], [(2, 3)], [(1, 3)] * 3]
    assert [row[0].version for row in found] == [0, 1, 0, 1]


def test_assigning_and_factoring_stay_inside_one_engine():
    joined, main, planner = fakes()
    joined.fork("plan", "start", "frozen")
    joined.prepare("plan", SGD)
    joined.forward_backward(one("plan"), ONE)
    joined.optim_step("plan")
    moved = planner.weights["base"]
    assert joined.factor("lora", "start") == 1.0
    assert planner.weights["lora"] == moved and planner.weights["base"] == {}
    joined.fork("lora", "whole", "model")
    joined.assign("plan", "whole")
    assert planner.weights["base"] == moved and set(main.policies()) == {"base"}


ACROSS = [
    lambda j: j.assign("base", "plan"),
    lambda j: j.find_region("r", "plan", "start", 0.5),
    lambda j: j.overlap("ours", "theirs"),
    lambda j: j.hold("plan", "ours"),
    lambda j: j.transplant("base", "start", "theirs"),
    lambda j: j.slerp("base", "plan", 0.5),
    lambda j: j.slerp("base", "start", 0.5, "theirs"),
    lambda j: j.inspect(one("plan"), ["start"]),
    lambda j: j.forward_backward(one("plan"), Objective((term("kl", 1.0, reference="start"),))),
]


@pytest.mark.parametrize("act", ACROSS)
def test_what_needs_two_models_at_once_is_refused(act):
    joined, _, _ = fakes()
    joined.fork("base", "start", "frozen")
    joined.fork("plan", "plan-start", "frozen")
    joined.regions |= {"ours": "base", "theirs": "plan"}
    with pytest.raises(ValueError, match="belong to different models .*whose weights have nothing in common"):
        act(joined)


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda j: j.publish("nowhere"), "no policy 'nowhere'; there are"),
        (lambda j: j.drop("plan"), "policy 'plan' cannot be dropped"),
        (lambda j: j.fork("base", "plan"), "policy 'plan' exists already"),
        (lambda j: j.fork("plan", "base", "model"), "policy 'base' exists already"),
        (lambda j: j.fork("base", "theirs"), "policy 'theirs' exists already"),
        (lambda j: j.factor("theirs", "start"), "policy 'theirs' exists already"),
        (lambda j: j.overlap("r", "r"), "no region 'r'"),
        (lambda j: j.drop("base"), "policy 'base' cannot be dropped"),
    ],
)
def test_names_that_are_unknown_or_taken_are_refused(act, error):
    joined, _, _ = fakes()
    joined.fork("base", "start", "frozen")
    joined.fork("plan", "theirs")
    with pytest.raises((KeyError, ValueError), match=error):
        act(joined)


@pytest.mark.parametrize("names", [("base",), ("plan", "planner")])
def test_names_of_engines_must_be_free(names):
    main, taken = (FakeEngine(FAKE_WORDS, {}) for _ in range(2))
    taken.fork("base", "planner")
    with pytest.raises(ValueError, match="two engines have policies of one name"):
        Joined(
            main, {name: taken if i == 0 else FakeEngine(FAKE_WORDS, {}) for i, name in enumerate(names)}, []
        )


# A refused update -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fields", "steps"), [({"nan_losses": {0}}, False), ({"nan_gradients": {0}}, True)])
def test_a_refused_update_of_one_model_clears_the_gradients_of_all(fields, steps):
    joined, main, _ = fakes(**fields)
    for name in ("base", "plan"):
        joined.prepare(name, SGD)
    joined.forward_backward(one("base"), ONE)
    joined.set_aside("base", "first")
    joined.forward_backward(one("base"), ONE)
    with pytest.raises(UpdateRefused, match="in the model 'plan': the .* of policy 'base' is nan"):
        joined.forward_backward(one("plan"), ONE)
        joined.optim_step("plan")
    with pytest.raises(ValueError, match="first"):
        joined.combine("base", ["first"])
    joined.optim_step("base")
    assert main.weights["base"].get("plan", [0.0] * 3) == [0.0] * 3


def test_the_gradients_of_all_models_are_checked_before_one_of_them_moves():
    joined, main, planner = fakes(nan_gradients={0})
    for name in ("base", "plan"):
        joined.prepare(name, SGD)
        joined.forward_backward(one(name), ONE)
    with pytest.raises(UpdateRefused, match="in the model 'plan': the gradient norm of policy 'base' is nan"):
        joined.check_gradients(["base", "plan"])
    assert not main.gradients["base"] and not planner.gradients["base"] and main.steps == 0


# Tokenizers, files ------------------------------------------------------------------------------------------


def test_models_with_other_tokenizers_are_refused():
    main = engine_of()
    for other in (engine_of(tokenizer=bpe_of(WORDS)), FakeEngine(["w1", "w0"], {})):
        with pytest.raises(
            UserError,
            match="small Llama.* and .* .for .plan.. have different tokenizers: "
            ".w0. is .* must have the same",
        ):
            Joined(main, {"plan": other}, ["w0", "w1"])


def test_a_checkpoint_of_other_models_is_refused(tmp_path):
    joined, main, planner = fakes()
    main.save(tmp_path / "alone")
    with pytest.raises(CheckpointError, match=r"alone holds one model, this run has \['base', 'plan'\]"):
        joined.load(tmp_path / "alone")
    joined.save(tmp_path / "both")
    with pytest.raises(
        CheckpointError,
        match=r"both holds \['base', 'plan'\], this run has \['base', "
        r"'think'\]",
    ):
        Joined(main, {"think": planner}, []).load(tmp_path / "both")


# Two models of different width, end to end ------------------------------------------------------------------


def pair(seed: int = 0) -> Joined:
    wide = model_of("qwen2", seed + 1, hidden_size=48, max_position_embeddings=64)
    return Joined(engine_of(model_of(seed=seed)), {"plan": engine_of(wide)}, WORDS)


def test_a_planner_of_another_width_trains_saves_and_goes_on(tmp_path):
    joined = pair()
    main, planner = joined.engines["base"], joined.engines["plan"]
    assert (
        joined.encode("w0 w6") == main.encode("w0 w6")
        and joined.decode((3, 9)) == "w0 w6"
        and joined.context == 64
    )
    joined.check_words(WORDS, ["w1"])
    assert drawn(joined, "plan") == drawn(planner, "base") != drawn(joined, "base") == drawn(main, "base")
    joined.fork("base", "act")
    joined.fork("plan", "plan-then", "frozen")
    before = {name: joined.logprobs(batch(name)) for name in joined.policies()}
    weights = snapshot(main, "base")
    joined.prepare("plan", OptimSpec(lr=0.05, warmup=0))
    metrics = joined.forward_backward(batch("plan"), OBJECTIVE) | joined.optim_step("plan")
    joined.publish("plan")
    assert metrics["grad_norm/plan"].value() > 0 and same(weights, snapshot(main, "base"))
    after = {name: joined.logprobs(batch(name)) for name in joined.policies()}
    assert {name for name in after if after[name] != before[name]} == {"plan"}
    assert joined.policies() == {"base": 0, "act": 0, "plan": 1, "plan-then": 0}

    assert (
        joined.find_region("core", "plan", "plan-then", 0.01) == joined.random_region("dice", "core", 3) > 0
    )
    assert 0 <= joined.overlap("core", "dice") < 1
    joined.hold("plan", "core")
    joined.save(tmp_path / "a")
    other = pair(seed=5)
    other.load(tmp_path / "a")
    assert other.policies() == joined.policies() and other.overlap("core", "dice") == joined.overlap(
        "core", "dice"
    )
    assert {name: other.logprobs(batch(name)) for name in other.policies()} == after
    assert drawn(other, "plan") == drawn(joined, "plan")
    for e in (joined, other):
        e.forward_backward(batch("plan", 3), OBJECTIVE)
        e.optim_step("plan")
    assert same(snapshot(planner, "base"), snapshot(other.engines["plan"], "base"))


def test_what_is_measured_against_a_reference_goes_by_outer_names():
    joined = pair()
    joined.fork("plan", "plan-then", "frozen")
    learn(joined.engines["plan"], "base", steps=1)
    found = [stats for stats in joined.inspect(batch("plan"), ["plan-then", "plan"]) if stats]
    assert found and all(
        set(stats.kl) == {"plan-then", "plan"} and max(stats.kl["plan"]) < 1e-6 for stats in found
    )
    assert max(x for stats in found for x in stats.kl["plan-then"]) > 1e-3
    assert [stats is None for stats in joined.inspect(batch("plan"))] == [
        not s.stream for s in batch("plan").segments
    ]


def test_the_facts_name_both_models_and_count_both():
    joined = pair()
    main, planner = joined.engines["base"].facts(), joined.engines["plan"].facts()
    facts = joined.facts()
    assert facts["model"] == "base: small LlamaForCausalLM, plan: small Qwen2ForCausalLM"
    assert (
        facts["parameters"]
        == main["parameters"] + planner["parameters"]
        == facts["parameters/base"] + facts["parameters/plan"]
    )
    assert facts["parameters/plan"] > facts["parameters/base"] > 0
    assert main.keys() <= facts.keys()
