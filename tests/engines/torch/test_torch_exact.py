"""Packed forests give what the model's own plain forward gives, for every kind of decoder that is accepted;
every other kind is refused by name when it is loaded."""

from __future__ import annotations

import random
import re

import pytest
import torch
from peft.tuners.lora import Linear
from tolerance import LOGP
from torch_kit import (
    KINDS,
    WORDS,
    config_of,
    engine_of,
    forest,
    model_of,
    on_disk,
    path_to,
    plain_logits,
    plain_logp,
    snapshot,
    stir,
)
from transformers import AutoModelForCausalLM

from forethought.core.errors import UserError
from forethought.core.types import Batch, Request, Segment
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest import lora
from forethought.engines.torch.forest.attention import NAME, Forest, Unsupported, using
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.forest.packing import pack
from forethought.engines.torch.models import exact
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.sampling.caches import Apart
from forethought.recipe.schema import AdapterSpec, EngineSpec


def shape(kind: str, seed: int) -> dict:
    """A random small size: heads, grouped or not, layers, widths, tied or not."""
    rng = random.Random(f"{kind}/{seed}")
    heads = rng.choice([2, 4])
    grouped = rng.choice([1, heads]) if kind != "deepseek_v3" else heads
    layers = rng.choice([1, 2, 3]) if "layer_types" not in KINDS[kind] else 2
    tied = {} if kind in ("gpt_neox", "phi") else {"tie_word_embeddings": rng.random() < 0.5}
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": grouped,
        "num_hidden_layers": layers,
        "hidden_size": rng.choice([16, 32]) * heads // 2,
        **tied,
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", [False, True], ids=["base", "lora"])
def test_forests_are_the_plain_forward(kind, adapter):
    for seed in [1] if adapter else [0, 1]:
        engine = engine_of(model_of(kind, seed, **shape(kind, seed)))
        policy = "plan" if adapter else "base"
        if adapter:
            before = engine.logprobs(Batch(policy="base", segments=tuple(forest(seed, stream="sft"))))
            engine.fork("base", "plan")
            stir(engine, "plan", seed)
        segments = forest(seed, stream="sft")
        found = engine.logprobs(Batch(policy=policy, segments=tuple(segments)))
        if adapter:  # it does something, or the comparison below would say nothing about it
            assert (
                max(abs(a - b) for x, y in zip(before, found, strict=True) for a, b in zip(x, y, strict=True))
                > 1e-2
            )
        model = engine.weights.model(policy)
        with torch.no_grad():
            for i, segment in enumerate(segments):
                wanted = plain_logp(model, segments, i).tolist() if segment.stream else []
                assert found[i] == pytest.approx(wanted, abs=LOGP)
            packed = pack(segments)
            with using(Forest(packed.layout)):
                hidden = model.base_model(
                    input_ids=packed.ids_N[None], position_ids=packed.positions_N[None], use_cache=False
                )
            for i, segment in enumerate(segments):
                row = model.base_model(
                    input_ids=torch.tensor([path_to(segments, i)]), use_cache=False
                ).last_hidden_state[0]
                own = hidden.last_hidden_state[
                    0, packed.starts[i] : packed.starts[i] + len(segment.token_ids)
                ]
                torch.testing.assert_close(own, row[-len(segment.token_ids) :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        *((kind, False) for kind in KINDS),
        ("llama", True),
        ("gpt2", True),
        ("granite", True),
        ("qwen3_moe", True),
        ("deepseek_v3", True),
    ],
)
def test_sampled_tokens_have_the_log_probs_of_the_plain_forward(kind, adapter):
    engine = engine_of(model_of(kind, 3, **shape(kind, 3)))
    policy = "plan" if adapter else "base"
    if adapter:
        engine.fork("base", "plan")
        stir(engine, "plan")
    contexts = [(3, 4, 5), (3, 4, 5, 6, 7), (3, 9)]
    requests = [
        Request(policy=policy, context=c, n=3, stops=(), max_tokens=6, seed=i) for i, c in enumerate(contexts)
    ]
    answers = engine.sample(requests)
    model = engine.weights.model(policy)  # the adapter beside the weights, where sampling has it inside them
    for c, outs in zip(contexts, answers, strict=True):
        for out in outs:
            with torch.no_grad():
                logp = plain_logits(model, c + out.token_ids).log_softmax(-1)[len(c) - 1 : -1]
            wanted = logp.gather(-1, torch.tensor(out.token_ids)[:, None])[:, 0]
            assert out.logprobs == pytest.approx(wanted.tolist(), abs=LOGP)


def test_a_prompt_alone_is_enough_to_predict_its_first_token_and_a_root_has_nothing_to_predict_it_from():
    engine = engine_of()
    alone = Segment(parent=-1, token_ids=(3,)), Segment(parent=0, token_ids=(4,), stream="sft")
    with torch.no_grad():
        wanted = plain_logp(engine.weights.model("base"), alone, 1).tolist()
    assert engine.logprobs(Batch(policy="base", segments=alone))[1] == pytest.approx(wanted, abs=LOGP)
    with pytest.raises(ValueError, match="segment 0 trains its tokens, but nothing stands before"):
        engine.logprobs(Batch(policy="base", segments=(Segment(parent=-1, token_ids=(3, 4), stream="sft"),)))


def test_a_path_longer_than_the_context_is_refused():
    engine = engine_of(model_of(max_position_embeddings=8))

    def batch(n):
        root, branch = Segment(parent=-1, token_ids=(3,) * 5), Segment(parent=0, token_ids=(4,))
        return Batch(
            policy="base", segments=(root, branch, Segment(parent=0, token_ids=(5,) * n, stream="sft"))
        )

    assert len(engine.logprobs(batch(3))[2]) == 3
    with pytest.raises(UserError, match="rollout of 9 tokens does not fit the model's context of 8"):
        engine.logprobs(batch(4))


# Refusals ---------------------------------------------------------------------------------------------------

REFUSED = {
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "layers of kind conv"),
    "mamba": ({}, "layers of kind (linear_attention|mamba)"),
    "gemma3_text": (
        {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
        r"attends fully over 8 of 96 \(sliding_window\) tokens only",
    ),
    "gpt_oss": (
        {"num_local_experts": 4, "layer_types": ["full_attention"] * 2, "head_dim": 8},
        "has attention sinks",
    ),
    "gemma2": (
        {"head_dim": 8, "layer_types": ["full_attention"] * 2},
        r"caps its attention scores "
        r"\(attn_logit_softcapping = 50.0\)",
    ),
    "llama4_text": (
        {"num_local_experts": 2, "head_dim": 8},
        "scales its attention by a token's place in the row",
    ),
    "qwen3_next": (
        {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
        "layers of kind linear_attention",
    ),
    "bloom": ({}, "adds position biases to its attention"),
    "mpt": ({"d_model": 32, "n_heads": 4, "n_layers": 2}, "adds position biases to its attention"),
    "rwkv": ({}, "is recurrent"),
    "falcon": ({"alibi": True}, "adds position biases to its attention"),
    "gpt_neo": (
        {"num_layers": 2, "attention_types": [[["global"], 2]]},
        "does not go through the attention interface",
    ),
    "gptj": ({"rotary_dim": 8}, "does not go through the attention interface"),
    "xglm": ({}, "0 of 2 layers attend through the attention interface"),
    "codegen": ({"rotary_dim": 8}, "codegen"),
    "diffllama": (
        {},
        "computes other numbers on packed forests than row by row|does not go through the "
        "attention interface",
    ),
    "bert": ({}, "bert"),
    "t5": ({}, "has an encoder beside its decoder"),
    "bart": ({}, "has an encoder beside its decoder"),
}


# Kinds whose attention goes through the interface of transformers in some versions of it: a version decides,
# and the look finds it.
SOME_VERSIONS_COMPUTE = ("gpt_neo", "gptj", "xglm", "codegen", "diffllama")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_computed_wrongly_is_refused_by_name(kind, tmp_path):
    fields, reason = REFUSED[kind]
    if kind in ("t5", "bart", "llama4_text", "qwen3_next"):  # the configuration is enough
        config_of(kind, **fields).save_pretrained(tmp_path)
    else:
        torch.manual_seed(0)
        config = config_of(
            kind, **({k: v for k, v in KINDS.get(kind, {}).items() if k not in fields} | fields)
        )
        on_disk(tmp_path, AutoModelForCausalLM.from_config(config))
    try:
        loaded = from_path(str(tmp_path))
    except UserError as e:
        assert re.search(reason, str(e)) and str(tmp_path) in str(e), e
        assert kind in str(e) and str(e).count(". ") == 0  # one sentence
        return
    assert kind in SOME_VERSIONS_COMPUTE, f"{kind} is taken, with its {reason}"
    _is_computed_rightly(
        TorchEngine(
            loaded, EngineSpec(device="cpu", precision="fp32", threads=1), AdapterSpec(rank=2, alpha=4.0)
        )
    )


def _is_computed_rightly(engine: TorchEngine) -> None:
    """What was not refused: log-probs of a forest and of samples, with and without an adapter, are those of
    the model's own forward."""
    engine.fork("base", "plan")
    stir(engine, "plan")
    segments = forest(1, stream="sft")
    for policy in ("base", "plan"):
        found, model = (
            engine.logprobs(Batch(policy=policy, segments=tuple(segments))),
            engine.weights.model(policy),
        )
        request = Request(policy=policy, context=(3, 4, 5, 6), n=2, stops=(), max_tokens=5)
        with torch.no_grad():
            for i, segment in enumerate(segments):
                if segment.stream:
                    assert found[i] == pytest.approx(plain_logp(model, segments, i).tolist(), abs=1e-5)
            for out in engine.sample([request])[0]:
                path = [
                    Segment(parent=-1, token_ids=request.context),
                    Segment(parent=0, token_ids=out.token_ids),
                ]
                assert out.logprobs == pytest.approx(
                    plain_logp(engine.weights.model(policy), path, 1).tolist(), abs=1e-5
                )


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "gpt2", "mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_computed_rightly_passes_in_either_precision(kind, dtype):
    exact.check_model(model_of(kind).to(dtype), "here")


@pytest.mark.parametrize(
    ("broken", "dtype"),
    [
        ("mask", torch.float32),
        ("positions", torch.float32),
        ("scale", torch.float32),
        ("value", torch.float32),
        ("decode", torch.float32),
        ("mask", torch.bfloat16),
        ("positions", torch.bfloat16),
    ],
)
def test_the_check_finds_an_attention_that_is_slightly_wrong(broken, dtype, monkeypatch):
    """Sensitivity, on an otherwise sound model: 1 % of error in fp32, and in bf16, whose rounding hides that,
    a wrong structure."""
    from forethought.engines.torch.forest import attention
    from forethought.engines.torch.sampling import caches, prefill

    model = model_of("gpt_neox", initializer_range=0.3).to(dtype)  # one that runs through its own modules
    forest_of, attend_of, pack_of = attention._forest, caches.Together.attend, exact.pack
    if broken == "mask":  # a branch sees its neighbour
        monkeypatch.setattr(
            attention, "_forest", lambda layout, q, k, v: forest_of(layout, q, k, v.roll(1, 2))
        )
    elif broken == "scale":
        monkeypatch.setattr(attention, "_forest", lambda layout, q, k, v: forest_of(layout, q * 1.01, k, v))
    elif broken == "value":
        monkeypatch.setattr(attention, "_forest", lambda layout, q, k, v: forest_of(layout, q, k, v * 1.01))
    elif broken == "decode":
        monkeypatch.setattr(
            caches.Together, "attend", lambda cache, i, q, k, v: attend_of(cache, i, q, k, v * 1.01)
        )
    else:
        from dataclasses import replace

        shifted = lambda *args: (p := pack_of(*args)) and replace(p, positions_N=p.positions_N // 2)  # noqa: E731
        monkeypatch.setattr(exact, "pack", shifted)
        monkeypatch.setattr(prefill, "pack", shifted)
    with pytest.raises(UserError, match="computes other numbers on packed forests"):
        exact.check_model(model, "here")


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_the_check_finds_a_model_that_counts_positions_by_itself(kind, spread):
    """Also where weights are so small that attention is nearly flat."""
    model = model_of(kind, initializer_range=spread)
    exact.check_model(model, "here")
    inner = model.base_model
    forward = inner.forward

    def counted(*args, **kwargs):
        ids = args[0] if args else kwargs["input_ids"]
        return forward(*args, **kwargs | {"position_ids": torch.arange(ids.shape[1])[None]})

    inner.forward = counted
    with pytest.raises(
        UserError,
        match=r"here \(\w+\) computes other numbers on packed forests than row by "
        r"row \(.*differ by",
    ):
        exact.check_model(model, "here")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_check_finds_what_is_added_to_a_few_logits_of_many(kind):
    model = model_of(kind, vocab_size=30_000)
    exact.check_model(model, "here")
    forward = model.forward

    def added(**kwargs):
        out = forward(**kwargs)
        out.logits[..., 7] += 0.1  # the mean over the vocabulary would not notice
        return out

    model.forward = added
    with pytest.raises(UserError, match="single logits differ by 1.0e-01"):
        exact.check_model(model, "here")


def test_the_check_finds_a_decoder_that_is_written_out_wrongly(monkeypatch):
    """Training and sampling use it where there is one; the model's own modules are right."""
    model = model_of("llama")
    hidden_of = exact.hidden_of
    monkeypatch.setattr(exact, "hidden_of", lambda *args: hidden_of(*args) * 1.01)
    with pytest.raises(UserError, match="computes other numbers on packed forests"):
        exact.check_model(model, "here")


def test_weights_that_are_not_finite_are_refused():
    model = model_of("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
    with pytest.raises(
        UserError,
        match=r"here \(gpt2\) computes logits that are not finite; its weights are "
        r"broken",
    ):
        exact.check_model(model, "here")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_experts_that_drop_tokens_beyond_a_capacity_are_refused(dtype):
    model = model_of("mixtral", initializer_range=0.3).to(dtype)
    exact.check_model(model, "here")
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(first_come)
    with pytest.raises(
        UserError, match="computes a row differently with others beside it .* drop tokens beyond a capacity"
    ):
        exact.check_model(model, "here")


def first_come(gate, args, out):
    """Each expert takes 1.25 times its even share of the batch's tokens, in order; what comes later weighs
    nothing."""
    logits, weights, chosen = out
    most = int(1.25 * chosen.numel() / gate.num_experts)
    taken = (
        torch.nn.functional.one_hot(chosen.flatten(), gate.num_experts)
        .cumsum(0)
        .gather(1, chosen.flatten()[:, None])
        .view_as(chosen)
    )
    return logits, weights * (taken <= most), chosen


def test_a_router_that_reads_other_tokens_is_refused():
    model = model_of("qwen3_moe", initializer_range=0.3)
    for layer in model.model.layers:  # weights are evened out over all tokens of the batch
        layer.mlp.gate.register_forward_hook(
            lambda gate, args, out: (out[0], out[1] / out[1].mean(0, keepdim=True), out[2])
        )
    with pytest.raises(UserError, match="computes a row differently with others beside it"):
        exact.check_model(model, "here")


@pytest.mark.parametrize(
    ("kind", "fields", "asked"),
    [
        ("gpt_oss", {"num_local_experts": 4}, r"s_aux \(attention sinks\)"),
        ("gemma2", {}, r"softcap \(soft-capped scores\)"),
    ],
)
def test_what_the_configuration_hides_the_attention_is_asked_for(kind, fields, asked):
    model = model_of(kind, head_dim=8, layer_types=["full_attention"] * 2, **fields)
    with pytest.raises(
        UserError,
        match=f"here \\({kind}\\) asks its attention for {asked}, which packed "
        f"forests do not compute; use a ",
    ):
        exact.check_model(model, "here")


def test_a_window_that_the_configuration_does_not_tell_of_is_refused(monkeypatch):
    monkeypatch.setattr(exact, "context_of", lambda config: 96)
    with pytest.raises(
        UserError,
        match="a sliding window of 16 tokens in a context of 96, and its configuration does not tell where",
    ):
        exact.check_model(model_of("mistral", sliding_window=16), "here")


# Adapters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_sound_adapter_passes_and_is_what_it_was(kind, dtype):
    engine = engine_of(model_of(kind, 2).to(dtype))
    engine.fork("base", "plan")
    before, drawn = (
        snapshot(engine, "plan"),
        engine.sample([Request(policy="plan", context=(3, 4), n=2, stops=(), max_tokens=5)]),
    )
    exact.check_adapter(engine.weights, "plan", "here")
    assert all(torch.equal(before[k], p) for k, p in snapshot(engine, "plan").items()) and any(
        not p.any() for p in before.values()
    )
    assert engine.sample([Request(policy="plan", context=(3, 4), n=2, stops=(), max_tokens=5)]) == drawn


LEFT_OUT = {
    "everywhere": (lambda x: True, "an adapter on its layers does not change what it computes"),
    "in the written-out forward": (
        lambda x: x.dim() == 2,
        "computes other numbers on packed forests .* once it has an adapter",
    ),
    "in rows": (lambda x: x.dim() == 3, "an adapter on its layers does not change what it computes"),
}


@pytest.mark.parametrize("where", LEFT_OUT)
def test_an_adapter_that_is_left_out_is_refused(where, monkeypatch, tmp_path):
    out, reason = LEFT_OUT[where]
    forward = Linear.forward
    loaded = from_path(on_disk(tmp_path, model_of("llama")))
    engine = TorchEngine(loaded, EngineSpec(device="cpu", threads=1), AdapterSpec(rank=2, alpha=4.0))
    monkeypatch.setattr(
        Linear, "forward", lambda layer, x: layer.base_layer(x) if out(x) else forward(layer, x)
    )
    with pytest.raises(
        UserError, match=f"{re.escape(str(tmp_path))}.*{reason}.*name other layers in adapter.targets"
    ):
        engine.fork("base", "plan")


def test_an_adapter_that_samples_otherwise_than_it_trains_is_refused(monkeypatch):
    engine = engine_of(model_of("gpt_neox"))
    engine.fork("base", "plan")
    add = lora.add
    monkeypatch.setattr(lora, "add", lambda *args: None)  # the copy that samples stays the base
    with pytest.raises(UserError, match="once it has an adapter .*log-probs of sampled tokens differ"):
        exact.check_adapter(engine.weights, "plan", "here")
    monkeypatch.setattr(lora, "add", add)
    exact.check_adapter(engine.weights, "plan", "here")


def test_an_adapter_that_stays_where_it_is_switched_off_is_refused(monkeypatch):
    engine = engine_of(model_of("gpt_neox"))
    engine.fork("base", "plan")
    before = snapshot(engine, "plan")
    exact.check_adapter(engine.weights, "plan", "here")
    model = engine.weights.model
    monkeypatch.setattr(engine.weights, "model", lambda name: model("plan"))
    with pytest.raises(UserError, match="changes what it computes without it"):
        exact.check_adapter(engine.weights, "plan", "here")
    assert all(torch.equal(before[k], p) for k, p in snapshot(engine, "plan").items())  # refused or not


def test_attention_refuses_what_it_does_not_compute_at_any_time():
    """Beyond the check at loading: a model that asks for more later is stopped, never computed without it."""
    packed = pack(forest(0, roots=1, segments=1))
    layout, q = packed.layout, torch.randn(1, 2, len(packed.ids_N), 4)
    attend = __import__("transformers").AttentionInterface()[NAME]
    for asked in (
        {"softcap": 30.0},
        {"s_aux": torch.zeros(2)},
        {"position_bias": torch.zeros(1)},
        {"is_causal": False},
    ):
        with using(Forest(layout)), pytest.raises(Unsupported, match="asks its attention for"):
            attend(torch.nn.Module(), q, q, q, None, **asked)
    with using(Forest(layout)), pytest.raises(Unsupported, match="a mask of its own"):
        attend(torch.nn.Module(), q, q, q, torch.zeros(1, 1, 3, 3))
    seen: set[int] = set()
    with using(Forest(layout, None, seen)):
        attend(torch.nn.Module(), q, q, q, None, sliding_window=7)
    assert seen == {7}  # a window that only the call tells of is noticed too
    state = Apart(1, {}, torch.zeros(1, 1, 1, 1), 1)
    with using(state), pytest.raises(Unsupported, match="softcap"):
        attend(torch.nn.Module(), q[:, :, :1], q[:, :, :1], q[:, :, :1], None, softcap=30.0)


def test_without_a_mode_the_model_is_what_it_is_everywhere_else():
    model = model_of("qwen2", 5)
    ids = torch.tensor([[3, 4, 5, 6, 7], [9, 8, 7, 6, 5]])
    with torch.no_grad():
        mine = model(input_ids=ids, attention_mask=torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])).logits
        model.set_attn_implementation("eager")
        theirs = model(input_ids=ids, attention_mask=torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])).logits
    torch.testing.assert_close(mine[:, 1:], theirs[:, 1:], atol=1e-5, rtol=1e-5)


def test_heads_that_scale_are_followed():
    """Granite divides, Cohere multiplies, Gemma 2 caps: hidden states to the model's own logits."""
    for kind, fields in [
        ("granite", {}),
        ("cohere", {}),
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 0.5}),
    ]:
        model = model_of(kind, **fields)
        model.set_attn_implementation("eager")
        with torch.no_grad():
            out = model(input_ids=torch.tensor([[3, 4, 5]]), output_hidden_states=True)
            hidden = model.base_model(input_ids=torch.tensor([[3, 4, 5]])).last_hidden_state
            torch.testing.assert_close(logits_of(model)(hidden), out.logits)
            assert (model.get_output_embeddings()(hidden) - out.logits).abs().max() > 1e-2, kind


def test_the_words_are_the_vocabulary():
    assert len(WORDS) == 29
