"""The `keep` stream: exact KL to a frozen policy's distributions, its gradient, and what it leaves alone
beside other streams."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_torch_training import PG, SFT, close, packed, unpacked
from tolerance import rounding
from torch_kit import SIZE, engine_of, forest, model_of, path_to, plain_logits, same, snapshot, stir

from forethought.core.errors import RecipeError
from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective, Segment
from forethought.engines.torch.loss import objectives
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec

KEEP = SFT | {"stream": "keep"}


def beside(*forests: list[Segment]) -> tuple[Segment, ...]:
    """Several forests as one."""
    out: list[Segment] = []
    for segments in forests:
        out += [replace(s, parent=s.parent + len(out) if s.parent >= 0 else -1) for s in segments]
    return tuple(out)


def moved(policy: str, kind: str = "llama", **spec):
    """An engine whose `policy` has left "start", a frozen copy of it."""
    engine = engine_of(model_of(kind), **spec)
    if policy != "base":
        engine.fork("base", policy, "adapter" if policy == "plan" else "model")
        stir(engine, policy, 1)
    engine.fork(policy, "start", "frozen")
    stir(engine, policy, 2)
    engine.prepare(policy, OptimSpec(warmup=0))
    return engine


def plain(engine, batch: Batch, objective: Objective) -> tuple[float, dict[str, torch.Tensor]]:
    """The same from whole distributions and one plain forward a segment: (KL by token times weight, gradients
    of the loss)."""
    total, [own] = 0.0, [t for t in objective.terms if t.stream == "keep"]
    rows = [(i, s, path_to(batch.segments, i)) for i, s in enumerate(batch.segments) if s.stream == "keep"]
    with torch.no_grad():
        wanted = [
            plain_logits(engine.weights.model(own.reference), ids).log_softmax(-1) for _, _, ids in rows
        ]
    with engine.weights.training(batch.policy) as model:
        for (_, s, ids), q in zip(rows, wanted, strict=True):
            n = len(s.token_ids)
            p = plain_logits(model, ids).log_softmax(-1)
            total = total + (torch.tensor(s.weight) * (q.exp() * (q - p)).sum(-1)[-n - 1 : -1]).sum()
        (own.weight * total / own.denominator).backward()
    own = engine.weights.parameters(batch.policy)
    gradients = {k: p.grad.clone() for k, p in own.items() if p.grad is not None}
    engine.forget(batch.policy)
    return total.item(), gradients


def test_kl_of_known_distributions():
    """KL((1/2, 1/2) || (1/4, 3/4)) = ln 2 / 2 + ln (2/3) / 2; the gradient on the second's logits is (p - q),
    none flows to the first."""
    first, second = (
        torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(),
        torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log(),
    )
    first.requires_grad_()
    second.requires_grad_()
    kl = objectives.kl_of(lambda x: x, first, lambda x: x, second, 2)
    # p log p and p log q
    terms = [0.5 * math.log(2), 0.5 * math.log(2), 0.5 * math.log(4), 0.5 * math.log(4 / 3)]
    assert kl.tolist() == pytest.approx(
        [0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0.0], abs=rounding(terms, steps=4)
    )
    kl.sum().backward()
    assert first.grad is None
    torch.testing.assert_close(second.grad, torch.tensor([[-0.25, 0.25], [0.0, 0.0]]))


@pytest.mark.parametrize(("policy", "kind"), [("base", "llama"), ("plan", "qwen2"), ("copy", "qwen2")])
@pytest.mark.parametrize("pack_tokens", [8192, 30])
def test_loss_and_gradient_are_those_of_whole_distributions(policy, kind, pack_tokens):
    engine = moved(policy, kind, pack_tokens=pack_tokens)
    batch = Batch(policy=policy, segments=tuple(forest(3, roots=4, segments=20, **KEEP)))
    objective = Objective((term("kl", 9.0, weight=0.3, reference="start"),))
    total, wanted = plain(engine, batch, objective)
    reference = snapshot(engine, "start")
    metrics, found = packed(engine, batch, objective)
    close(found, wanted)
    weight = sum(sum(s.weight) for s in batch.segments)
    assert metrics["kl/keep"] * weight == pytest.approx(total, rel=1e-4) and total > 0.1
    assert metrics["tokens/trained"] == sum(w != 0 for s in batch.segments for w in s.weight)
    assert set(metrics) == {"kl/keep", "tokens/trained", "tokens/forward"}
    assert same(reference, snapshot(engine, "start"))


@pytest.mark.parametrize("policy", ["base", "plan", "copy"])
def test_at_the_reference_there_is_nothing_to_do(policy):
    engine = engine_of()
    if policy != "base":
        engine.fork("base", policy, "adapter" if policy == "plan" else "model")
    stir(engine, policy)
    engine.fork(policy, "start", "frozen")
    engine.prepare(policy, OptimSpec())
    metrics = reduce(
        engine.forward_backward(
            Batch(policy=policy, segments=tuple(forest(3, **KEEP))),
            Objective((term("kl", 1.0, reference="start"),)),
        )
    )
    # p log p and p log q, of the same logits
    assert metrics["kl/keep"] == pytest.approx(0, abs=rounding([math.log(SIZE)], steps=8))
    assert max(p.grad.abs().max() for p in engine.weights.parameters(policy).values()) < 1e-5


def test_an_adapter_can_be_kept_to_the_base_below_it():
    engine = engine_of()
    engine.fork("base", "plan")
    stir(engine, "plan")
    engine.prepare("plan", OptimSpec())
    batch, objective = (
        Batch(policy="plan", segments=tuple(forest(3, **KEEP))),
        Objective((term("kl", 4.0, reference="base"),)),
    )
    _, wanted = plain(engine, batch, objective)
    close(packed(engine, batch, objective)[1], wanted)
    assert all(p.grad is None for p in engine.weights.parameters("base").values())


def test_a_model_can_be_kept_to_the_base_it_came_from():
    engine = moved("copy")
    batch, objective = (
        Batch(policy="copy", segments=tuple(forest(3, **KEEP))),
        Objective((term("kl", 4.0, reference="base"),)),
    )
    _, wanted = plain(engine, batch, objective)
    close(packed(engine, batch, objective)[1], wanted)


@pytest.mark.parametrize("pack_tokens", [8192, 20])
def test_three_streams_at_once_are_their_sum_and_share_no_metric(pack_tokens):
    """Each with its own denominator; packs may hold one stream alone. Entropy is that of the pg tokens."""
    engine = moved("base", pack_tokens=pack_tokens)
    sft, pg, keep = forest(1, **SFT), forest(2, **PG), forest(3, **KEEP)
    imitating = term("sft", 3.0, weight=0.5), term("kl", 5.0, weight=2.0, reference="start")
    objective = Objective((term("grpo", 11.0), *imitating))
    _, wanted = unpacked(engine, Batch(policy="base", segments=beside(sft, pg)), objective)
    _, other = plain(engine, Batch(policy="base", segments=tuple(keep)), objective)
    metrics, found = packed(engine, Batch(policy="base", segments=beside(sft, keep, pg)), objective)
    close(found, {k: wanted[k] + other[k] for k in wanted})
    alone = packed(engine, Batch(policy="base", segments=tuple(pg)), Objective((term("grpo", 11.0),)))[0]
    now = engine.logprobs(Batch(policy="base", segments=tuple(pg)))
    terms = [
        w * a * math.exp(x - old)
        for s, row in zip(pg, now, strict=True)
        if s.stream
        # the loss is less than a hundredth of them
        for w, a, x, old in zip(s.weight, s.advantage, row, s.old_logprobs, strict=True)
    ]
    within = rounding(terms) / sum(sum(s.weight) for s in pg)
    for name in ("entropy/plan", "loss/pg", "clip/share", "gap/sampler", "gap/sampler_max"):
        assert metrics[name] == pytest.approx(
            alone[name], rel=1e-5, abs=within if name == "loss/pg" else None
        ), name
    assert "entropy/act" not in metrics  # no pg token is an act's
    imitated = packed(engine, Batch(policy="base", segments=tuple(sft)), Objective((term("sft", 3.0),)))[0]
    for name in ("loss/sft", "loss/sft_plan", "loss/sft_act"):
        assert metrics[name] == pytest.approx(imitated[name], rel=1e-5), name
    both = packed(
        engine,
        Batch(policy="base", segments=beside(sft, keep)),
        Objective(imitating),
    )[0]
    assert both["entropy/act"] == pytest.approx(imitated["entropy/act"], rel=1e-5)


def test_chunks_change_neither_kl_nor_gradients(monkeypatch):
    """Seven tokens a chunk for log-probs, three for two distributions, and all at once."""
    batch = Batch(policy="base", segments=tuple(forest(8, **KEEP)))
    objective, results = Objective((term("kl", 9.0, reference="start"),)), []
    for floats in (1 << 24, 7 * SIZE):
        monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
        engine, seen = moved("base"), []
        engine.weights.base.lm_head.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(len(x[0])))
        results.append(packed(engine, batch, objective))
        assert max(seen) <= max(floats // SIZE // 2, 1) and (floats > 1e6 or len(seen) > 6)
    close(results[1][1], results[0][1])
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)


def test_the_reference_is_computed_only_for_packs_that_keep(monkeypatch):
    engine, calls = moved("base", pack_tokens=50), []  # each of the two trees is a pack
    engine.weights.copies["start"].get_input_embeddings().register_forward_pre_hook(
        lambda *_: calls.append(1)
    )
    objective = Objective((term("sft", 3.0), term("kl", 5.0, reference="start")))
    engine.forward_backward(
        Batch(policy="base", segments=beside(forest(1, roots=1, **SFT), forest(3, roots=1, **KEEP))),
        objective,
    )
    assert len(calls) == 1
    engine.forward_backward(Batch(policy="base", segments=tuple(forest(1, **SFT))), objective)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("objective", "why"),
    [
        (Objective((term("kl", 1.0),)), "the keep stream needs a policy other than 'base'"),
        (Objective((term("kl", 1.0, reference="base"),)), "the keep stream needs a policy other than 'base'"),
        (Objective((term("sft", 1.0),)), "the objective has no loss for the keep stream"),
    ],
    ids=["nobody", "itself", "no term"],
)
def test_a_keep_stream_without_a_reference_is_refused(objective, why):
    engine = moved("base")
    with pytest.raises(ValueError, match=why):
        engine.forward_backward(Batch(policy="base", segments=tuple(forest(3, **KEEP))), objective)


def test_two_heads_on_one_base_are_refused():
    engine = engine_of(targets=("lm_head", "q_proj"))
    engine.fork("base", "plan")
    engine.prepare("plan", OptimSpec())
    with pytest.raises(RecipeError, match="adapter.targets: an adapter on the head"):
        engine.forward_backward(
            Batch(policy="plan", segments=tuple(forest(3, **KEEP))),
            Objective((term("kl", 1.0, reference="base"),)),
        )
