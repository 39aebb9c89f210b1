"""Losses and gradients: on shared prefixes what they are on unpacked rows, whatever is packed, split, skipped
or computed twice."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tolerance import LOGP, rounding
from torch_kit import SIZE, engine_of, forest, model_of, plain_logp, same, snapshot, stir

from forethought.core.errors import RecipeError
from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective, Segment
from forethought.engines.base import UpdateRefused
from forethought.engines.torch.forest.decoder import Decoder
from forethought.engines.torch.forest.forward import hidden_of, targets_of
from forethought.engines.torch.loss import objectives
from forethought.engines.torch.machine import memory
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec

SFT = {
    "stream": "sft",
    "weight": lambda rng, n: tuple(rng.choice([0.0, 0.5, 1.0]) for _ in range(n)),
    "role": lambda rng, n: rng.choice(["plan", "act"]),
}
PG = {
    "stream": "pg",
    "role": "plan",
    "weight": lambda rng, n: (rng.choice([0.5, 1.0]),) * n,
    "advantage": lambda rng, n: (rng.uniform(-1, 1),) * n,
    "old_logprobs": lambda rng, n: tuple(rng.uniform(-5, -2) for _ in range(n)),
}
KL = PG | {"ref_logprobs": lambda rng, n: tuple(rng.uniform(-5, -2) for _ in range(n))}
SOME_KL = PG | {
    "ref_logprobs": lambda rng, n: tuple(rng.uniform(-5, -2) for _ in range(n)) if rng.random() < 0.5 else ()
}


def losses(logp: torch.Tensor, s: Segment, objective: Objective) -> torch.Tensor:
    """The loss of one segment, written out from the papers, token by token."""
    total = torch.zeros(())
    for own in objective.terms:
        if own.stream != s.stream or (own.loss == "k3" and not s.ref_logprobs):
            continue
        low, high = 1 - own.options.get("clip_low", 0.2), 1 + own.options.get("clip_high", 0.2)
        for t in range(len(s.token_ids)):
            if own.loss == "sft":
                loss = -logp[t]
            elif own.loss == "k3":
                gap = s.ref_logprobs[t] - logp[t]
                loss = torch.exp(gap) - 1 - gap
            else:
                ratio = torch.exp(logp[t] - (s.old_logprobs[t] if s.old_logprobs else logp[t].item()))
                loss = -torch.min(ratio * s.advantage[t], torch.clamp(ratio, low, high) * s.advantage[t])
            total = total + own.weight * s.weight[t] * loss / own.denominator
    return total


def unpacked(engine, batch: Batch, objective: Objective) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients from one plain forward for each segment, nothing shared."""
    with engine.weights.training(batch.policy) as model:
        own = engine.weights.parameters(batch.policy)
        loss = sum(
            losses(plain_logp(model, batch.segments, i), s, objective)
            for i, s in enumerate(batch.segments)
            if s.stream
        )
        loss.backward()
    gradients = {k: p.grad.clone() for k, p in own.items() if p.grad is not None}
    for p in own.values():
        p.grad = None
    return loss.item(), gradients


def packed(engine, batch: Batch, objective: Objective) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    metrics = reduce(engine.forward_backward(batch, objective))
    own = engine.weights.parameters(batch.policy)
    gradients = {k: p.grad.clone() for k, p in own.items() if p.grad is not None}
    for p in own.values():
        p.grad = None
    return metrics, gradients


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 2e-5) -> None:
    assert a.keys() == b.keys() and a
    most = max(g.abs().max() for g in b.values())
    assert most > 1e-3  # there is something to compare
    for k in a:
        assert (a[k] - b[k]).abs().max() <= tolerance * most, k


STREAMS = {
    "sft": (SFT, Objective((term("sft", 7.0),))),
    "sft weighted": (SFT, Objective((term("sft", 7.0, weight=0.25),))),
    "pg": (PG, Objective((term("grpo", 5.0, options={"clip_low": 0.3, "clip_high": 0.4}),))),
    "pg on-policy": (PG | {"old_logprobs": ()}, Objective((term("grpo", 5.0),))),
    "pg with ref_kl": (KL, Objective((term("grpo", 5.0), term("k3", 5.0, weight=0.7)))),
    "pg with ref_kl on some": (SOME_KL, Objective((term("grpo", 5.0), term("k3", 5.0, weight=0.7)))),
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("policy", ["base", "plan"])
def test_the_gradient_on_shared_prefixes_is_that_of_unpacked_rows(stream, policy):
    fields, objective = STREAMS[stream]
    for seed, kind in enumerate(["llama", "qwen2_moe", "gpt_neox"]):
        engine = engine_of(model_of(kind, seed))
        if policy == "plan":
            engine.fork("base", "plan")
            stir(engine, "plan", seed)
        batch = Batch(policy=policy, segments=tuple(forest(seed, **fields)))
        engine.prepare(policy, OptimSpec())
        loss, wanted = unpacked(engine, batch, objective)
        metrics, found = packed(engine, batch, objective)
        close(found, wanted)
        total = 0.0
        for own in objective.terms:
            away = own.loss == "k3"
            weight = sum(sum(s.weight) for s in batch.segments if s.ref_logprobs or not away)
            mean = metrics["kl/ref" if away else f"loss/{own.stream}"]
            total += own.weight * mean * weight / own.denominator
        assert total == pytest.approx(loss, rel=1e-4)
        assert metrics["tokens/forward"] <= sum(len(s.token_ids) for s in batch.segments)
        assert metrics["tokens/trained"] == sum(w != 0 for s in batch.segments for w in s.weight)


def test_both_streams_at_once_and_each_with_its_own_denominator():
    engine = engine_of()
    engine.prepare("base", OptimSpec())
    segments = forest(1, **SFT)
    pg = forest(2, **PG)
    segments += [replace(s, parent=s.parent + 12 if s.parent >= 0 else -1) for s in pg]
    batch = Batch(policy="base", segments=tuple(segments))
    objective = Objective((term("grpo", 11.0, weight=2.0), term("sft", 3.0)))
    _, wanted = unpacked(engine, batch, objective)
    _, found = packed(engine, batch, objective)
    close(found, wanted)


@pytest.mark.parametrize("stream", STREAMS)
def test_micro_batches_of_any_size_add_up_to_one_pack(stream):
    fields, objective = STREAMS[stream]
    batch = Batch(policy="base", segments=tuple(forest(4, roots=5, segments=25, **fields)))
    results = []
    for pack_tokens in (8192, 30, 1):
        engine = engine_of(pack_tokens=pack_tokens)
        engine.prepare("base", OptimSpec())
        results.append(packed(engine, batch, objective))
    whole = results[0][0]
    once = whole.pop("tokens/forward")
    for metrics, gradients in results[1:]:
        close(gradients, results[0][1])
        assert metrics.pop("tokens/forward") >= once
        # a tree that was split computes what is above its branches again
        # means of numbers about 1, of either sign
        assert metrics == pytest.approx(whole, rel=1e-4, abs=rounding([1.0]))
    logp = [engine_of(pack_tokens=n).logprobs(batch) for n in (8192, 1)]
    for a, b, s in zip(*logp, batch.segments, strict=True):
        assert a == pytest.approx(b, abs=LOGP) and len(a) == (len(s.token_ids) if s.stream else 0)


def test_groups_without_advantage_change_no_gradient():
    """What the stage loop leaves out (`skip_zero`): trees whose advantages are all zero, the denominator
    staying theirs too."""
    engine = engine_of()
    engine.prepare("base", OptimSpec())
    objective = Objective((term("grpo", 40.0),))
    one, other = (
        forest(5, roots=1, **PG),
        [replace(s, advantage=(0.0,) * len(s.advantage)) for s in forest(6, roots=1, **PG)],
    )
    both = [*one, *[replace(s, parent=s.parent + len(one) if s.parent >= 0 else -1) for s in other]]
    _, wanted = packed(engine, Batch(policy="base", segments=tuple(both)), objective)
    _, found = packed(engine, Batch(policy="base", segments=tuple(one)), objective)
    close(found, wanted)
    _, nothing = packed(engine, Batch(policy="base", segments=tuple(other)), objective)
    assert all(g.abs().max() == 0 for g in nothing.values())


def test_masked_tokens_are_context_and_nothing_else():
    """Another role's tokens after the trained ones change nothing; before them they are read but give no loss
    of their own."""
    engine = engine_of()
    engine.prepare("base", OptimSpec())
    objective = Objective((term("sft", 2.0),))
    root, plan = (
        Segment(parent=-1, token_ids=(3, 4)),
        Segment(parent=0, token_ids=(5, 6), role="plan", stream="sft", weight=(1.0, 1.0)),
    )
    results = []
    for ids in ((7, 8), (9, 10)):
        masked = Segment(parent=1, token_ids=ids, role="act", stream="sft", weight=(0.0, 0.0))
        results.append(packed(engine, Batch(policy="base", segments=(root, plan, masked)), objective))
    alone = packed(engine, Batch(policy="base", segments=(root, plan)), objective)
    for metrics, gradients in results:
        close(gradients, alone[1])
        assert (
            metrics["loss/sft"] == pytest.approx(alone[0]["loss/sft"], rel=1e-5)
            and metrics["tokens/trained"] == 2
        )
    other = packed(
        engine,
        Batch(
            policy="base",
            segments=(
                root,
                replace(plan, role="act"),
                Segment(parent=1, token_ids=(7,), role="plan", stream="sft", weight=(1.0,)),
            ),
        ),
        Objective((term("sft", 3.0),)),
    )[0]
    assert other["loss/sft_act"] == pytest.approx(alone[0]["loss/sft_plan"], rel=1e-5)


def test_a_batch_without_targets_does_nothing():
    engine = engine_of()
    engine.prepare("base", OptimSpec())
    assert (
        engine.forward_backward(
            Batch(policy="base", segments=tuple(forest(0))), Objective((term("sft", 1.0),))
        )
        == {}
    )
    assert all(p.grad is None for p in engine.weights.parameters("base").values())


# Several updates on one batch -------------------------------------------------------------------------------


def test_the_second_update_is_clipped_as_worked_out_by_hand():
    """On-policy first, then the ratio has moved: the gradient and the share of held tokens are those of the
    formula."""
    engine = engine_of()
    engine.prepare("base", OptimSpec(lr=0.05, warmup=0))
    fields = PG | {"old_logprobs": ()}
    segments = forest(7, **fields)
    old = engine.logprobs(Batch(policy="base", segments=tuple(segments)))
    segments = [replace(s, old_logprobs=o) if s.stream else s for s, o in zip(segments, old, strict=True)]
    batch, objective = (
        Batch(policy="base", segments=tuple(segments)),
        Objective((term("grpo", 9.0, options={"clip_low": 0.1, "clip_high": 0.2}),)),
    )
    first = reduce(engine.forward_backward(batch, objective))
    assert first["clip/share"] == 0 and first["gap/sampler"] == pytest.approx(0, abs=LOGP)
    engine.optim_step("base")
    moved = engine.logprobs(batch)
    held = total = gap = 0.0
    for s, new in zip(segments, moved, strict=True):
        for t in range(len(new)):
            ratio, a = math.exp(new[t] - s.old_logprobs[t]), s.advantage[t]
            held += s.weight[t] * ((a > 0 and ratio > 1.2) or (a < 0 and ratio < 0.9))
            gap += s.weight[t] * abs(new[t] - s.old_logprobs[t])
            total += s.weight[t]
    assert 0.1 < held / total < 0.9  # both kinds are there
    _, wanted = unpacked(engine, batch, objective)
    metrics, found = packed(engine, batch, objective)
    close(found, wanted)
    assert metrics["clip/share"] == pytest.approx(held / total) and metrics["gap/sampler"] == pytest.approx(
        gap / total, rel=1e-4
    )


# Log-probs and entropies ------------------------------------------------------------------------------------


def test_entropy_of_known_distributions():
    """Uniform over V is ln V; one token certain is 0; 1/2, 1/4, 1/4 is 1.5 ln 2."""
    rows = torch.full((3, 8), -1e4)
    rows[0] = 0.0
    rows[1, 3] = 0.0
    rows[2, :3] = torch.tensor([0.5, 0.25, 0.25]).log()
    logp, entropy = objectives.logprobs_of(
        lambda i: rows[i[:, 0].long()], torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([5, 3, 1]), 8
    )
    assert entropy.tolist() == pytest.approx([math.log(8), 0.0, 1.5 * math.log(2)])
    assert logp.tolist() == pytest.approx([-math.log(8), 0.0, -2 * math.log(2)])


def test_a_role_without_preferences_has_the_entropy_of_the_vocabulary():
    engine = engine_of()
    engine.prepare("base", OptimSpec())
    with torch.no_grad():
        engine.weights.base.lm_head.weight.zero_()
    batch = Batch(
        policy="base",
        segments=(
            Segment(parent=-1, token_ids=(3,)),
            Segment(parent=0, token_ids=(4, 5), role="act", stream="sft", weight=(1.0, 0.0)),
        ),
    )
    metrics = reduce(engine.forward_backward(batch, Objective((term("sft", 1.0),))))
    assert metrics["entropy/act"] == pytest.approx(math.log(SIZE)) and metrics["loss/sft"] == pytest.approx(
        math.log(SIZE)
    )
    assert "entropy/plan" not in metrics


@pytest.mark.parametrize("grad", [True, False])
def test_chunks_change_neither_log_probs_nor_gradients(grad, monkeypatch):
    """Seven tokens a chunk and all at once; the head sees no more rows than that at a time."""
    fields, objective = STREAMS["pg with ref_kl"]
    batch = Batch(policy="base", segments=tuple(forest(8, **fields)))
    results = []
    for floats in (1 << 24, 7 * SIZE):
        monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
        engine = engine_of()
        seen = []
        engine.weights.base.lm_head.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(len(x[0])))
        engine.prepare("base", OptimSpec())
        results.append(packed(engine, batch, objective) if grad else engine.logprobs(batch))
        assert max(seen) <= floats // SIZE and (floats > 1e6 or len(seen) > 3)
    if grad:
        close(results[1][1], results[0][1])
        assert results[1][0] == pytest.approx(results[0][0], rel=1e-5, abs=rounding([1.0]))
    else:
        assert results[0] == results[1] or all(
            a == pytest.approx(b, abs=LOGP) for a, b in zip(*results, strict=True)
        )


# Gradient checkpointing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "opt", "qwen3_moe"])
@pytest.mark.parametrize("policy", ["base", "plan"])
def test_layers_computed_again_give_the_same_gradient_without_dropout(kind, policy):
    fields, objective = STREAMS["sft"]
    batch = Batch(policy=policy, segments=tuple(forest(9, roots=3, **fields)))
    config = {"attention_dropout": 0.5} | (
        {"dropout": 0.5, "ffn_dim": 48, "word_embed_proj_dim": 32} if kind == "opt" else {}
    )
    results, calls = [], []
    for again in (False, True):
        engine = engine_of(model_of(kind, **config), gradient_checkpointing=again)
        if policy == "plan":
            engine.fork("base", "plan")
            stir(engine, "plan")
        engine.prepare(policy, OptimSpec())
        layers = next(m for name, m in engine.weights.base.named_modules() if name.endswith("layers"))
        count = [0]
        first = next(m for m in layers[0].modules() if isinstance(m, torch.nn.Linear))
        first.register_forward_pre_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        results.append(packed(engine, batch, objective))
        calls.append(count[0])
    close(results[1][1], results[0][1])
    assert calls == [1, 2]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)


@pytest.mark.parametrize("layers", ["c", "torch"])
@pytest.mark.parametrize(("free", "again"), [(1.0, True), (1e12, False), (0.0, False)])  # 0: nobody can say
def test_layers_are_computed_again_where_memory_is_short(layers, free, again, monkeypatch):
    fields, objective = STREAMS["sft"]
    batch = Batch(policy="base", segments=tuple(forest(9, roots=3, **fields)))
    seen, hidden = [], Decoder.hidden

    def watched(self, *args, recompute: bool, **others):
        seen.append(recompute)
        return hidden(self, *args, recompute=recompute, **others)

    monkeypatch.setattr(Decoder, "hidden", watched)
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    monkeypatch.setattr(memory, "held_back", lambda: 0)
    monkeypatch.setattr(memory, "LOOKED_AT", 0)
    found = [
        packed(
            engine_of(model_of("llama", head_dim=16), gradient_checkpointing=asked, layers=layers),
            batch,
            objective,
        )[1]
        for asked in (False, "auto")
    ]
    assert seen == [False, again]
    assert same(*found)


def test_a_backward_pass_in_another_thread_still_knows_the_forest():
    """On a GPU, autograd runs in threads of its own, where a context variable of this thread is not set."""
    import threading

    fields, objective = STREAMS["sft"]
    batch = Batch(policy="base", segments=tuple(forest(9, **fields)))
    wanted = None
    for again in (False, True):
        engine = engine_of(gradient_checkpointing=again)
        engine.prepare("base", OptimSpec())
        with engine.weights.training("base") as model:
            ((_, row),) = engine._rows(batch)
            targets = targets_of(row)
            logp, _ = objectives.logprobs_of(
                model.lm_head, hidden_of(model, row)[targets.before_N], targets.ids_N, SIZE
            )
            thread = threading.Thread(target=logp.sum().backward)
            thread.start()
            thread.join()
        found = {k: p.grad.clone() for k, p in engine.weights.parameters("base").items()}
        if wanted is not None:
            close(found, wanted)
        wanted = found


def test_a_model_without_layers_to_compute_again_is_refused():
    from transformers.modeling_layers import GradientCheckpointingLayer

    from forethought.engines.torch.forest.recompute import recompute

    assert not any(isinstance(m, GradientCheckpointingLayer) for m in torch.nn.Linear(2, 2).modules())
    with pytest.raises(RecipeError, match="engine.gradient_checkpointing: Linear has no layers"):
        recompute(torch.nn.Linear(2, 2))


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["base", "plan"])
def test_a_loss_that_is_not_finite_moves_nothing_and_leaves_nothing(policy):
    fields, objective = STREAMS["pg"]
    engine = engine_of(pack_tokens=1)  # the first pack is sound, a later one is not
    engine.fork("base", "plan")
    stir(engine, "plan")
    engine.prepare("base", OptimSpec(warmup=0))
    engine.prepare("plan", OptimSpec(warmup=0))
    segments = forest(3, roots=3, **fields)
    bad = [
        replace(s, advantage=(math.nan,) * len(s.advantage)) if i == len(segments) - 1 else s
        for i, s in enumerate(segments)
    ]
    before = {name: snapshot(engine, name) for name in ("base", "plan")}
    with pytest.raises(UpdateRefused, match=f"the loss of policy '{policy}' is nan"):
        engine.forward_backward(Batch(policy=policy, segments=tuple(bad)), objective)
    assert all(same(before[name], snapshot(engine, name)) for name in before)
    assert all(p.grad is None for name in before for p in engine.weights.parameters(name).values())
    # and the next update is a clean one
    _, found = packed(engine, Batch(policy=policy, segments=tuple(segments)), objective)
    _, wanted = unpacked(engine, Batch(policy=policy, segments=tuple(segments)), objective)
    close(found, wanted)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_leaves_nothing(value):
    fields, objective = STREAMS["sft"]
    engine = engine_of()
    engine.prepare("base", OptimSpec(warmup=0))
    batch = Batch(policy="base", segments=tuple(forest(3, **fields)))
    engine.forward_backward(batch, objective)
    engine.optim_step("base")
    before, state = snapshot(engine, "base"), engine.optimizers["base"].state()
    engine.forward_backward(batch, objective)
    next(iter(engine.weights.parameters("base").values())).grad[0, 0] = value
    with pytest.raises(UpdateRefused, match="the gradient norm of policy 'base' is"):
        engine.optim_step("base")
    assert same(before, snapshot(engine, "base")) and same(state, engine.optimizers["base"].state())
    assert all(p.grad is None for p in engine.weights.parameters("base").values())


# The step ---------------------------------------------------------------------------------------------------


def test_a_step_clips_by_the_whole_norm_and_uses_the_scaled_rate():
    """AdamW's first step, by hand: m / sqrt(v) is the sign of the clipped gradient, whatever its size; then
    the decay."""
    engine = engine_of()
    spec = OptimSpec(lr=0.01, weight_decay=0.1, clip_norm=0.5, warmup=0)
    engine.prepare("base", spec)
    fields, objective = STREAMS["sft"]
    engine.forward_backward(Batch(policy="base", segments=tuple(forest(3, **fields))), objective)
    own = engine.weights.parameters("base")
    before, gradients = snapshot(engine, "base"), {k: p.grad.clone() for k, p in own.items()}
    norm = math.sqrt(sum((g.double() ** 2).sum().item() for g in gradients.values()))
    assert norm > 0.5
    metrics = reduce(engine.optim_step("base", 0.5))
    assert metrics == pytest.approx({"grad_norm/base": norm, "lr": 0.005}, rel=1e-4)
    for k, p in own.items():
        g = gradients[k] * 0.5 / norm
        wanted = before[k] * (1 - 0.005 * 0.1) - 0.005 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(p, wanted, atol=2e-5, rtol=1e-3)
        assert p.grad is None


def test_muon_takes_the_matrices_inside_the_layers_whatever_they_are_called():
    for kind, inside in [
        ("llama", "model.layers.0."),
        ("gpt2", "transformer.h.0."),
        ("gpt_neox", "gpt_neox.layers.0."),
    ]:
        engine = engine_of(model_of(kind))
        engine.prepare("base", OptimSpec(name="muon"))
        (rest, adam, _), (matrices, muon, _) = engine.optimizers["base"].parts
        own = engine.weights.parameters("base")
        assert isinstance(muon, torch.optim.Muon) and isinstance(adam, torch.optim.AdamW)
        assert {k for k in matrices if k.startswith(inside)} == {
            k for k, p in own.items() if k.startswith(inside) and p.ndim == 2
        }
        assert not any("embed" in k or "wte" in k or "lm_head" in k for k in matrices)
        assert sorted(rest + matrices) == sorted(own)
