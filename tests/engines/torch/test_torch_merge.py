"""The weights that sample are the same bits whoever merges them, and when: after an update, at the first
sampling after a resume or a roll-back, in an evaluation of the finished run. The engine computes in bf16,
where a product inside an autocast is another one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from test_torch_policies import batch, drawn, learn
from torch_kit import engine_of, model_of, same, snapshot, stir

import forethought.engines.torch
from forethought.engines.torch.forest import lora
from forethought.engines.torch.forest.native import weights
from forethought.engines.torch.forest.native.library import library
from forethought.engines.torch.policies import table as policies

KINDS = [("qwen2", ()), ("gpt2", ()), ("qwen3_moe", ()), ("llama", ("embed_tokens", "lm_head"))]


def engine(kind: str = "qwen2", targets: tuple[str, ...] = (), **spec):
    made = engine_of(model_of(kind, tie_word_embeddings=False), targets=targets, precision="bf16", **spec)
    made.fork("base", "plan")
    stir(made, "plan")
    return made


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: p.detach().clone() for k, p in model.named_parameters()}


def test_a_copy_merged_at_the_first_sampling_is_the_one_merged_by_publish():
    """The finding: a resumed run has published nothing yet and merges inside the autocast of its sampling."""
    made = engine()
    assert not made.weights.merged, "who only trains has no copy of all weights"
    drawn(made, "plan")
    made.publish("plan")
    published, said = tensors(made.weights.merged["plan"]), drawn(made, "plan")
    made.weights.merged.clear()
    assert drawn(made, "plan") == said
    assert same(tensors(made.weights.merged["plan"]), published)
    rounded = torch.zeros(())
    with torch.autocast("cpu", torch.bfloat16):  # the test would pass on numbers that bf16 holds
        for layer in lora.targets(made.weights.base, "plan").values():
            rounded = rounded + (lora.delta(layer, "plan") - layer.get_delta_weight("plan")).abs().sum()
    assert rounded > 0


@pytest.mark.parametrize(("kind", "targets"), KINDS)
def test_what_an_adapter_adds_does_not_depend_on_the_autocast_around(kind, targets):
    made = engine(kind, targets)
    layers = lora.targets(made.weights.base, "plan")
    outside = {name: lora.delta(layer, "plan") for name, layer in layers.items()}
    with torch.autocast("cpu", torch.bfloat16):
        inside = {name: lora.delta(layer, "plan") for name, layer in layers.items()}
    assert same(outside, inside) and any(x.any() for x in outside.values())


@pytest.mark.parametrize("act", ["model", "factor"])
def test_an_adapter_becomes_a_model_and_a_model_an_adapter_of_the_same_bits_inside_an_autocast(act):
    found = []
    for enabled in (False, True):
        made = engine()
        made.fork("base", "start", "frozen")
        learn(made, "base", steps=1, lr=0.5)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            if act == "model":
                made.fork("plan", "new", "model")
            else:
                made.factor("new", "start")
        found.append(snapshot(made, "new"))
    assert same(*found)


@pytest.mark.skipif(library() is None, reason="no C compiler")
def test_kernels_that_add_an_adapter_themselves_add_the_same(monkeypatch):
    """Above `MERGE_BELOW` parameters no merged copy is kept: the kernels pack base and adapter together."""
    monkeypatch.setattr(policies, "MERGE_BELOW", 0)
    made = engine()
    made.weights.model("plan")
    linear = next(m for m in made.weights.base.modules() if lora.is_lora(m))
    alone = weights.effective(linear)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(weights.effective(linear), alone)
    assert torch.equal(alone, linear.base_layer.weight + lora.delta(linear, "plan"))


@pytest.mark.parametrize("threshold", [policies.MERGE_BELOW, 0])
def test_an_engine_that_loads_speaks_as_the_one_that_saved(threshold, tmp_path, monkeypatch):
    """A new process, and a roll-back in the same one."""
    monkeypatch.setattr(policies, "MERGE_BELOW", threshold)
    made = engine()
    learn(made, "plan", steps=2, lr=0.05)
    made.save(tmp_path / "then")
    said = drawn(made, "plan"), drawn(made, "base")
    fresh = engine_of(model_of("qwen2", tie_word_embeddings=False), precision="bf16")
    fresh.load(tmp_path / "then")
    assert (drawn(fresh, "plan"), drawn(fresh, "base")) == said
    learn(made, "plan", steps=1, lr=0.5)
    assert drawn(made, "plan") != said[0]
    made.load(tmp_path / "then")
    assert (drawn(made, "plan"), drawn(made, "base")) == said and made.logprobs(
        batch("plan")
    ) == fresh.logprobs(batch("plan"))


def test_one_place_multiplies_adapters_out_for_sampling():
    """PEFT's own product is asked for in `lora.delta` alone. (`native/layer.py` has one with a gradient,
    inside each training step.)"""
    root = Path(forethought.engines.torch.__file__).parent
    asks = [
        (path.name, function.name)
        for path in root.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == "get_delta_weight"
    ]
    assert asks == [("lora.py", "delta")]
