"""Policies on one set of modules: what trains moves, and nothing else does by a bit."""

from __future__ import annotations

import pytest
import torch
from tolerance import rounding
from torch_kit import engine_of, forest, model_of, plain_logits, same, snapshot, stir
from transformers import PreTrainedModel

from forethought.core.errors import CheckpointError, RecipeError
from forethought.core.types import Batch, Objective, Request, Segment
from forethought.engines.base import UpdateRefused
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec

FIELDS = {"stream": "sft", "weight": lambda rng, n: (1.0,) * n, "role": "plan"}
OBJECTIVE = Objective((term("sft", 20.0),))


def batch(policy: str, seed: int = 0, **fields) -> Batch:
    return Batch(policy=policy, segments=tuple(forest(seed, **(FIELDS | fields))))


def learn(engine, policy: str, steps: int = 2, seed: int = 0, lr: float = 0.05, name: str = "adamw") -> None:
    if policy not in engine.optimizers:
        engine.prepare(policy, OptimSpec(name=name, lr=lr, muon_lr=lr, warmup=0))
    for k in range(steps):
        engine.forward_backward(batch(policy, seed + k), OBJECTIVE)
        engine.optim_step(policy)
        engine.publish(policy)


def files(engine, folder) -> dict[str, bytes]:
    """Every tensor file that a checkpoint writes, by name."""
    engine.save(folder)
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


def flags(model: PreTrainedModel) -> set[str]:
    return {k for k, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("llama", "muon"), ("gpt_neox", "adamw"), ("qwen3_moe", "muon"), ("gpt2", "adamw")],
)
def test_training_one_adapter_moves_that_adapter_alone(kind, optimizer, tmp_path):
    engine = engine_of(model_of(kind, tie_word_embeddings=kind in ("llama", "gpt2")))
    for name in ("plan", "act"):
        engine.fork("base", name)
        stir(engine, name, seed=len(name))
    engine.fork("plan", "plan-at-stage-1", "frozen")
    engine.fork("base", "base-at-stage-1", "frozen")
    before = files(engine, tmp_path / "before")
    learn(engine, "plan", name=optimizer)
    after = files(engine, tmp_path / "after")
    moved = {name for name in after if before.get(name) != after[name]}
    assert moved == {"adapters/plan/adapter_model.safetensors", "optimizer-plan.safetensors"}
    learn(engine, "act", name=optimizer)
    last = files(engine, tmp_path / "last")
    moved = {name for name in last if after.get(name) != last[name]}
    assert moved == {"adapters/act/adapter_model.safetensors", "optimizer-act.safetensors"}
    assert set(last) >= {
        "base/model.safetensors",
        "copies/base-at-stage-1.safetensors",
        "adapters/plan-at-stage-1/adapter_model.safetensors",
    }


def test_every_weight_of_what_trains_moves(tmp_path):
    """The other half: nothing of the trained policy is left out. (A key's bias has no gradient: softmax does
    not see it.)"""
    engine = engine_of(model_of("qwen2"))
    before = snapshot(engine, "base")
    learn(engine, "base")
    still = {k for k, p in snapshot(engine, "base").items() if torch.equal(p, before[k])}
    assert still <= {k for k in before if k.endswith("k_proj.bias")}
    engine.fork("base", "plan")
    before = snapshot(engine, "plan")
    assert len(before) == 2 * 7 * 2  # A and B of seven linear layers in each of two layers
    learn(engine, "plan", steps=3)
    assert all(not torch.equal(p, before[k]) for k, p in snapshot(engine, "plan").items())


def test_training_the_base_moves_every_policy_that_stands_on_it_and_no_adapter():
    engine = engine_of()
    engine.fork("base", "plan")
    stir(engine, "plan")
    engine.fork("base", "frozen", "frozen")
    lora, before = (
        snapshot(engine, "plan"),
        {name: engine.logprobs(batch(name)) for name in ("base", "plan", "frozen")},
    )
    learn(engine, "base")
    after = {name: engine.logprobs(batch(name)) for name in before}
    assert same(lora, snapshot(engine, "plan"))
    assert (
        after["frozen"] == before["frozen"]
        and after["base"] != before["base"]
        and after["plan"] != before["plan"]
    )


# Forks, copies, drops ---------------------------------------------------------------------------------------


def test_a_fork_behaves_exactly_like_its_source_and_then_goes_its_own_way():
    engine = engine_of(model_of("qwen2"))
    engine.fork("base", "plan")
    assert engine.logprobs(batch("plan")) == engine.logprobs(batch("base"))
    stir(engine, "plan")
    engine.fork("plan", "act")
    assert engine.logprobs(batch("act")) == engine.logprobs(batch("plan")) != engine.logprobs(batch("base"))
    ask = lambda name: engine.sample(
        [Request(policy=name, context=(3, 4, 5), n=4, stops=(), max_tokens=8, seed=3)]
    )[0]  # noqa: E731
    assert [o.token_ids for o in ask("act")] == [o.token_ids for o in ask("plan")]
    assert [o.logprobs for o in ask("act")] == [o.logprobs for o in ask("plan")]
    before = engine.logprobs(batch("plan"))
    learn(engine, "act")
    assert engine.logprobs(batch("plan")) == before != engine.logprobs(batch("act"))
    assert engine.policies() == {"base": 0, "plan": 1, "act": 2}


def test_the_same_name_begins_the_same_way_in_every_run_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    engines = [engine_of(), engine_of()]
    for i, engine in enumerate(engines):
        torch.manual_seed(i)
        engine.fork("base", "plan")
        engine.fork("base", "ref", "frozen")
    a, b = (snapshot(engine, "plan") for engine in engines)
    assert same(a, b) and any(p.abs().max() > 0 for p in a.values())
    torch.manual_seed(5)
    engines[0].fork("plan", "act")
    assert torch.equal(torch.rand(3), wanted)


def test_a_frozen_copy_of_the_base_stays_what_the_base_was_and_never_trains():
    for kind, tied in [("llama", True), ("llama", False), ("qwen3_moe", False), ("gpt2", True)]:
        engine = engine_of(model_of(kind, tie_word_embeddings=tied))
        engine.fork("base", "plan")
        stir(engine, "plan")
        engine.fork("base", "ref", "frozen")
        before = engine.logprobs(batch("base"))
        assert engine.logprobs(batch("ref")) == before  # without the adapter that lies on the base
        learn(engine, "base", steps=1)
        assert engine.logprobs(batch("ref")) == before != engine.logprobs(batch("base"))
        copy = engine.weights.copies["ref"]
        assert (copy.get_input_embeddings().weight is copy.get_output_embeddings().weight) == tied
        assert not {p.data_ptr() for p in copy.parameters()} & {
            p.data_ptr() for p in engine.weights.base.parameters()
        }
        with pytest.raises(ValueError, match="policy 'ref' is frozen"):
            engine.prepare("ref", OptimSpec())


def test_a_copy_keeps_the_types_of_the_base():
    """A bf16 model has fp32 rotary frequencies (and some fp32 weights): a cast copy would be another
    model."""
    engine = engine_of(model_of("llama", initializer_range=0.3))
    base = engine.weights.base
    frequencies = base.model.rotary_emb.inv_freq.clone()
    base.to(torch.bfloat16)
    # as loaded from somewhere, not as the config would make it
    base.model.rotary_emb.inv_freq = frequencies * 1.01
    base.lm_head.float()
    engine.fork("base", "ref", "frozen")
    copy = engine.weights.copies["ref"]
    assert copy.model.rotary_emb.inv_freq.dtype == torch.float32 and torch.equal(
        copy.model.rotary_emb.inv_freq, frequencies * 1.01
    )
    assert {k: p.dtype for k, p in copy.named_parameters()} == {
        k: p.dtype for k, p in base.named_parameters()
    }


def test_drops():
    engine = engine_of()
    for name in ("plan", "act"):
        engine.fork("base", name)
        stir(engine, name, seed=len(name))
    engine.fork("base", "ref", "frozen")
    base, act = engine.logprobs(batch("base")), engine.logprobs(batch("act"))
    learn(engine, "plan")
    engine.sample([Request(policy="plan", context=(3,), n=1, stops=(), max_tokens=2)])
    for name in ("plan", "ref"):
        engine.drop(name)
        with pytest.raises(KeyError, match=f"no policy '{name}'"):
            engine.logprobs(batch(name))
    assert engine.policies() == {"base": 0, "act": 1} and "plan" not in engine.optimizers
    assert engine.logprobs(batch("base")) == base and engine.logprobs(batch("act")) == act
    assert not any(".plan." in k for k, _ in engine.weights.base.named_parameters())
    engine.drop("act")
    assert engine.logprobs(batch("base")) == base
    engine.fork("base", "later")  # after the last adapter has gone
    stir(engine, "later")
    learn(engine, "later", steps=1)
    assert engine.logprobs(batch("base")) == base != engine.logprobs(batch("later"))
    with pytest.raises(KeyError, match="policy 'base' cannot be dropped"):
        engine.drop("base")


def test_names_are_never_taken_twice():
    engine = engine_of()
    engine.fork("base", "plan")
    for kind in ("adapter", "model", "frozen"):
        with pytest.raises(ValueError, match="policy 'plan' exists already"):
            engine.fork("base", "plan", kind)


@pytest.mark.parametrize("name", ["model", "layers", "q_proj", "plan-at-stage-1", "A"])
def test_an_adapter_may_be_called_what_a_module_is(name):
    """`parameters` finds an adapter's own weights by name, and a module's name is part of every weight's."""
    engine = engine_of()
    engine.fork("base", "plan")
    stir(engine, "plan")
    engine.fork("base", name)
    assert len(engine.weights.parameters(name)) == 28
    other = snapshot(engine, "plan")
    learn(engine, name, steps=1)
    assert same(other, snapshot(engine, "plan"))


# Gradients go to one policy ---------------------------------------------------------------------------------


def test_requires_grad_is_on_for_what_trains_and_only_while_it_does():
    """PEFT flips it with every change of adapter; whatever was called before, one policy's own weights are
    on, and then none."""
    engine = engine_of()
    model = engine.weights.base

    def check() -> None:
        assert flags(model) == set()
        for name in engine.weights.adapters:
            with engine.weights.training(name):
                assert flags(model) == {k for k, _ in model.named_parameters() if f".{name}." in k} != set()
            assert flags(model) == set()
        with engine.weights.training("base"):
            assert flags(model) == {k for k, _ in model.named_parameters() if "lora_" not in k}
        assert flags(model) == set()

    check()
    for step in (
        lambda: engine.fork("base", "plan"),
        lambda: engine.fork("plan", "act"),
        lambda: engine.logprobs(batch("act")),
        lambda: engine.sample([Request(policy="plan", context=(3,), n=1, stops=(), max_tokens=2)]),
        lambda: learn(engine, "plan", steps=1),
        lambda: engine.fork("base", "ref", "frozen"),
        lambda: engine.drop("act"),
        lambda: engine.fork("base", "late"),
        lambda: learn(engine, "base", steps=1),
    ):
        step()
        check()
    with pytest.raises(RuntimeError, match="boom"), engine.weights.training("plan"):
        raise RuntimeError("boom")
    check()


def test_gradients_of_two_policies_gather_side_by_side():
    """As the stage loop does it: all forward_backwards first, then all steps. Each is what it would be
    alone."""
    alone = {}
    for name in ("plan", "act"):
        engine = engine_of()
        for other in ("plan", "act"):
            engine.fork("base", other)
            stir(engine, other, seed=len(other))
        learn(engine, name, steps=1)
        alone[name] = snapshot(engine, name)
    engine = engine_of()
    for name in ("plan", "act"):
        engine.fork("base", name)
        stir(engine, name, seed=len(name))
        engine.prepare(name, OptimSpec(lr=0.05, warmup=0))
    for name in ("plan", "act"):
        engine.forward_backward(batch(name), OBJECTIVE)
        engine.logprobs(batch("base", 3))
    assert all(p.grad is None for p in engine.weights.parameters("base").values())
    for name in ("plan", "act"):
        engine.optim_step(name)
    for name in ("plan", "act"):
        assert same(alone[name], snapshot(engine, name))


def test_a_refused_update_clears_the_gradients_of_every_policy():
    engine = engine_of()
    for name in ("plan", "act"):
        engine.fork("base", name)
        engine.prepare(name, OptimSpec(warmup=0))
    engine.forward_backward(batch("plan"), OBJECTIVE)
    with pytest.raises(UpdateRefused):
        engine.forward_backward(batch("act", weight=lambda rng, n: (float("nan"),) * n), OBJECTIVE)
    assert all(p.grad is None for p in engine.weights.base.parameters())


def test_gradients_of_several_policies_are_checked_before_one_of_them_moves():
    engine = engine_of()
    for name in ("act", "plan"):
        engine.fork("base", name)
        engine.prepare(name, OptimSpec(warmup=0))
        engine.forward_backward(batch(name), OBJECTIVE)
    engine.check_gradients(["act", "plan"])
    before = snapshot(engine, "act")
    next(p for p in engine.weights.parameters("plan").values() if p.grad is not None).grad.view(-1)[-1] = (
        float("inf")
    )
    with pytest.raises(UpdateRefused, match="the gradient norm of policy 'plan' is (inf|nan)"):
        engine.check_gradients(["act", "plan"])
    assert same(snapshot(engine, "act"), before) and all(
        p.grad is None for p in engine.weights.base.parameters()
    )


def test_a_gradient_that_is_not_finite_where_weights_are_held_refuses_nothing():
    engine = engine_of()
    engine.fork("base", "start", "frozen")
    learn(engine, "base", steps=1)
    engine.find_region("core", "base", "start", 0.001)
    engine.hold("base", "core")
    engine.forward_backward(batch("base"), OBJECTIVE)
    for name, index in engine.regions.found["core"].indices.items():
        engine.weights.parameters("base")[name].grad.view(-1)[index] = float("nan")
    engine.check_gradients(["base"])
    engine.optim_step("base")
    assert engine.finite() == ""


# Sampling from a merged copy --------------------------------------------------------------------------------


def drawn(engine, policy: str) -> list:
    return [
        o.logprobs
        for o in engine.sample(
            [Request(policy=policy, context=(3, 4, 5), n=3, stops=(), max_tokens=6, temperature=0.0)]
        )[0]
    ]


def test_sampling_speaks_with_published_weights():
    engine = engine_of()
    engine.fork("base", "plan")
    engine.prepare("plan", OptimSpec(lr=0.5, warmup=0))
    before = drawn(engine, "plan")
    for _ in range(2):
        engine.forward_backward(batch("plan"), OBJECTIVE)
        engine.optim_step("plan")
    assert drawn(engine, "plan") == before
    engine.publish("plan")
    assert drawn(engine, "plan") != before


def test_a_moved_base_moves_what_an_adapter_on_it_says():
    engine = engine_of()
    engine.fork("base", "plan")
    stir(engine, "plan")
    before = drawn(engine, "plan")
    learn(engine, "base", steps=1, lr=0.5)
    assert drawn(engine, "plan") != before
    fresh = engine_of()
    fresh.fork("base", "plan")
    stir(fresh, "plan")
    with torch.no_grad():
        for k, p in fresh.weights.parameters("base").items():
            p.copy_(engine.weights.parameters("base")[k])
    fresh.publish("base")
    assert drawn(engine, "plan") == drawn(fresh, "plan")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "targets", [("q_proj", "v_proj"), ("embed_tokens", "q_proj"), ("lm_head", "q_proj"), ("embed_tokens",)]
)
def test_adapters_on_any_module_sample_what_they_train(targets, tied, tmp_path):
    """Where weights are tied, adding an embedding's adapter in would add it to the head too."""
    engine = engine_of(model_of(tie_word_embeddings=tied, initializer_range=0.3), targets=targets)
    engine.fork("base", "plan")
    assert engine.weights.parameters("plan")
    stir(engine, "plan", scale=0.5)
    base = snapshot(engine, "base")
    learn(engine, "plan", steps=1)
    assert same(base, snapshot(engine, "base"))
    for out in engine.sample(
        [Request(policy="plan", context=(3, 4, 5), n=3, stops=(), max_tokens=6, seed=1)]
    )[0]:
        segments = (
            Segment(parent=-1, token_ids=(3, 4, 5)),
            Segment(parent=0, token_ids=out.token_ids, stream="sft"),
        )
        with torch.no_grad():
            most = plain_logits(engine.weights.model("plan"), (3, 4, 5) + out.token_ids).abs().max().item()
        assert out.logprobs == pytest.approx(
            engine.logprobs(Batch(policy="plan", segments=segments))[1], abs=rounding([most])
        )
    engine.save(tmp_path / "a")
    other = engine_of(model_of(tie_word_embeddings=tied, initializer_range=0.3, seed=9), targets=targets)
    other.load(tmp_path / "a")
    assert other.logprobs(batch("plan")) == engine.logprobs(batch("plan"))


def test_a_target_that_the_model_lacks_is_named():
    with pytest.raises(RecipeError, match="adapter.targets: .*nonsense"):
        engine_of(targets=("nonsense",)).fork("base", "plan")


# Save and load ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "optimizer", "tied"),
    [
        ("llama", "adamw", False),
        ("llama", "muon", True),
        ("gpt2", "adamw", True),
        ("mixtral", "muon", False),
        ("qwen3_moe", "adamw", True),
        ("phi", "muon", False),
    ],
)
def test_going_on_after_a_load_is_going_on(kind, optimizer, tied, tmp_path):
    """Two steps, save, two steps; a fresh engine with other weights loads and takes the same two: the same
    bits."""
    engine = engine_of(model_of(kind, tie_word_embeddings=tied))
    learn(engine, "base", name=optimizer)
    engine.fork("base", "plan")
    engine.fork("base", "act")
    engine.fork("base", "base-at-stage-1", "frozen")
    learn(engine, "plan", name=optimizer)
    engine.fork("plan", "plan-at-stage-1", "frozen")
    engine.save(tmp_path / "a")
    other = engine_of(model_of(kind, seed=7, tie_word_embeddings=tied))
    other.fork("base", "stranger")
    other.load(tmp_path / "a")
    assert other.policies() == engine.policies() and set(other.weights.names()) == set(engine.weights.names())
    for name in engine.policies():
        assert other.logprobs(batch(name)) == engine.logprobs(batch(name)), name
    for e in (engine, other):
        for policy in ("base", "plan"):
            learn(e, policy, seed=5)
    for policy in ("base", "plan", "act"):
        assert same(snapshot(engine, policy), snapshot(other, policy)), policy
        if policy in engine.optimizers:
            assert same(engine.optimizers[policy].state(), other.optimizers[policy].state())
    assert drawn(engine, "plan") == drawn(other, "plan")


def test_a_second_load_takes_everything_back(tmp_path):
    """What a gate's roll-back does, in the engine that went on."""
    engine = engine_of()
    engine.fork("base", "plan")
    learn(engine, "plan")
    wanted = {name: snapshot(engine, name) for name in ("base", "plan")}
    state, spoken = engine.optimizers["plan"].state(), drawn(engine, "plan")
    engine.save(tmp_path / "a")
    learn(engine, "plan")
    engine.fork("base", "act")
    learn(engine, "act")
    drawn(engine, "plan")
    engine.load(tmp_path / "a")
    # version 4 was another's; 5 is new
    assert engine.policies() == {"base": 0, "plan": 5} and set(engine.optimizers) == {"plan"}
    assert all(same(wanted[name], snapshot(engine, name)) for name in wanted)
    assert same(state, engine.optimizers["plan"].state()) and drawn(engine, "plan") == spoken


def test_a_checkpoint_without_weights_cannot_undo_a_base_that_moved(tmp_path):
    engine = engine_of()
    engine.source = "elsewhere"
    engine.save(tmp_path / "a")
    assert not (tmp_path / "a/base/model.safetensors").exists()
    learn(engine, "base", steps=1)
    with pytest.raises(CheckpointError, match="holds no weights of it"):
        engine.load(tmp_path / "a")
    engine.save(tmp_path / "b")
    assert (tmp_path / "b/base/model.safetensors").exists()
