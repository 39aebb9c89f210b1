"""Ids without a token: models are padded to round numbers of rows, and what nobody can read is neither
sampled nor given a probability.

Decided: the distribution of a policy is over the tokens of its tokenizer, in the sampler and in the trainer
alike, so that both give the same log-probs. It differs from the plain forward by what that gives to ids
without a token: the same softmax over fewer ids.
"""

from __future__ import annotations

import random

import pytest
import torch
from test_torch_cohorts import by_pytorch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch_kit import (
    SIZE,
    WORDS,
    engine_of,
    forest,
    model_of,
    on_disk,
    path_to,
    plain_logits,
    same,
    snapshot,
    stir,
)
from transformers import PreTrainedTokenizerFast

from forethought.core.types import Batch, Objective, Request
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest import vocabulary as words
from forethought.engines.torch.models import exact
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.models.small import tokenizer_of
from forethought.engines.torch.policies import table as policies
from forethought.learn.losses import term
from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec

PADDED = 3 * SIZE
HOLES = [7, 11, 30]


def with_holes() -> PreTrainedTokenizerFast:
    """32 ids of which some are no tokens, below tokens that are."""
    known = {("<pad>", "<eos>", "<unk>")[i] if i < 3 else f"w{i}": i for i in range(SIZE) if i not in HOLES}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def padded_engine(tokenizer: PreTrainedTokenizerFast | None = None, **fields) -> TorchEngine:
    return engine_of(model_of(**{"vocab_size": PADDED, "initializer_range": 0.3} | fields), tokenizer)


def ids_of(engine: TorchEngine) -> set[int]:
    return set(engine.tokenizer.get_vocab().values())


def normalised(engine: TorchEngine, policy: str, ids: tuple[int, ...]) -> torch.Tensor:
    """log-probs [tokens, vocabulary] by the model's own forward, over the tokens alone."""
    known = torch.full((engine.weights.base.config.vocab_size,), float("-inf"))
    known[list(ids_of(engine))] = 0
    return (plain_logits(engine.weights.model(policy), ids) + known).log_softmax(-1)


@pytest.mark.parametrize("way", ["kernels", "dynamic", "static", "modules"])
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("tokenizer", [None, with_holes()], ids=["padded", "holes"])
def test_what_is_no_token_is_never_sampled(way, merged, tokenizer, monkeypatch):
    if not merged:
        monkeypatch.setattr(policies, "MERGE_BELOW", 0)
    if way in ("dynamic", "static"):
        by_pytorch(monkeypatch, way == "static")
    engine = (
        padded_engine(tokenizer, **{"vocab_size": SIZE} if tokenizer else {})
        if way != "modules"
        else engine_of(
            model_of("gpt2", vocab_size=SIZE if tokenizer else PADDED, initializer_range=0.3), tokenizer
        )
    )
    engine.fork("base", "plan")
    stir(engine, "plan", scale=0.3)
    drawn: list[int] = []
    for policy in ("base", "plan"):
        requests = [
            Request(
                policy=policy,
                context=(3, 4, 5 + i),
                n=4,
                stops=(),
                max_tokens=8,
                seed=i,
                temperature=t,
                top_p=p,
            )
            for i, (t, p) in enumerate([(1.0, 1.0), (0.0, 1.0), (5.0, 1.0), (1.3, 0.9)])
        ]
        for request, outs in zip(requests, engine.sample(requests), strict=True):
            for out in outs:
                drawn += out.token_ids
                with torch.no_grad():
                    logp = normalised(engine, policy, request.context + out.token_ids)[
                        len(request.context) - 1 : -1
                    ]
                wanted = logp.gather(-1, torch.tensor(out.token_ids)[:, None])[:, 0]
                assert out.logprobs == pytest.approx(wanted.tolist(), abs=2e-5)
                if not request.temperature:
                    assert out.token_ids == tuple(logp.argmax(-1).tolist())
    assert set(drawn) <= ids_of(engine) and len(set(drawn)) > 9


@pytest.mark.parametrize("policy", ["base", "copy", "plan"])
@pytest.mark.parametrize("chunk", [1 << 24, 200], ids=["whole", "chunks"])
def test_what_trains_is_what_samples(policy, chunk, monkeypatch):
    from forethought.engines.torch.loss import objectives

    monkeypatch.setattr(objectives, "CHUNK_FLOATS", chunk)
    engine = padded_engine(tie_word_embeddings=False)
    if policy != "base":
        engine.fork("base", policy, "model" if policy == "copy" else "adapter")
        stir(engine, policy)
    segments = forest(2, stream="sft", weight=lambda rng, n: (1.0,) * n)
    batch = Batch(policy=policy, segments=tuple(segments))
    found = engine.logprobs(batch)
    with torch.no_grad():
        for i, segment in enumerate(segments):
            if segment.stream:
                ids = path_to(segments, i)
                logp = normalised(engine, policy, ids)[-len(segment.token_ids) - 1 : -1]
                assert found[i] == pytest.approx(
                    logp.gather(-1, torch.tensor(segment.token_ids)[:, None])[:, 0].tolist(), abs=2e-5
                )
    stats = [s for s in engine.inspect(batch, against=["base"] if policy != "base" else []) if s]
    entropies = [e for s in stats for e in s.entropies]
    # of the tokens, however many rows there are
    assert all(0 < e < torch.tensor(float(SIZE)).log() for e in entropies)
    assert all(0 <= kl + 1e-6 < 50 for s in stats for kls in s.kl.values() for kl in kls)
    engine.prepare(policy, OptimSpec(lr=0.01))
    before = snapshot(engine, policy)
    metrics = engine.forward_backward(batch, Objective((term("sft", 9.0),)))
    if policy != "plan":
        gradient = engine.weights.parameters(policy)["lm_head.weight"].grad
        assert gradient[:SIZE].any() and not gradient[SIZE:].any()
    engine.optim_step(policy)
    after = snapshot(engine, policy)
    assert (
        metrics["loss/sft"].value() < 50
        and not same(before, after)
        and all(p.isfinite().all() for p in after.values())
    )


def test_kernels_that_are_brought_up_to_date_keep_the_mask():
    """A head with a bias is copied anew when it has moved."""
    engine = engine_of(model_of("phi", vocab_size=PADDED, initializer_range=0.3))
    request = Request(policy="base", context=(3, 4), n=32, stops=(), max_tokens=4, temperature=3.0)
    for _ in range(3):
        assert {t for out in engine.sample([request])[0] for t in out.token_ids} <= ids_of(engine)
        engine.prepare("base", OptimSpec(lr=0.01))
        segments = forest(3, stream="sft", weight=lambda rng, n: (1.0,) * n)
        engine.forward_backward(
            Batch(policy="base", segments=tuple(segments)), Objective((term("sft", 1.0),))
        )
        engine.optim_step("base")
        engine.publish("base")


def test_a_model_without_such_ids_is_computed_as_it_is():
    engine = engine_of()
    assert words.empty_of(engine.weights.base) is None
    logits = torch.randn(2, SIZE)
    assert words.masked(engine.weights.base, logits) is logits


def test_an_adapter_is_looked_at_over_the_same_ids(tmp_path):
    loaded = from_path(on_disk(tmp_path, model_of(vocab_size=PADDED), tokenizer_of(WORDS)))
    engine = TorchEngine(
        loaded, EngineSpec(device="cpu", precision="fp32", threads=1), AdapterSpec(rank=2, alpha=4.0)
    )
    engine.fork("base", "plan")  # with a look of its own
    exact.check_adapter(engine.weights, "plan", "here")


def test_a_word_that_the_tokenizer_lacks_is_the_fault_of_who_said_it():
    """It would be trained on as the word that stands for all unknown ones."""
    from forethought.envs.guard import Fault
    from forethought.tasks.desk.taskset import Desk
    from forethought.workflows.rollout import Rollouts

    taskset = Desk(levels=[1])
    tokenizer = tokenizer_of(taskset.vocabulary())
    rollouts = Rollouts(engine_of(model_of(vocab_size=len(tokenizer)), tokenizer), taskset)
    (task,) = taskset.family(random.Random(0), [1], "train")
    said = taskset.oracle_plan(task)
    ids = rollouts.words.encoded("task", "oracle_plan", rollouts.words.turn, "plan", said)
    assert tokenizer.unk_token_id not in ids and rollouts.engine.decode(ids).split() == said.split()
    with pytest.raises(Fault, match="zebra"):
        rollouts.words.encoded("task", "oracle_plan", rollouts.words.turn, "plan", f"zebra {said}")
    with pytest.raises(Fault, match="zebra"):
        rollouts.words.encoded("environment", "step", rollouts.words.piece, "zebra")
