"""Families of models as their configurations are, at a small size and with random weights: what the engine
computes on a forest is what `transformers` computes on each path by itself, with and without an adapter, in
log-probs, in sampling and in gradients.

Matrices are drawn wide, and biases and norms are no zeros and ones, so that an error of positions, attention
or bias moves the numbers by far more than the tolerance (the last test says by how much).
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch
from tolerance import LOGP
from torch_kit import (
    MOE,
    WORDS,
    config_of,
    engine_of,
    model_of,
    on_disk,
    path_to,
    plain_logits,
    plain_logp,
    stir,
)
from transformers import CONFIG_MAPPING

from forethought.core.errors import UserError
from forethought.core.types import Batch, Objective, Request, Segment
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest.attention import NAME
from forethought.engines.torch.models.architecture import context_of, describe_context, limits
from forethought.engines.torch.models.loading import Loaded, from_path
from forethought.engines.torch.models.small import tokenizer_of
from forethought.learn.losses import term
from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec

VOCABULARY = 80
LONG = {"rope_type": "longrope", "rope_theta": 10000.0}
# family -> its type in transformers, fields, the context that is exact
FAMILIES: dict[str, tuple[str, dict, int]] = {
    "qwen2.5": (
        "qwen2",
        {
            "hidden_size": 64,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
        96,
    ),
    "qwen3": ("qwen3", {"head_dim": 16, "tie_word_embeddings": False}, 96),
    "llama3.2": (
        "llama",
        {
            "hidden_size": 64,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
        96,
    ),
    "mistral-v0.1": ("mistral", {"hidden_size": 64, "sliding_window": 48}, 48),
    "mistral-v0.3": ("mistral", {"hidden_size": 64, "sliding_window": None}, 96),
    "gemma": ("gemma", {"head_dim": 16, "num_key_value_heads": 1}, 96),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 12,
            "sliding_window": 48,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4},
            },
        },
        48,
    ),
    "phi2": (
        "phi",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        96,
    ),
    "phi3-mini-4k": ("phi3", {"sliding_window": 40}, 40),
    "phi4-mini": (
        "phi3",
        {
            "sliding_window": 500,
            "original_max_position_embeddings": 48,
            "rope_parameters": LONG
            | {"partial_rotary_factor": 0.5, "short_factor": [1.0, 1.5], "long_factor": [2.0, 5.0]},
        },
        48,
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4, "sliding_window": None}, 96),
    "qwen3-moe": ("qwen3_moe", MOE | {"num_experts": 4, "head_dim": 16}, 96),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": 2.0}, 96),
    "olmo2": ("olmo2", {}, 96),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}, 96),  # its second layer has no positions
    "pythia": (
        "gpt_neox",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}},
        96,
    ),
    "gpt2": ("gpt2", {}, 96),
}
# looked at once each, in log-probs alone
FURTHER: dict[str, tuple[str, dict, int]] = {
    "granite": ("granite", {}, 96),
    "granite-moe": ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}, 96),
    "olmo": ("olmo", {"clip_qkv": 2.0}, 96),
    "olmo3": ("olmo3", {"sliding_window": 48}, 48),
    "cohere2": ("cohere2", {"sliding_window": 48, "head_dim": 16}, 48),
    "starcoder2": ("starcoder2", {"sliding_window": None}, 96),
    "stablelm": ("stablelm", {"use_qkv_bias": True}, 96),
    "glm4": ("glm4", {"head_dim": 16}, 96),
    "ministral": ("ministral", {"sliding_window": 48, "head_dim": 16}, 48),
    "seed-oss": ("seed_oss", {"head_dim": 16}, 96),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 16}, 96),
    "arcee": ("arcee", {}, 96),
    "helium": ("helium", {"head_dim": 8}, 96),
    "ernie4.5": ("ernie4_5", {"head_dim": 16}, 96),
    "apertus": ("apertus", {}, 96),
}


def drawn(family: str):
    """A model of the family with no weight at zero or one."""
    kind, fields, _ = (FAMILIES | FURTHER)[family]
    model = model_of(kind, seed=1, vocab_size=VOCABULARY, initializer_range=0.15, **fields)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tmp_path_factory) -> tuple[str, TorchEngine]:
    return request.param, engine_on(request.param, tmp_path_factory.mktemp("model"))


def engine_on(family: str, folder: Path) -> TorchEngine:
    """On the model as loaded from its files; its policy "plan" is an adapter with weights."""
    words = [f"w{i}" for i in range(VOCABULARY - 3)]
    source = from_path(on_disk(folder, drawn(family), tokenizer_of(words)))
    engine = TorchEngine(
        source, EngineSpec(device="cpu", precision="fp32", threads=1), AdapterSpec(rank=2, alpha=4.0)
    )
    engine.fork("base", "plan")
    stir(engine, "plan")
    return engine


def tree() -> list[Segment]:
    """A prompt, two plans, two executions of each, all of different lengths; every token behind the prompt
    has a weight of its own."""
    rng, out = random.Random(3), []
    for parent, n in [(-1, 11), (0, 5), (0, 8), (1, 3), (1, 7), (2, 6), (2, 1)]:
        trained = (
            {"stream": "sft", "weight": tuple(rng.uniform(-1, 2) for _ in range(n))} if parent >= 0 else {}
        )
        out.append(
            Segment(parent=parent, token_ids=tuple(rng.randrange(3, VOCABULARY) for _ in range(n)), **trained)
        )
    return out


POLICIES = pytest.mark.parametrize("policy", ["base", "plan"])


@POLICIES
def test_log_probs_of_a_forest_are_those_of_each_path(loaded, policy):
    check_log_probs(loaded[1], policy)


@pytest.mark.parametrize("family", FURTHER)
def test_log_probs_of_further_families_too(family, tmp_path):
    """Loading compares sampling and an adapter with the model's plain forward as well."""
    if FURTHER[family][0] not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {FURTHER[family][0]}")
    engine = engine_on(family, tmp_path)
    assert engine.context == FURTHER[family][2]
    for policy in ("base", "plan"):
        check_log_probs(engine, policy)


def check_log_probs(engine: TorchEngine, policy: str) -> None:
    segments = tree()
    found = {name: engine.logprobs(Batch(policy=name, segments=tuple(segments))) for name in ("base", "plan")}
    # the adapter acts
    assert (
        max(abs(a - b) for x, y in zip(*found.values(), strict=True) for a, b in zip(x, y, strict=True))
        > 0.05
    )
    model = engine.weights.model(policy)
    with torch.no_grad():
        for i, segment in enumerate(segments):
            wanted = plain_logp(model, segments, i).tolist() if segment.stream else []
            assert found[policy][i] == pytest.approx(wanted, abs=LOGP)


@POLICIES
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_log_probs_of_sampled_tokens_are_those_of_the_plain_forward(loaded, policy, temperature):
    """Three contexts on one prompt, of two lengths, two rows on each."""
    _, engine = loaded
    segments = tree()
    contexts = [path_to(segments, 1), path_to(segments, 2), path_to(segments, 0) + (5, 6, 7, 8, 9)]
    requests = [
        Request(policy=policy, context=ids, n=2, stops=(), max_tokens=6, temperature=temperature, seed=i)
        for i, ids in enumerate(contexts)
    ]
    answers = engine.sample(requests)
    model = engine.weights.model(policy)
    for ids, outs in zip(contexts, answers, strict=True):
        for out in outs:
            with torch.no_grad():
                logp = plain_logits(model, ids + out.token_ids).log_softmax(-1)[len(ids) - 1 : -1]
            assert out.logprobs == pytest.approx(
                logp.gather(-1, torch.tensor(out.token_ids)[:, None])[:, 0].tolist(), abs=LOGP
            )
            if not temperature:
                assert out.token_ids == tuple(logp.argmax(-1).tolist())
    if temperature:
        assert len({out.token_ids for outs in answers for out in outs}) == 6


@POLICIES
def test_gradients_of_a_forest_are_the_sum_of_those_of_its_paths(loaded, policy):
    _, engine = loaded
    segments = tree()
    engine.prepare(policy, OptimSpec())
    engine.forward_backward(Batch(policy=policy, segments=tuple(segments)), Objective((term("sft", 7.0),)))
    own = engine.weights.parameters(policy)
    found = {name: p.grad.clone() for name, p in own.items() if p.grad is not None}
    engine.forget(policy)
    with engine.weights.training(policy) as model:
        for i, segment in enumerate(segments[1:], 1):
            (-(torch.tensor(segment.weight) * plain_logp(model, segments, i)).sum() / 7.0).backward()
    wanted = {name: p.grad.clone() for name, p in own.items() if p.grad is not None}
    engine.forget(policy)
    engine.release(policy)
    assert found.keys() == wanted.keys() and len(wanted) > 10
    whole = torch.stack([g.norm() for g in wanted.values()]).norm()
    assert whole > 0.1
    for name, g in wanted.items():  # the gradient of a key's bias is zero up to rounding, in either form
        assert (found[name] - g).norm() <= 1e-5 * max(g.norm(), 1e-2 * whole), name


def test_a_path_as_long_as_the_context_is_exact_and_a_longer_one_is_refused(loaded):
    family, engine = loaded
    context = FAMILIES[family][2]
    assert engine.context == context and engine.facts()["context"].startswith(str(context))
    ids = tuple(random.Random(4).choices(range(3, VOCABULARY), k=context))
    segments = [Segment(parent=-1, token_ids=ids[:9]), Segment(parent=0, token_ids=ids[9:], stream="sft")]
    with torch.no_grad():
        wanted = plain_logp(engine.weights.model("base"), segments, 1).tolist()
    assert engine.logprobs(Batch(policy="base", segments=tuple(segments)))[1] == pytest.approx(
        wanted, abs=LOGP
    )
    longer = (segments[0], Segment(parent=0, token_ids=(*ids[9:], 3), stream="sft"))
    with pytest.raises(
        UserError, match=f"{context + 1} tokens does not fit the model's context of {context}"
    ):
        engine.logprobs(Batch(policy="base", segments=longer))


def test_these_models_would_show_a_wrong_position_a_wrong_neighbour_and_a_wrong_window(loaded):
    family, engine = loaded
    model, segments = engine.weights.model("base"), tree()
    ids = torch.tensor([path_to(segments, 4)])  # prompt, first plan, its second execution
    # as if below the other plan's first tokens
    beside = torch.tensor([path_to(segments, 2)[:16] + path_to(segments, 4)[16:]])
    places = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        right = model(input_ids=ids).logits.log_softmax(-1)[0, 16:]
        # a sibling's tokens late
        shifted = model(input_ids=ids, position_ids=places + 3 * (places >= 16)).logits.log_softmax(-1)[
            0, 16:
        ]
        astray = model(input_ids=beside).logits.log_softmax(-1)[0, 16:]
    assert (shifted - right).abs().max() > 1e-3 and (astray - right).abs().max() > 1e-2, family


# The context that is exact ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["mistral-v0.1", "gemma3", "phi3-mini-4k", "phi4-mini"])
def test_beyond_the_context_full_attention_would_not_be_what_the_model_computes(family):
    """So the limit is needed: one token more, and the model's own forward is no longer that of full attention
    at its positions."""
    model, context = drawn(family), FAMILIES[family][2]
    engine = engine_of(model, tokenizer_of(WORDS))
    engine.context = 96  # as if there were no limit
    ids = tuple(random.Random(4).choices(range(3, VOCABULARY), k=context + 8))
    other = (3,) * len(ids)
    segments = (
        Segment(parent=-1, token_ids=ids[:9]),
        Segment(parent=0, token_ids=ids[9:context], stream="sft"),
        Segment(parent=-1, token_ids=other[:1]),
        Segment(parent=2, token_ids=other[1:], stream="sft"),
        Segment(parent=0, token_ids=ids[9:], stream="sft"),
    )
    found = engine.logprobs(Batch(policy="base", segments=segments))
    with torch.no_grad():
        error = max(
            (plain_logp(model, segments, i) - torch.tensor(found[i])).abs().max().item() for i in (1, 4)
        )
    assert error > 1e-3


@pytest.mark.parametrize(
    ("kind", "fields", "wanted", "words"),
    [
        (
            "mistral",
            {"sliding_window": 4096, "max_position_embeddings": 32768},
            4096,
            "4096 of 32768 (sliding_window)",
        ),
        ("mistral", {"sliding_window": None, "max_position_embeddings": 32768}, 32768, "32768"),
        ("mistral", {"sliding_window": 64, "max_position_embeddings": 32}, 32, "32"),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": False}, 96, "96"),
        (
            "qwen2",
            {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1},
            64,
            "64 of 96 (sliding_window)",
        ),
        ("gemma3_text", {"sliding_window": 64, "layer_types": ["full_attention"] * 2}, 96, "96"),
        (
            "llama4_text",
            {"attention_chunk_size": 32, "layer_types": ["chunked_attention"] * 2},
            32,
            "32 of 96 (attention_chunk_size)",
        ),
        (
            "phi3",
            {
                "original_max_position_embeddings": 48,
                "rope_parameters": LONG | {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
            },
            48,
            "48 of 96 (original_max_position_embeddings)",
        ),
    ],
)
def test_the_context_is_what_windows_chunks_and_frequencies_leave(kind, fields, wanted, words):
    config = config_of(kind, **fields)
    assert context_of(config) == wanted == min(limits(config).values()) and describe_context(config) == words


def test_a_model_that_was_loaded_with_another_attention_is_refused_at_the_start():
    for other in ("eager", "sdpa"):
        model = model_of()
        model.set_attn_implementation(other)
        with pytest.raises(
            UserError,
            match=re.escape(
                f"attends by {other!r}, which cannot take packed "
                f"forests; load it with "
                f"attn_implementation={NAME!r}"
            ),
        ):
            TorchEngine(Loaded(model, tokenizer_of(WORDS), ""), EngineSpec(device="cpu"), AdapterSpec())
