"""Gradients by objective: cosines and PCGrad by hand, and what is gathered, set aside and put together on
real models."""

from __future__ import annotations

import math

import pytest
import torch
from test_torch_training import PG, SFT, packed
from tolerance import rounding
from torch_kit import engine_of, forest, model_of, same, snapshot, stir

from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective
from forethought.engines import vectors
from forethought.engines.base import UpdateRefused
from forethought.engines.torch.policies.gradients import cosines, gram_of, layer_group
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec

SFT_LOSS, PG_LOSS = Objective((term("sft", 7.0),)), Objective((term("grpo", 5.0),))


def batches(policy: str) -> tuple[Batch, Batch]:
    return tuple(
        Batch(policy=policy, segments=tuple(forest(seed, **fields))) for seed, fields in ((1, SFT), (2, PG))
    )


def prepared(policy: str, kind: str = "llama"):
    engine = engine_of(model_of(kind))
    if policy == "plan":
        engine.fork("base", "plan")
    elif policy != "base":
        engine.fork("base", policy, "model")
    stir(engine, policy)
    engine.prepare(policy, OptimSpec(warmup=0))
    return engine


def gradient(engine, policy: str) -> dict[str, torch.Tensor]:
    return {k: p.grad.clone() for k, p in engine.weights.parameters(policy).items() if p.grad is not None}


def gathered(engine, policy: str) -> list[dict[str, torch.Tensor]]:
    """Both gradients set aside as "a" and "b", and copies of them."""
    out = []
    for name, batch, objective in zip("ab", batches(policy), (SFT_LOSS, PG_LOSS), strict=True):
        engine.forward_backward(batch, objective)
        out.append(gradient(engine, policy))
        engine.set_aside(policy, name)
    return out


# By hand ----------------------------------------------------------------------------------------------------


def test_cosines_of_a_model_of_two_parameters():
    """f = x . (u, v) for two inputs: the gradients of f are the inputs. (3, 4) and (4, 3) have the cosine 24
    / 25; alone, u and v agree."""
    u, v = torch.nn.Parameter(torch.tensor([1.0])), torch.nn.Parameter(torch.tensor([2.0]))
    parts = []
    for x in ((3.0, 4.0), (4.0, 3.0)):
        grads = torch.autograd.grad((x[0] * u + x[1] * v).sum(), (u, v))
        parts.append({"model.embed_tokens.weight": grads[0], "lm_head.weight": grads[1]})
    assert cosines(*parts, layers=3) == pytest.approx({"all": 24 / 25, "embed": 1.0, "head": 1.0})


def test_a_group_in_which_a_gradient_is_zero_is_left_out_and_counts_in_the_whole():
    a = {"model.layers.0.w": torch.tensor([1.0, 0.0]), "model.layers.2.w": torch.tensor([2.0])}
    b = {"model.layers.0.w": torch.tensor([-1.0, 1.0]), "model.layers.1.w": torch.tensor([1.0])}
    assert cosines(a, b, layers=3) == pytest.approx(
        {"all": -1 / math.sqrt(5 * 3), "early": -1 / math.sqrt(2)}
    )
    assert cosines(a, {"model.layers.0.w": torch.zeros(2)}, layers=3) == {}


def test_sums_are_exact_enough_for_large_tensors():
    """Twenty million ones: a sum in float32 has no odd numbers above 2^24. With one entry of -20 million the
    product is zero."""
    a, b = torch.ones(20_000_001), torch.ones(20_000_001)
    a[0], b[0] = 1.0, -20_000_000.0
    dots = gram_of([{"w": a}, {"w": b}])
    assert dots[0][0] == 20_000_001 and dots[0][1] == 0


@pytest.mark.parametrize(
    ("name", "layers", "group"),
    [
        ("model.embed_tokens.weight", 4, "embed"),
        ("transformer.wpe.weight", 4, "embed"),
        ("gpt_neox.embed_in.weight", 4, "embed"),
        ("model.layers.0.mlp.up_proj.weight", 4, "early"),
        ("model.layers.1.input_layernorm.weight", 4, "early"),
        ("model.layers.2.self_attn.q_proj.lora_A.plan.weight", 4, "middle"),
        ("transformer.h.3.mlp.c_fc.weight", 4, "late"),
        ("model.layers.3.mlp.experts.0.w1.weight", 12, "early"),
        ("model.layers.11.mlp.experts.0.w1.weight", 12, "late"),
        ("model.norm.weight", 4, "head"),
        ("transformer.ln_f.bias", 4, "head"),
        ("lm_head.weight", 4, "head"),
        ("embed_out.weight", 4, "head"),
        ("model.layers.0.w", 1, "early"),
    ],
)
def test_layer_groups(name, layers, group):
    assert layer_group(name, layers) == group


def test_pcgrad_by_hand():
    """g1 = (1, 0), g2 = (-1, 1): their product is -1. g1' = (1, 0) + 1/2 (-1, 1) = (1/2, 1/2); g2' = (-1, 1)
    + 1 (1, 0) = (0, 1)."""
    factors, projections = vectors.pcgrad([[1.0, -1.0], [-1.0, 2.0]], seed=0)
    assert projections == 2
    assert [f * a + g * b for f, g, (a, b) in [(*factors, (1, -1)), (*factors, (0, 1))]] == pytest.approx(
        [0.5, 1.5]
    )
    assert factors == pytest.approx([2.0, 1.5])


def test_pcgrad_without_a_conflict_is_the_sum():
    assert vectors.pcgrad([[1.0, 0.0, 3.0], [0.0, 2.0, 0.5], [3.0, 0.5, 9.0]], seed=1) == ([1.0, 1.0, 1.0], 0)
    assert vectors.pcgrad([[4.0]], seed=1) == ([1.0], 0)
    # nothing is divided by a zero gradient
    assert vectors.pcgrad([[0.0, -1e-30], [-1e-30, 1.0]], seed=0)[0][0] == 1.0


def test_pcgrad_of_three_is_the_algorithm_on_the_vectors_themselves():
    """Algorithm 1 of the paper, on vectors, over the original others: the result depends on the order, and
    some seed gives each order."""
    g = torch.tensor([[1.0, 0.0, 0.2], [-1.0, 1.0, 0.1], [-0.5, -1.0, 1.0]], dtype=torch.float64)

    def one(i: int, others: tuple[int, int]) -> torch.Tensor:
        out = g[i].clone()
        for j in others:
            if out @ g[j] < 0:
                out -= (out @ g[j]) / (g[j] @ g[j]) * g[j]
        return out

    orders = [[one(i, (j, k)), one(i, (k, j))] for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1))]
    wanted = [a + b + c for a in orders[0] for b in orders[1] for c in orders[2]]
    found = [
        torch.tensor(vectors.pcgrad((g @ g.T).tolist(), seed)[0], dtype=torch.float64) @ g
        for seed in range(40)
    ]
    assert all(any(torch.allclose(f, w) for w in wanted) for f in found)
    assert len({tuple(round(x, 9) for x in f.tolist()) for f in found}) > 1
    assert vectors.pcgrad((g @ g.T).tolist(), 3) == vectors.pcgrad((g @ g.T).tolist(), 3)


def test_what_is_reported():
    metrics = reduce(vectors.report([[1.0, -1.0, 0.0], [-1.0, 2.0, 0.0], [0.0, 0.0, 0.0]], projections=2))
    assert metrics == pytest.approx({"surgery/cosine": -1 / math.sqrt(2), "surgery/projected": 1 / 3})
    # no number passes for NaN
    assert vectors.cosine(math.nan, 1.0, 1.0) != vectors.cosine(1.0, 1.0, 1.0) == 1.0


# On models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "kind"), [("base", "llama"), ("plan", "qwen2"), ("copy", "qwen2")])
def test_gradients_set_aside_come_back_as_their_sum(policy, kind):
    engine = prepared(policy, kind)
    one, other = batches(policy)
    engine.forward_backward(one, SFT_LOSS)
    engine.forward_backward(other, PG_LOSS)
    wanted = gradient(engine, policy)
    engine.forget(policy)
    assert gradient(engine, policy) == {}
    a, b = gathered(engine, policy)
    assert gradient(engine, policy) == {} and not same(a, b)
    assert engine.combine(policy, ["a", "b"]) == {}
    assert same(gradient(engine, policy), wanted)
    with pytest.raises(ValueError, match="no gradient 'a' of policy"):
        engine.combine(policy, ["a", "b"])


@pytest.mark.parametrize(("policy", "kind"), [("base", "llama"), ("plan", "qwen2")])
def test_conflict_and_surgery_are_those_of_the_concatenated_gradients(policy, kind):
    engine = prepared(policy, kind)
    a, b = gathered(engine, policy)
    keys = [k for k in engine.weights.parameters(policy) if k in a and k in b]
    flat = [torch.cat([g[k].double().flatten() for k in keys]) for g in (a, b)]
    found = engine.conflict(policy, "a", "b")
    assert found["all"] == pytest.approx(torch.cosine_similarity(*flat, dim=0).item(), abs=1e-6)
    # two layers
    assert set(found) == (
        {"all", "embed", "early", "middle", "head"} if policy == "base" else {"all", "early", "middle"}
    )
    early = [torch.cat([g[k].double().flatten() for k in keys if ".0." in k]) for g in (a, b)]
    assert found["early"] == pytest.approx(torch.cosine_similarity(*early, dim=0).item(), abs=1e-6)
    dot, squares = flat[0] @ flat[1], [f @ f for f in flat]
    projected = [flat[0] - min(dot, 0) / squares[1] * flat[1], flat[1] - min(dot, 0) / squares[0] * flat[0]]
    metrics = reduce(engine.combine(policy, ["a", "b"], "pcgrad", seed=3))
    assert metrics == pytest.approx(
        {"surgery/cosine": found["all"], "surgery/projected": float(dot < 0)}, abs=1e-6
    )
    found = gradient(engine, policy)
    most = max(f.abs().max().item() for f in flat)
    whole = torch.cat([found[k].double().flatten() for k in keys])
    torch.testing.assert_close(whole, sum(projected), rtol=0, atol=rounding([most], steps=16))


def test_surgery_between_opposites_leaves_what_they_share_out():
    """A gradient and its negative: each is projected to zero, so nothing moves; the plain sum is zero too, by
    subtraction."""
    engine = prepared("base")
    batch, _ = batches("base")
    for name, weight in (("a", 1.0), ("b", -2.0)):
        engine.forward_backward(batch, Objective((term("sft", 7.0, weight=weight),)))
        engine.set_aside("base", name)
    assert engine.conflict("base", "a", "b")["all"] == pytest.approx(-1.0, abs=1e-9)
    assert reduce(engine.combine("base", ["a", "b"], "pcgrad"))["surgery/projected"] == 1
    assert max(g.abs().max() for g in gradient(engine, "base").values()) < 1e-6


def test_names_are_checked():
    engine = prepared("base")
    gathered(engine, "base")
    with pytest.raises(ValueError, match="'a' of policy 'base' is set aside already"):
        engine.set_aside("base", "a")
    with pytest.raises(
        ValueError,
        match=r"no gradient 'c' of policy 'base' was set aside; there are \['a', "
        r"'b'\]",
    ):
        engine.conflict("base", "a", "c")
    with pytest.raises(ValueError, match="different names"):
        engine.combine("base", ["a", "a"])
    with pytest.raises(ValueError, match="no way 'mean'"):
        engine.combine("base", ["a", "b"], "mean")
    wanted = dict(engine.gradients.aside["base"]["a"])
    engine.combine("base", ["a"])
    assert same(gradient(engine, "base"), wanted)
    engine.set_aside("base", "b")  # free again, though only the other one was named
    assert engine.combine("base", []) == {} and gradient(engine, "base") == {}


def test_a_refused_update_leaves_nothing_aside():
    engine = prepared("base")
    batch, _ = batches("base")
    wanted = packed(engine, batch, SFT_LOSS)[1]
    gathered(engine, "base")
    before = snapshot(engine, "base")
    with pytest.raises(UpdateRefused):
        engine.forward_backward(batch, Objective((term("sft", 1.0, weight=math.nan),)))
    with pytest.raises(ValueError, match="no gradient 'a'"):
        engine.combine("base", ["a", "b"])
    assert same(before, snapshot(engine, "base")) and same(packed(engine, batch, SFT_LOSS)[1], wanted)


def test_a_combined_gradient_is_what_the_step_takes():
    results = []
    for apart in (False, True):
        engine = prepared("base")
        for name, batch, objective in zip("ab", batches("base"), (SFT_LOSS, PG_LOSS), strict=True):
            engine.forward_backward(batch, objective)
            if apart:
                engine.set_aside("base", name)
        if apart:
            engine.combine("base", ["a", "b"])
        engine.optim_step("base")
        results.append(snapshot(engine, "base"))
    assert same(*results)


def test_a_part_is_compared_with_the_rest():
    a, b = {"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([0.0, 1.0])}
    assert cosines(a, b, layers=1, part=True)["all"] == pytest.approx(0.0)  # (3, 0) with (0, 1)
    assert cosines({"w": torch.tensor([2.0, -2.0])}, {"w": torch.tensor([1.0, 0.0])}, layers=1, part=True)[
        "all"
    ] == pytest.approx(1 / 5**0.5)
    assert cosines(b, b, layers=1, part=True) == {}  # nothing is left to compare with
