"""What a policy makes of given tokens: as whole distributions say it, for every kind of policy and reference,
without a trace."""

from __future__ import annotations

import math

import pytest
import torch
from test_torch_training import SFT, STREAMS
from tolerance import LOGP
from torch_kit import SIZE, engine_of, forest, model_of, path_to, plain_logits, same, snapshot, stir

from forethought.core.types import Batch, Segment
from forethought.engines.torch.loss import objectives
from forethought.recipe.schema import OptimSpec


def four_policies(kind: str = "llama", targets: tuple[str, ...] = (), **spec):
    """A base, an adapter, a whole model and a frozen copy, all different."""
    engine = engine_of(model_of(kind), targets=targets, **spec)
    engine.fork("base", "start", "frozen")
    engine.fork("base", "copy", "model")
    engine.fork("base", "plan")
    for seed, name in enumerate(["base", "copy", "plan"], 1):
        stir(engine, name, seed)
    return engine


def plain(engine, batch: Batch, i: int, policy: str) -> torch.Tensor:
    """Log-distributions [tokens, vocabulary] over the tokens of segment `i`."""
    n = len(batch.segments[i].token_ids)
    with torch.no_grad():
        return plain_logits(engine.weights.model(policy), path_to(batch.segments, i)).log_softmax(-1)[
            -n - 1 : -1
        ]


@pytest.mark.parametrize(
    ("kind", "targets"), [("llama", ()), ("qwen2", ()), ("llama", ("lm_head", "q_proj"))]
)
@pytest.mark.parametrize("policy", ["base", "plan", "copy", "start"])
def test_all_numbers_are_those_of_whole_distributions(kind, targets, policy):
    engine = four_policies(kind, targets, pack_tokens=30)
    against = [name for name in ("base", "plan", "copy", "start") if name != policy]
    batch = Batch(policy=policy, segments=tuple(forest(3, roots=3, segments=14, **SFT)))
    found, seen = engine.inspect(batch, against), 0
    assert len(found) == len(batch.segments)
    for i, (s, stats) in enumerate(zip(batch.segments, found, strict=True)):
        if s.stream is None:
            assert stats is None
            continue
        own = plain(engine, batch, i, policy)
        assert stats.logprobs == pytest.approx(
            [row[t].item() for row, t in zip(own, s.token_ids, strict=True)], abs=1e-4
        )
        assert stats.entropies == pytest.approx((-(own.exp() * own).sum(-1)).tolist(), abs=1e-4)
        assert stats.hits == tuple(row.argmax().item() == t for row, t in zip(own, s.token_ids, strict=True))
        assert list(stats.kl) == against
        for name in against:
            assert stats.kl[name] == pytest.approx(
                (own.exp() * (own - plain(engine, batch, i, name))).sum(-1).tolist(), abs=1e-4
            )
            seen += max(stats.kl[name]) > 1e-3
    assert seen > 10


def test_known_distributions():
    """A head of zeros is uniform: entropy ln V, KL to itself 0. One that always says token 5 has no entropy,
    hits with 5 alone, and stands ln V away from the uniform one."""
    engine = engine_of()
    batch = Batch(
        policy="base",
        segments=(
            Segment(parent=-1, token_ids=(3,)),
            Segment(parent=0, token_ids=(5, 6), role="act", stream="sft", weight=(0.0, 1.0)),
        ),
    )
    with torch.no_grad():
        engine.weights.base.lm_head.weight.zero_()
    engine.fork("base", "uniform", "frozen")
    _, stats = engine.inspect(batch, ["uniform"])
    assert stats.entropies == pytest.approx([math.log(SIZE)] * 2)
    assert stats.logprobs == pytest.approx([-math.log(SIZE)] * 2) and stats.kl["uniform"] == pytest.approx(
        [0.0, 0.0], abs=1e-6
    )
    engine.weights.base.lm_head.register_forward_hook(
        lambda module, x, out: out.index_fill(-1, torch.tensor([5]), 1e3)
    )
    _, stats = engine.inspect(batch, ["uniform"])
    assert stats.hits == (True, False) and stats.entropies == pytest.approx([0.0, 0.0], abs=1e-6)
    assert stats.logprobs == pytest.approx([0.0, -1000.0]) and stats.kl["uniform"] == pytest.approx(
        [math.log(SIZE)] * 2
    )


def test_log_probs_are_those_of_training():
    engine = four_policies()
    for policy in ("base", "plan", "copy"):
        batch = Batch(policy=policy, segments=tuple(forest(5, **SFT)))
        for stats, logprobs in zip(engine.inspect(batch), engine.logprobs(batch), strict=True):
            assert (stats.logprobs if stats else ()) == pytest.approx(logprobs, abs=LOGP)
            assert stats is None or stats.kl == {}


def test_chunks_change_nothing_and_bound_the_logits(monkeypatch):
    engine = four_policies()
    batch, results, seen = Batch(policy="plan", segments=tuple(forest(8, **SFT))), [], []
    engine.weights.base.lm_head.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    for floats in (1 << 24, 8 * SIZE):
        monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
        seen.clear()
        results.append(engine.inspect(batch, ["base", "start", "copy"]))
    assert max(seen) == 4 and len(seen) > 10
    for a, b in zip(*results, strict=True):
        if a is not None:
            assert a.hits == b.hits and a.logprobs == pytest.approx(b.logprobs, abs=LOGP)
            assert a.entropies == pytest.approx(b.entropies, abs=LOGP)
            assert all(a.kl[name] == pytest.approx(b.kl[name], abs=LOGP) for name in a.kl)


def test_one_forward_a_policy_and_pack():
    engine, calls = four_policies(), []
    for name in ("start", "copy"):
        engine.weights.copies[name].get_input_embeddings().register_forward_pre_hook(
            lambda *_, name=name: calls.append(name)
        )
    engine.inspect(Batch(policy="copy", segments=tuple(forest(8, **SFT))), ["start", "copy"])
    assert sorted(calls) == ["copy", "start"]


def test_looking_leaves_no_trace():
    """Weights, gradients gathered so far, and the next update are what they were."""
    results = []
    for look in (False, True):
        engine = four_policies()
        engine.prepare("plan", OptimSpec(warmup=0))
        fields, objective = STREAMS["sft"]
        batch = Batch(policy="plan", segments=tuple(forest(9, **fields)))
        engine.forward_backward(batch, objective)
        if look:
            engine.inspect(Batch(policy="plan", segments=batch.segments), ["base", "start"])
            engine.inspect(Batch(policy="base", segments=batch.segments), ["plan"])
        engine.forward_backward(batch, objective)
        engine.optim_step("plan")
        results.append({name: snapshot(engine, name) for name in ("base", "plan", "copy")})
    assert all(same(results[0][name], results[1][name]) for name in results[0])


def test_an_unknown_reference_is_an_error_and_a_batch_without_targets_has_no_numbers():
    engine = four_policies()
    with pytest.raises(KeyError, match="no policy 'nobody'"):
        engine.inspect(Batch(policy="base", segments=tuple(forest(8, **SFT))), ["nobody"])
    assert engine.inspect(Batch(policy="base", segments=tuple(forest(8)))) == [None] * 12
