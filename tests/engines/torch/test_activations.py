"""Activations that sampling leaves: an update that reads them has the gradient of one that computes them, and
where something is missing it is computed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch_kit import SIZE, engine_of, model_of, stir

from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective, Request, Segment
from forethought.engines.torch.forest import activations
from forethought.engines.torch.forest.native import leaves
from forethought.engines.torch.forest.native.layer import Layer
from forethought.engines.torch.forest.native.library import library
from forethought.engines.torch.forest.native.weights import Weights
from forethought.learn.losses import term
from forethought.learn.losses.terms import GAPS
from forethought.recipe.schema import OptimSpec

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels are not built here")


def made(policy: str = "base", **spec):
    """An engine whose policy trains, under weights that are not the first."""
    model = model_of("llama", head_dim=16, num_hidden_layers=3, max_position_embeddings=256)
    engine = engine_of(model, **{"reuse_forward": "on", "sampling": "c"} | spec)
    if policy != "base":
        engine.fork("base", policy)
    engine.prepare(policy, OptimSpec(lr=1e-3, warmup=0))
    stir(engine, policy)
    return engine


def words(rng: random.Random, n: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, SIZE) for _ in range(n))


def rolled(engine, policy: str = "base", prompts: int = 2, stops: tuple[str, ...] = (), update=0) -> Batch:
    """Trees of plans and, below two of them, executions after words that nobody said: as one forest."""
    rng, segments = random.Random(1), []
    ask = lambda context, n, seed: Request(  # noqa: E731
        policy=policy, context=context, n=n, stops=stops, max_tokens=7, seed=seed, update=update
    )

    def add(parent: int, said) -> int:
        n = len(said.token_ids)
        trained = {"stream": "pg", "role": "plan", "weight": (1.0,) * n, "old_logprobs": said.logprobs}
        segments.append(
            Segment(parent=parent, token_ids=said.token_ids, advantage=(rng.uniform(-1, 1),) * n, **trained)
        )
        return len(segments) - 1

    shared = words(rng, 9)
    contexts = [shared + words(rng, 5 + i) for i in range(prompts)]
    plans = engine.sample([ask(c, 3, i) for i, c in enumerate(contexts)])
    below = []
    for context, said in zip(contexts, plans, strict=True):
        segments.append(Segment(parent=-1, token_ids=context))
        root = len(segments) - 1
        at = [add(root, one) for one in said]
        heard = words(rng, 3)
        segments.append(Segment(parent=at[0], token_ids=heard))
        below.append((context + said[0].token_ids + heard, len(segments) - 1))
    acts = engine.sample([ask(c, 2, 10 + i) for i, (c, _) in enumerate(below)])
    for (_, parent), said in zip(below, acts, strict=True):
        for one in said:
            add(parent, one)
    return Batch(policy=policy, segments=tuple(segments))


OBJECTIVE = Objective((term("grpo", 10.0),))


def gradients(engine, batch: Batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    metrics = reduce(engine.forward_backward(batch, OBJECTIVE))
    own = engine.weights.parameters(batch.policy)
    found = {k: p.grad.clone() for k, p in own.items() if p.grad is not None}
    engine.forget(batch.policy)
    return metrics, found


@pytest.fixture
def computed(monkeypatch) -> list[bool]:
    """Of each pack that trained: whether its forward pass was computed."""
    found, forward = [], Layer.forward

    def watched(ctx, x, cos, sin, spans, rows, shape, *weights):
        if not shape.again:
            found.append(shape.left is None)
        return forward(ctx, x, cos, sin, spans, rows, shape, *weights)

    monkeypatch.setattr(Layer, "forward", staticmethod(watched))
    return found


@pytest.mark.parametrize("policy", ["base", "plan"])
@pytest.mark.parametrize("stops", [(), ("w5 w6",)])  # rows in one call, and token by token
def test_the_gradient_is_that_of_the_whole_pass(policy, stops, computed):
    engine = made(policy)
    batch = rolled(engine, policy, stops=stops)
    metrics, read = gradients(engine, batch)
    assert computed == [False]
    engine.kernel_weights.left.clear()
    again, whole = gradients(engine, batch)
    assert computed == [False, True]
    assert read.keys() == whole.keys()
    for name, g in whole.items():
        assert (read[name] - g).abs().max() <= 2e-5 * g.abs().max(), name
    assert metrics["loss/pg"] == pytest.approx(again["loss/pg"], abs=2e-5)
    assert not {*GAPS} & metrics.keys(), "nothing was compared"
    assert 0 < again["gap/sampler"] <= again["gap/sampler_max"] < 1e-4
    assert metrics["entropy/plan"] == pytest.approx(again["entropy/plan"], rel=2e-5)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return sum((one[name] - other[name]).square().sum().item() for name in one) ** 0.5


@pytest.mark.parametrize("policy", ["base", "plan"])
def test_in_bf16_it_is_as_near_to_the_gradient_in_fp32(policy, computed):
    engine = made(policy, precision="bf16")
    batch = rolled(engine, policy)
    metrics, read = gradients(engine, batch)
    engine.kernel_weights.left.clear()
    again, whole = gradients(engine, batch)
    exact = gradients(made(policy), batch)[1]
    assert computed == [False, True, True]
    assert (
        distance(read, exact)
        < 1.5 * distance(whole, exact)
        < 0.1 * distance(exact, {k: 0 * g for k, g in exact.items()})
    )
    assert metrics["entropy/plan"] == pytest.approx(again["entropy/plan"], rel=0.02)


def test_any_cut_into_segments_is_found(computed):
    engine = made()
    batch = rolled(engine)
    cut, new = [], {}
    for i, s in enumerate(batch.segments):  # every segment in two, but those of two tokens
        parent = new[s.parent] if s.parent >= 0 else -1
        for part in (slice(0, 2), slice(2, None))[: min(2, len(s.token_ids) - 1)]:
            fields = {k: getattr(s, k)[part] for k in ("token_ids", "weight", "advantage", "old_logprobs")}
            cut.append(replace(s, parent=parent, **fields))
            parent = len(cut) - 1
        new[i] = parent
    _, one = gradients(engine, batch)
    _, other = gradients(engine, replace(batch, segments=tuple(cut)))
    assert computed == [False, False]
    for name, g in one.items():
        assert torch.allclose(other[name], g, atol=1e-6), name


def test_threads_change_no_bit(computed):
    found = []
    for threads in (1, 3):
        engine = made(kernel_threads=threads)
        found.append(gradients(engine, rolled(engine))[1])
    assert computed == [False, False]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_was_said_does_not_depend_on_it():
    batches = [rolled(made(reuse_forward=word)) for word in ("on", "off")]
    assert batches[0] == batches[1]


def test_blocks_that_end_in_the_middle_of_a_row(monkeypatch, computed):
    engine = made()
    whole = gradients(engine, rolled(engine))[1]
    monkeypatch.setattr(leaves, "STEPS", 2)
    engine = made()
    batch = rolled(engine)
    assert len(engine.kernel_weights.left.of("base")._blocks) > 4
    cut = gradients(engine, batch)[1]
    assert computed == [False, False]
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def other_words(engine, batch: Batch) -> Batch:
    first = batch.segments[0]
    return replace(batch, segments=(replace(first, token_ids=(3, *first.token_ids[1:])), *batch.segments[1:]))


def moved(engine) -> None:
    with torch.no_grad():
        next(iter(engine.weights.parameters("base").values())).add_(0.1)


@pytest.mark.parametrize(
    "change",
    [
        other_words,
        lambda engine, batch: engine.kernel_weights.moved("base") or batch,
        lambda engine, batch: moved(engine) or batch,
    ],
)
def test_what_is_not_known_is_computed(change, computed):
    engine = made()
    batch = change(engine, rolled(engine))
    gradients(engine, batch)
    assert computed == [True]


@pytest.mark.parametrize(
    "spec",
    [
        {"reuse_forward": "off"},
        {"reuse_forward": "auto"},
        {"gradient_checkpointing": True},
        {"layers": "torch"},  # which does not read it
    ],
)
def test_nothing_is_left_where_nobody_asks(spec):
    engine = made(**spec)
    rolled(engine)
    assert engine.kernel_weights.left.of("base") is None


def test_a_model_whose_layers_pytorch_trains_leaves_nothing():
    """The kernels sample from it, but do not train layers with norms of queries."""
    engine = engine_of(model_of("qwen3"), reuse_forward="on", sampling="c", layers="c")
    engine.prepare("base", OptimSpec())
    stir(engine, "base")
    rolled(engine)
    assert isinstance(engine.kernel_weights._seen["base"].weights, Weights), "sampled by the kernels"
    assert engine.kernel_weights.left.of("base") is None


def test_policies_that_train_together_share_the_memory():
    left = activations.ByPolicy(100)
    asked = [Request(policy="plan", context=(3,), n=1, stops=(), max_tokens=4, update=1)]
    for trained, most in (({"plan"}, 100), ({"plan", "act"}, 50)):
        assert left.updates(asked, {"plan": 1}, trained) == {"plan": 1}
        left.drop("plan")
        assert left.begun("plan", 1).bound == most


def test_who_does_not_train_any_more_has_nothing_left():
    engine = made()
    rolled(engine)
    engine.release("base")
    assert engine.kernel_weights.left.of("base") is None


def test_an_evaluation_leaves_nothing():
    engine = made()
    rolled(engine, update=None)
    assert engine.kernel_weights.left.of("base") is None


def test_some_updates_are_computed_anew(monkeypatch):
    monkeypatch.setattr(activations, "CHECKED", 2)
    engine, left = made(), []
    for step in range(4):
        rolled(engine, update=step)
        left.append(engine.kernel_weights.left.of("base") is not None)
        engine.kernel_weights.left.clear()
        engine.publish("base")
    assert left in ([True, False] * 2, [False, True] * 2)


def test_the_next_step_forgets_what_the_last_has_left():
    engine = made()
    rolled(engine, update=4)
    before = engine.kernel_weights.left.of("base")
    rolled(engine, update=4)
    assert engine.kernel_weights.left.of("base") is before
    rolled(engine, update=5)
    assert engine.kernel_weights.left.of("base") is not before


def test_more_than_the_bound_is_not_kept_and_the_update_is_computed(computed):
    engine = made()
    engine.kernel_weights.left.bound, engine.kernel_weights.left.cost = 60_000, 0  # and no row is feared
    batch = rolled(engine)
    left = engine.kernel_weights.left.of("base")
    assert left.bytes == 0 and not left._blocks
    whole = made(reuse_forward="off")
    found, wanted = gradients(engine, batch)[1], gradients(whole, rolled(whole))[1]
    assert computed == [True, True]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_rows_that_may_become_too_long_leave_nothing():
    engine = made()
    left = engine.kernel_weights.left
    left.bound, rows = 7 * left.cost, 3
    asked = [Request(policy="base", context=(3,), n=rows, stops=(), max_tokens=4, update=1)]
    assert left.updates(asked, {"base": 1}, {"base"}) == {"base": 1}  # 12 tokens, of at most 14
    asked = [replace(asked[0], max_tokens=5)]
    assert left.updates(asked, {"base": 1}, {"base"}) == {}


def test_the_bytes_of_a_token_are_those_of_its_row():
    engine = made()
    rolled(engine)
    block = engine.kernel_weights.left.of("base")._blocks[0]
    own = block.at.shape[0] * block.at.shape[2] + block.last.shape[1] + block.logits.shape[1]
    assert 0.75 < engine.kernel_weights.left.cost / (4 * own) <= 1  # rows are padded


def test_an_update_lets_go():
    engine = made()
    engine.forward_backward(rolled(engine), OBJECTIVE)
    engine.optim_step("base")
    assert engine.kernel_weights.left.of("base") is None
