"""Policies that are whole models of their own, and weights that are assigned."""

from __future__ import annotations

import pytest
import torch
from test_torch_policies import OBJECTIVE, batch, drawn, learn
from tolerance import LOGP
from torch_kit import engine_of, model_of, same, snapshot, stir

from forethought.core.errors import RecipeError
from forethought.core.types import Batch, Request, Segment
from forethought.engines.torch.models.small import small_model
from forethought.recipe.schema import ModelSpec, OptimSpec


@pytest.mark.parametrize(
    ("kind", "tied", "optimizer"),
    [
        ("llama", True, "adamw"),
        ("llama", False, "muon"),
        ("qwen3_moe", False, "adamw"),
        ("gpt2", True, "adamw"),
    ],
)
def test_a_model_begins_as_its_source_and_goes_its_own_way(kind, tied, optimizer):
    engine = engine_of(model_of(kind, tie_word_embeddings=tied))
    engine.fork("base", "lora")
    stir(engine, "lora")
    engine.fork("base", "plan", "model")
    before = engine.logprobs(batch("base"))
    for mine, other in zip(
        [*engine.logprobs(batch("plan")), *drawn(engine, "plan")],
        [*before, *drawn(engine, "base")],
        strict=True,
    ):
        assert mine == pytest.approx(other, abs=LOGP)  # other modules lie around the same weights
    others = {name: snapshot(engine, name) for name in ("base", "lora")}
    learn(engine, "plan", name=optimizer)
    assert all(same(others[name], snapshot(engine, name)) for name in others)
    assert engine.logprobs(batch("plan")) != before == engine.logprobs(batch("base"))
    still = {k for k, p in snapshot(engine, "plan").items() if torch.equal(p, others["base"][k])}
    assert still <= {
        k for k in others["base"] if k.endswith(("k_proj.bias", "wpe.weight", "embed_tokens.weight"))
    }
    plan = snapshot(engine, "plan")
    learn(engine, "base", name=optimizer)
    assert same(plan, snapshot(engine, "plan")) and engine.policies() == {"base": 2, "lora": 1, "plan": 2}
    copy = engine.weights.copies["plan"]
    assert (copy.get_input_embeddings().weight is copy.get_output_embeddings().weight) == tied
    assert not any(p.requires_grad for p in copy.parameters())


def test_a_model_samples_what_it_trains():
    engine = engine_of(model_of(initializer_range=0.3))
    engine.fork("base", "plan", "model")
    learn(engine, "plan")
    for out in engine.sample(
        [Request(policy="plan", context=(3, 4, 5), n=3, stops=(), max_tokens=6, seed=1)]
    )[0]:
        segments = (
            Segment(parent=-1, token_ids=(3, 4, 5)),
            Segment(parent=0, token_ids=out.token_ids, stream="sft"),
        )
        assert out.version == 2
        assert out.logprobs == pytest.approx(
            engine.logprobs(Batch(policy="plan", segments=segments))[1], abs=LOGP
        )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3_moe"])
def test_a_model_from_an_adapter_has_it_added_in(kind):
    engine = engine_of(model_of(kind))
    engine.fork("base", "lora")
    stir(engine, "lora")
    learn(engine, "lora", steps=1)
    engine.fork("lora", "plan", "model")
    wanted = engine.logprobs(batch("lora"))
    assert wanted != engine.logprobs(batch("base"))
    for mine, theirs in zip(engine.logprobs(batch("plan")), wanted, strict=True):
        assert mine == pytest.approx(theirs, abs=LOGP)
    assert "plan" not in engine.optimizers  # an adapter's moments belong to other tensors
    plan = snapshot(engine, "plan")
    learn(engine, "lora", steps=1)
    engine.drop("lora")
    assert same(plan, snapshot(engine, "plan"))


def test_an_adapter_on_a_tied_weight_cannot_become_a_model():
    engine = engine_of(model_of(tie_word_embeddings=True), targets=("embed_tokens", "q_proj"))
    engine.fork("base", "lora")
    with pytest.raises(
        RecipeError,
        match=r"adapter.targets: model.embed_tokens.weight is tied to "
        r"lm_head.weight",
    ):
        engine.fork("lora", "plan", "model")
    assert set(engine.policies()) == {"base", "lora"}
    engine = engine_of(model_of(tie_word_embeddings=False), targets=("embed_tokens", "q_proj"))
    engine.fork("base", "lora")
    stir(engine, "lora")
    engine.fork("lora", "plan", "model")
    for mine, theirs in zip(engine.logprobs(batch("plan")), engine.logprobs(batch("lora")), strict=True):
        assert mine == pytest.approx(theirs, abs=LOGP)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_model_takes_the_optimizer_of_its_source_along(optimizer):
    """One more step of both gives the same bits; without the moments it would not."""
    engine = engine_of()
    learn(engine, "base", name=optimizer)
    engine.fork("base", "plan", "model")
    assert engine.optimizers["plan"].spec == engine.optimizers["base"].spec
    engine.fork("base", "fresh", "model")
    engine.prepare("fresh", engine.optimizers["base"].spec)
    for name in ("base", "plan", "fresh"):
        learn(engine, name, steps=1, seed=5)
    assert same(snapshot(engine, "base"), snapshot(engine, "plan")) and not same(
        snapshot(engine, "base"), snapshot(engine, "fresh")
    )
    engine.fork("plan", "act", "model")  # a copy of a copy
    for name in ("plan", "act"):
        learn(engine, name, steps=1, seed=9)
    assert same(snapshot(engine, "plan"), snapshot(engine, "act"))


def test_layers_of_a_model_are_computed_again_where_the_recipe_asks_for_it():
    moved, calls = [], []
    for again in (False, True):
        engine = engine_of(gradient_checkpointing=again)
        engine.fork("base", "plan", "model")
        engine.weights.model("plan").model.layers[0].self_attn.q_proj.register_forward_hook(
            lambda *_: calls.append(again)
        )  # noqa: B023
        learn(engine, "plan", steps=1)
        moved.append(snapshot(engine, "plan"))
    assert calls == [False, True, True]  # a hook is called, so the layer that has one runs module by module
    for k, p in moved[0].items():
        torch.testing.assert_close(moved[1][k], p, rtol=1e-4, atol=1e-5)


def test_frozen_copies_of_every_kind_never_train():
    engine = engine_of()
    engine.fork("base", "lora")
    engine.fork("base", "plan", "model")
    learn(engine, "plan", steps=1)
    for src in ("base", "lora", "plan"):
        stir(engine, src, seed=len(src))
        engine.fork(src, f"{src}-then", "frozen")
        before = engine.logprobs(batch(src))
        assert engine.logprobs(batch(f"{src}-then")) == before
        assert f"{src}-then" not in engine.optimizers
        with pytest.raises(ValueError, match=f"policy '{src}-then' is frozen"):
            engine.prepare(f"{src}-then", OptimSpec())
        with pytest.raises(ValueError, match=f"policy '{src}-then' is frozen"):
            engine.forward_backward(batch(f"{src}-then"), OBJECTIVE)
    then = engine.logprobs(batch("plan-then"))
    learn(engine, "plan", steps=1)
    assert engine.logprobs(batch("plan-then")) == then != engine.logprobs(batch("plan"))
    engine.fork("plan-then", "again", "model")
    assert engine.logprobs(batch("again")) == then
    learn(engine, "again", steps=1)


@pytest.mark.parametrize(
    ("src", "kind", "error"),
    [
        ("plan", "adapter", "an adapter lies on the base; 'plan' is a whole model"),
        ("ref", "adapter", "'ref' is a whole model"),
        ("base", "lora", "cannot be forked as 'lora'; known: adapter, model, frozen"),
        ("nowhere", "model", "no policy 'nowhere'"),
        ("nowhere", "adapter", "no policy 'nowhere'"),
        ("nowhere", "frozen", "no policy 'nowhere'"),
    ],
)
def test_a_fork_that_cannot_be_is_refused(src, kind, error):
    engine = engine_of()
    engine.fork("base", "plan", "model")
    engine.fork("base", "ref", "frozen")
    with pytest.raises((ValueError, KeyError), match=error):
        engine.fork(src, "new", kind)
    assert "new" not in engine.policies() and "new" not in engine.weights.names()


# Assigned weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("gpt2", False), ("qwen3_moe", False)])
def test_assigned_weights_are_the_source_s_bit_for_bit_and_the_optimizer_stays(kind, tied):
    engine = engine_of(model_of(kind, tie_word_embeddings=tied))
    engine.fork("base", "start", "frozen")
    engine.fork("base", "plan", "model")
    learn(engine, "plan")
    learn(engine, "base", seed=3)
    wanted, state = snapshot(engine, "plan"), engine.optimizers["base"].state()
    engine.assign("base", "plan")
    assert same(snapshot(engine, "base"), wanted) and same(engine.optimizers["base"].state(), state)
    assert engine.logprobs(batch("base")) == engine.logprobs(batch("plan"))
    learn(engine, "base", steps=1)
    assert same(snapshot(engine, "plan"), wanted) and not same(snapshot(engine, "base"), wanted)
    engine.assign("plan", "start")
    assert same(snapshot(engine, "plan"), snapshot(engine, "start"))
    copy = engine.weights.copies["plan"]
    assert (copy.get_input_embeddings().weight is copy.get_output_embeddings().weight) == tied


def test_an_assigned_adapter_samples_once_it_is_published():
    engine = engine_of()
    for name in ("plan", "act"):
        engine.fork("base", name)
        stir(engine, name, seed=len(name))
    learn(engine, "plan")
    engine.fork("act", "act-then", "frozen")
    before, wanted = drawn(engine, "plan"), drawn(engine, "act")
    engine.assign("plan", "act-then")
    assert engine.logprobs(batch("plan")) == engine.logprobs(batch("act")) and drawn(engine, "plan") == before
    engine.publish("plan")
    assert drawn(engine, "plan") == wanted
    learn(engine, "plan", steps=1)
    assert (
        engine.logprobs(batch("act-then")) == engine.logprobs(batch("act")) != engine.logprobs(batch("plan"))
    )


@pytest.mark.parametrize(
    ("dst", "src", "error"),
    [
        ("base", "lora", "'base' and 'lora' are an adapter and a whole model"),
        ("lora", "ref", "an adapter and a whole model"),
        ("ref", "base", "policy 'ref' is frozen"),
        ("lora-then", "lora", "policy 'lora-then' is frozen"),
        ("nowhere", "base", "no policy 'nowhere'"),
        ("base", "nowhere", "no policy 'nowhere'"),
    ],
)
def test_an_assignment_that_cannot_be_is_refused(dst, src, error):
    engine = engine_of()
    engine.fork("base", "lora")
    engine.fork("lora", "lora-then", "frozen")
    engine.fork("base", "ref", "frozen")
    with pytest.raises((ValueError, KeyError), match=error):
        engine.assign(dst, src)


def test_a_base_that_was_assigned_is_saved(tmp_path):
    """It is no longer what its source holds."""
    engine = engine_of()
    engine.source = "elsewhere"
    engine.fork("base", "plan", "model")
    stir(engine, "plan")
    engine.assign("base", "plan")
    engine.save(tmp_path / "a")
    other = engine_of()
    other.load(tmp_path / "a")
    assert same(snapshot(other, "base"), snapshot(engine, "plan"))


# Save and load ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "optimizer", "tied"),
    [("llama", "muon", True), ("gpt2", "adamw", True), ("qwen3_moe", "adamw", False)],
)
def test_going_on_with_models_after_a_load_is_going_on(kind, optimizer, tied, tmp_path):
    engine = engine_of(model_of(kind, tie_word_embeddings=tied))
    learn(engine, "base", name=optimizer)
    engine.fork("base", "plan", "model")
    engine.fork("base", "lora")
    stir(engine, "lora")
    learn(engine, "plan", name=optimizer)
    for src in ("plan", "lora"):
        engine.fork(src, f"{src}-then", "frozen")
    engine.save(tmp_path / "a")
    other = engine_of(model_of(kind, seed=7, tie_word_embeddings=tied))
    other.fork("base", "plan")  # an adapter here, a model there
    other.fork("base", "lora", "model")
    other.fork("base", "plan-then", "model")
    other.load(tmp_path / "a")
    assert other.policies() == engine.policies() and other.weights.frozen == engine.weights.frozen == {
        "plan-then",
        "lora-then",
    }
    assert sorted(other.weights.adapters) == ["lora", "lora-then"] and sorted(other.weights.copies) == [
        "plan",
        "plan-then",
    ]
    for name in engine.policies():
        assert other.logprobs(batch(name)) == engine.logprobs(batch(name)), name
    for e in (engine, other):
        learn(e, "plan", seed=5)
    assert same(snapshot(engine, "plan"), snapshot(other, "plan")) and same(
        snapshot(engine, "base"), snapshot(other, "base")
    )
    assert same(engine.optimizers["plan"].state(), other.optimizers["plan"].state())
    other.load(tmp_path / "a")  # back again, in an engine that has gone on
    again = engine_of(model_of(kind, tie_word_embeddings=tied))
    again.load(tmp_path / "a")
    assert same(snapshot(other, "plan"), snapshot(again, "plan"))


def test_a_small_model_that_copies_begins_by_saying_what_followed_the_word_before():
    draws = [torch.randperm(512, generator=torch.Generator().manual_seed(i))[:60] for i in range(8)]
    ids = torch.stack([torch.cat([one, one[10:30]]) for one in draws])  # each of the last words stood before

    def rank(copies: bool) -> float:
        model = small_model(ModelSpec(copies=copies), 512, 128, 0)
        model.config._attn_implementation = "eager"
        with torch.no_grad():
            logits = model(ids).logits[:, 60:79]
        return (logits > logits.gather(2, ids[:, 61:, None])).sum(2).float().mean().item()

    assert rank(True) < 0.75 * rank(False)  # of 512 words; by chance 256


def test_a_copy_of_the_small_model_trains_what_the_small_model_trains():
    """The small model's output bias is a buffer, zero for ever; in a copy it must not become a parameter."""
    engine = engine_of(small_model(ModelSpec(layers=2, width=32, heads=4, mlp=32), 32, 64, 0))
    for kind in ("model", "frozen"):
        engine.fork("base", kind, kind)
        assert engine.weights.parameters(kind).keys() == engine.weights.parameters("base").keys()
    learn(engine, "model")
    assert not any(layer.self_attn.o_proj.bias.any() for layer in engine.weights.copies["model"].model.layers)
