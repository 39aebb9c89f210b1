"""The nearest adapter to what the base has learned: hand-made differences whose singular values are known."""

from __future__ import annotations

import pytest
import torch
from test_torch_policies import batch, drawn, learn
from tolerance import LOGP
from torch_kit import engine_of, model_of, same, snapshot, stir

from forethought.engines.torch.forest import lora
from forethought.engines.torch.forest.lora import leading

Q, SECOND = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"


def started(model=None, **fields):
    """An engine whose base is about to learn: "start" is what it was."""
    engine = engine_of(model, **fields)
    engine.fork("base", "start", "frozen")
    return engine


def put(engine, numbers: dict[tuple, float], name: str = Q) -> None:
    """Add single numbers to a weight of the base, exact in float32 because the weight there becomes a small
    whole number first."""
    with torch.no_grad():
        for index, value in numbers.items():
            for policy in ("base", "start"):
                engine.weights.parameters(policy)[name][index] = 1.0
            engine.weights.parameters("base")[name][index] += value


def outer(engine, seed: int = 0, scale: float = 0.2) -> None:
    """Add u v' to every weight that an adapter reaches, one for each expert."""
    generator = torch.Generator().manual_seed(seed)
    engine.fork("base", "probe")
    names = list(lora.targets(engine.weights.base, "probe"))
    engine.drop("probe")
    with torch.no_grad():
        for name in names:
            p = engine.weights.parameters("base")[name]
            u, v = (
                torch.randn(size, generator=generator)
                for size in (p.shape[:-1], (*p.shape[:-2], p.shape[-1]))
            )
            p.add_(scale * u[..., None] * v[..., None, :] / p.shape[-1] ** 0.5)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("llama", ()), ("gpt2", ()), ("qwen3_moe", ()), ("phi3", ()), ("llama", ("embed_tokens", "lm_head"))],
)
def test_a_difference_of_rank_one_moves_into_the_adapter_whole(kind, targets):
    """Square and oblong matrices, GPT-2's transposed ones, stacks of experts, and embeddings."""
    engine = started(model_of(kind, tie_word_embeddings=False), targets=targets)
    outer(engine)
    engine.publish("base")
    learned, spoken, start = engine.logprobs(batch("base")), drawn(engine, "base"), snapshot(engine, "start")
    assert engine.factor("plan", "start") == pytest.approx(1.0, abs=1e-6)
    assert same(snapshot(engine, "base"), start) and engine.logprobs(batch("base")) == engine.logprobs(
        batch("start")
    )
    for mine, theirs in zip(engine.logprobs(batch("plan")), learned, strict=True):
        assert mine == pytest.approx(theirs, abs=LOGP)
    for mine, theirs in zip(drawn(engine, "plan"), spoken, strict=True):
        assert mine == pytest.approx(theirs, abs=LOGP)
    assert (
        max(
            abs(a - b)
            for mine, theirs in zip(engine.logprobs(batch("base")), learned, strict=True)
            for a, b in zip(mine, theirs, strict=True)
        )
        > 1e-3
    )


def test_the_larger_singular_value_stays():
    """4 and 3 in rows and columns of their own are the singular values: 4 of rank 1 holds 16 / 25."""
    engine = started(rank=1)
    put(engine, {(2, 3): 4.0, (5, 7): -3.0})
    assert engine.factor("plan", "start") == pytest.approx(0.64, abs=1e-9)
    layer = lora.targets(engine.weights.base, "plan")[Q]
    wanted = torch.zeros(32, 32)
    wanted[2, 3] = 4.0
    assert torch.allclose(layer.get_delta_weight("plan"), wanted, atol=1e-6)
    # scaling is alpha / rank = 4: B A = 1 at one place
    A, B = layer.lora_A["plan"].weight, layer.lora_B["plan"].weight
    assert A.norm().item() == pytest.approx(1.0) and B.norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "index"),
    [("model.embed_tokens.weight", (3, 4)), ("model.norm.weight", (5,)), ("lm_head.weight", (1, 1))],
)
def test_what_moved_outside_the_targets_is_lost_and_counted(name, index):
    engine = started()
    put(engine, {(2, 3): 4.0}, SECOND)
    put(engine, {index: 3.0}, name)
    start = snapshot(engine, "start")
    assert engine.factor("plan", "start") == pytest.approx(0.64, abs=1e-9)
    assert same(snapshot(engine, "base"), start)


def test_a_tied_weight_is_held_at_the_places_that_the_adapter_reaches():
    for targets, share in [(("embed_tokens",), 0.5), (("embed_tokens", "lm_head"), 1.0), (("q_proj",), 0.0)]:
        engine = started(model_of(tie_word_embeddings=True), targets=targets)
        put(engine, {(3, 4): 2.0}, "model.embed_tokens.weight")
        assert engine.factor("plan", "start") == pytest.approx(share, abs=1e-9)
        assert (
            engine.weights.base.get_input_embeddings().weight
            is engine.weights.base.get_output_embeddings().weight
        )


def test_no_difference_is_held_whole_and_the_adapter_can_learn():
    engine = started()
    assert engine.factor("plan", "start") == 1.0
    assert engine.logprobs(batch("plan")) == engine.logprobs(batch("base"))
    other = engine_of()
    other.fork("base", "plan")
    assert same(snapshot(engine, "plan"), snapshot(other, "plan"))


def test_directions_that_the_difference_leaves_free_begin_as_an_adapter_does():
    """With A = B = 0 there, no gradient would ever reach them."""
    engine = started(rank=3)
    put(engine, {(2, 3): 4.0})
    engine.factor("plan", "start")
    layer = lora.targets(engine.weights.base, "plan")[Q]
    assert torch.all(layer.lora_B["plan"].weight[:, 1:] == 0) and torch.all(
        layer.lora_A["plan"].weight[1:].norm(dim=1) > 0.1
    )
    before = snapshot(engine, "plan")
    learn(engine, "plan", steps=3)
    assert all((p != before[k]).any() for k, p in snapshot(engine, "plan").items())


def test_adapters_that_lay_on_the_base_lie_on_the_old_base_again():
    engine, fresh = started(), engine_of()
    for e in (engine, fresh):
        e.fork("base", "act")
        stir(e, "act")
    before = drawn(engine, "act")
    outer(engine)
    engine.publish("base")
    assert drawn(engine, "act") != before == drawn(fresh, "act")
    version = engine.policies()["base"]
    engine.factor("plan", "start")
    assert drawn(engine, "act") == before and engine.policies() == {
        "base": version + 1,
        "start": 0,
        "act": 1,
        "plan": 0,
    }


@pytest.mark.parametrize(
    ("dst", "start", "error"),
    [
        ("plan", "base", "the base can become a whole copy of it again; 'base' is none"),
        ("plan", "act", "'act' is none"),
        ("start", "start", "policy 'start' exists already"),
        ("plan", "nowhere", "no policy 'nowhere'"),
    ],
)
def test_a_factoring_that_cannot_be_moves_nothing(dst, start, error):
    engine = started()
    engine.fork("base", "act")
    outer(engine)
    before = snapshot(engine, "base")
    with pytest.raises((ValueError, KeyError), match=error):
        engine.factor(dst, start)
    assert same(before, snapshot(engine, "base")) and set(engine.policies()) == {"base", "start", "act"}


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 9), (3, 9, 5), (1, 40, 7), (2, 1, 4)])
def test_leading_triplets_are_those_of_a_full_decomposition(shape):
    torch.manual_seed(0)
    U, _, V = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    known = 10.0 ** -torch.arange(min(shape[1:]), dtype=torch.float64)  # six decades at most
    M = (U * known[None, None]) @ V
    for rank in (1, 3, 12):
        k = min(rank, *shape[1:])
        u, s, v = leading(M, rank)
        assert (u.shape, s.shape, v.shape) == (
            (shape[0], shape[1], k),
            (shape[0], k),
            (shape[0], k, shape[2]),
        )
        assert torch.allclose(s, known[:k].expand(shape[0], k), rtol=1e-4, atol=1e-9)
        best = (U[..., :k] * known[:k]) @ V[..., :k, :]
        assert torch.allclose((u * s[:, None]) @ v, best, atol=1e-9)


def test_a_matrix_of_zeros_has_no_directions():
    u, s, v = leading(torch.zeros(1, 4, 3), 2)
    assert torch.all(s == 0) and torch.isfinite(u).all() and torch.isfinite(v).all()
