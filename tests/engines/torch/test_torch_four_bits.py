"""A base in four bits under adapters: what packed forests compute on it is its own plain forward, gradients
reach the adapter alone, and a checkpoint goes on with it."""

from __future__ import annotations

import pytest
import torch
from tolerance import LOGP
from torch_kit import WORDS, forest, model_of, on_disk, plain_logp, same, snapshot, stir

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Batch, Objective, Request
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.models.four_bits import MARK
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.models.small import tokenizer_of
from forethought.learn.losses import term
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec

SPEC = EngineSpec(device="cpu", precision="fp32", threads=1, weights="nf4")


@pytest.fixture(scope="module")
def bits():
    return pytest.importorskip("bitsandbytes", reason="the extra nf4 is not installed")


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma"])
def path(request, tmp_path_factory) -> str:
    fields = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.15}
    return on_disk(tmp_path_factory.mktemp("model"), model_of(request.param, **fields), tokenizer_of(WORDS))


def engine_at(path: str) -> TorchEngine:
    return TorchEngine(from_path(path, weights="nf4"), SPEC, AdapterSpec(rank=2, alpha=4.0))


def test_forests_are_the_plain_forward_of_the_packed_model(bits, path):
    engine = engine_at(path)
    base = engine.weights.base
    assert getattr(base, MARK) and engine.parameters == from_path(path).model.num_parameters()
    q = base.model.layers[0].self_attn.q_proj
    assert type(q) is bits.nn.Linear4bit and q.weight.numel() == q.in_features * q.out_features // 2
    assert type(base.lm_head) is torch.nn.Linear
    engine.fork("base", "plan")
    stir(engine, "plan")
    segments = forest(3, stream=lambda rng, n: "sft", weight=lambda rng, n: (1.0,) * n)
    for policy in ("base", "plan"):
        found = engine.logprobs(Batch(policy=policy, segments=tuple(segments)))
        model = engine.weights.model(policy)
        with torch.no_grad():
            for i, segment in enumerate(segments):
                if segment.stream:
                    assert found[i] == pytest.approx(plain_logp(model, segments, i).tolist(), abs=LOGP)
        (out,) = engine.sample([Request(policy=policy, context=(3, 4, 5), n=1, stops=(), max_tokens=5)])[0]
        assert len(out.token_ids) > 0


def test_an_adapter_learns_and_the_base_stays(bits, path):
    engine = engine_at(path)
    engine.fork("base", "plan")
    engine.prepare("plan", OptimSpec(lr=0.02, warmup=0))
    segments = forest(4, stream=lambda rng, n: "sft", weight=lambda rng, n: (1.0,) * n)
    batch = Batch(policy="plan", segments=tuple(segments))
    before = {k: p.detach().clone() for k, p in engine.weights.base.named_parameters() if "lora_" not in k}
    first = sum(map(sum, engine.logprobs(batch)))
    for _ in range(5):
        engine.forward_backward(batch, Objective((term("sft", 10.0),)))
        engine.optim_step("plan")
    engine.publish("plan")
    assert sum(map(sum, engine.logprobs(batch))) > first + 1
    now = {k: p for k, p in engine.weights.base.named_parameters() if "lora_" not in k}
    assert all(torch.equal(before[k], now[k]) for k in before)


def test_a_checkpoint_goes_on_and_another_packing_is_refused(bits, path, tmp_path):
    engine = engine_at(path)
    engine.fork("base", "plan")
    engine.fork("base", "ref", "frozen")  # adds nothing, and never will
    stir(engine, "plan")
    (tmp_path / "saved").mkdir()
    engine.save(tmp_path / "saved")
    again = engine_at(path)
    again.load(tmp_path / "saved")
    assert same(snapshot(engine, "plan"), snapshot(again, "plan"))
    greedy = {"context": (3, 4), "n": 1, "stops": (), "max_tokens": 4, "temperature": 0.0}
    (ref,), (base,) = again.sample([Request(policy=p, **greedy) for p in ("ref", "base")])
    assert ref.token_ids == base.token_ids
    assert ref.logprobs == pytest.approx(base.logprobs, abs=1e-5)
    with pytest.raises(ValueError, match="is frozen"):
        again.prepare("ref", OptimSpec())
    with pytest.raises(RecipeError, match="engine.weights: no whole model is made of a base in four bits"):
        engine.fork("base", "other", "model")
    with pytest.raises(UserError, match="was saved on another base"):
        plain = EngineSpec(device="cpu", precision="fp32", threads=1)
        TorchEngine(from_path(path), plain, AdapterSpec(rank=2)).load(tmp_path / "saved")


def test_without_the_extra_it_says_which(path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", None)
    with pytest.raises(UserError, match=r'needs the extra `nf4`: pip install "forethought\[nf4\]"'):
        from_path(path, weights="nf4")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"layout": "shared"}, "is frozen, and a stage trains whole models"),
        ({"layout": "models"}, "is frozen, and a stage trains whole models"),
        ({"layout": "adapter", "model": {}}, "nf4 is for a loaded model"),
        ({"layout": "adapters", "model": {"path": "x", "adapter": "y"}}, "not added to a base in four bits"),
        ({"layout": "adapter"}, ""),
        ({"layout": "adapters"}, ""),
        ({"layout": "mixed", "stage": [{"kind": "imitate", "roles": ["plan"]}]}, ""),
    ],
)
def test_a_recipe_that_trains_more_than_adapters_is_refused(fields, why):
    stages = [{"kind": "imitate"}, {"kind": "reinforce"}]
    tables = {"model": {"path": "x"}, "engine": {"weights": "nf4"}, "stage": stages} | fields
    recipe = from_dict({"name": "x", "task": {"name": "desk"}} | tables)
    if not why:
        return check(recipe)
    with pytest.raises(RecipeError, match=f"engine.weights: .*{why}"):
        check(recipe)
