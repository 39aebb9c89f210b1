"""A model's training step by the kernels: its gradients are those of the model's own forward, and where the
kernels do not compute a model as it is, its modules run."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tolerance import LOGP, rounding
from torch_kit import SIZE, engine_of, forest, model_of, path_to, plain_logits, stir

from forethought.core.types import Batch, Request, Segment
from forethought.engines.torch.forest import decoder as decoder_module
from forethought.engines.torch.forest.decoder import decoder_of
from forethought.engines.torch.forest.native import layer as layer_module
from forethought.engines.torch.forest.native import steps as steps_module
from forethought.engines.torch.forest.native.library import library, why_not
from forethought.engines.torch.forest.native.train import crew, rounds_as_autocast
from forethought.engines.torch.forest.packing import pack
from forethought.engines.torch.models.small import small_model
from forethought.recipe.schema import ModelSpec

pytestmark = pytest.mark.skipif(library() is None, reason=why_not())

TREES = forest(0, roots=2, segments=14, longest=9)

MODELS: dict[str, tuple[str, dict]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {"hidden_size": 64}),
    "biases": ("llama", {"attention_bias": True}),
    "qwen3": ("qwen3", {}),
    "biases of the MLP": ("llama", {"mlp_bias": True}),
    "tied": ("llama", {"tie_word_embeddings": True}),
}


def near(found: torch.Tensor, wanted: torch.Tensor, limit: float) -> None:
    """To this share of the largest number, or of 1."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=limit * max(1.0, wanted.abs().max().item()))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def layers_by_the_kernels(monkeypatch):
    """Whatever an engine before has chosen for this process."""
    monkeypatch.setattr(crew, "layers", True)


class Computed:
    """How many layers went through the kernel, and how many went by themselves."""

    def __init__(self, monkeypatch):
        self.whole = self.apart = 0
        plain = decoder_module.weights_of

        def weights_of(layer, d):
            weights = plain(layer, d)
            self.whole, self.apart = self.whole + bool(weights), self.apart + (not weights)
            return weights

        monkeypatch.setattr(decoder_module, "weights_of", weights_of)


def hidden(model, segments=TREES, **fields) -> torch.Tensor:
    packed = pack(segments)
    return decoder_of(model).hidden(packed.ids_N, packed.positions_N, packed.layout, **fields)


def gradients(model, parameters, segments=TREES, **fields) -> list[torch.Tensor]:
    """Of a sum over all tokens' logits with fixed weights."""
    logits = model.get_output_embeddings()(hidden(model, segments, **fields)).float()
    return list(torch.autograd.grad((logits * random(*logits.shape)).sum(), parameters))


def plain_gradients(model, parameters, segments=TREES) -> list[torch.Tensor]:
    """The same from the model's own forward of each segment's path."""
    packed, total = pack(segments), 0.0
    weight = random(len(packed.ids_N), SIZE)
    for i, s in enumerate(segments):
        n = len(s.token_ids)
        total = (
            total
            + (
                plain_logits(model, path_to(segments, i))[-n:]
                * weight[packed.starts[i] : packed.starts[i] + n]
            ).sum()
        )
    return list(torch.autograd.grad(total, parameters))


@pytest.mark.parametrize(("kind", "fields"), MODELS.values(), ids=MODELS)
def test_a_models_gradients_are_the_plain_forwards(kind, fields, monkeypatch):
    model, computed = model_of(kind, **{"head_dim": 16} | fields), Computed(monkeypatch)
    parameters = list(model.parameters())
    for found, wanted in zip(gradients(model, parameters), plain_gradients(model, parameters), strict=True):
        near(found, wanted, 2e-5)
    assert (computed.whole, computed.apart) == ((0, 2) if kind == "qwen3" or "mlp_bias" in fields else (2, 0))


@pytest.mark.parametrize("targets", [("q_proj",), ("v_proj", "down_proj"), ()], ids=["one", "two", "all"])
@pytest.mark.parametrize("small", [1 << 20, 0], ids=["by the whole", "alone"])
def test_an_adapters_gradients_are_the_plain_forwards(targets, small, monkeypatch):
    """Where matrices are small, by the whole matrix's; else the kernel forms the adapter's alone."""
    monkeypatch.setattr(layer_module, "SMALL", small)
    engine, computed = engine_of(model_of("llama", head_dim=16), targets=targets), Computed(monkeypatch)
    engine.fork("base", "plan")
    for p in engine.weights.parameters("plan").values():
        p.data.normal_(std=0.2)
    with engine.weights.training("plan") as model:
        parameters = list(engine.weights.parameters("plan").values())
        for found, wanted in zip(
            gradients(model, parameters), plain_gradients(model, parameters), strict=True
        ):
            near(found, wanted, 2e-5)
    assert (computed.whole, computed.apart) == (2, 0)


def test_the_small_models_layers_go_through_the_kernel(monkeypatch):
    """Its attention's output has a bias that is no parameter."""
    model, computed = (
        small_model(ModelSpec(width=64, heads=4, layers=2, mlp=48), SIZE, 96, 0).eval(),
        Computed(monkeypatch),
    )
    parameters = list(model.parameters())
    for found, wanted in zip(gradients(model, parameters), plain_gradients(model, parameters), strict=True):
        near(found, wanted, 5e-5)
    assert (computed.whole, computed.apart) == (2, 0)


@pytest.mark.parametrize("places", [[0, 5, 5, 0, 30], [7], list(range(40))], ids=len)
def test_the_last_layer_computes_some_places_alone(places):
    model = model_of("llama", head_dim=16)
    near(hidden(model, places_M=torch.tensor(places)), hidden(model)[places], 5e-6)


def test_recomputing_gives_the_same_gradients():
    model = model_of("llama", head_dim=16)
    parameters = list(model.parameters())
    for found, wanted in zip(
        gradients(model, parameters, recompute=True), gradients(model, parameters), strict=True
    ):
        near(found, wanted, 5e-6)


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_hooks_on_a_linear_are_called(register, monkeypatch):
    model, called, computed = model_of("llama", head_dim=16), [], Computed(monkeypatch)
    parameters = list(model.parameters())
    wanted = gradients(model, parameters)
    getattr(model.model.layers[1].mlp.up_proj, register)(lambda *args: called.append(len(args)))
    for found, g in zip(gradients(model, parameters), wanted, strict=True):
        near(found, g, 5e-6)
    assert len(called) == 1 and (computed.whole, computed.apart) == (3, 1)


@pytest.mark.parametrize("part", ["base_layer", "lora_A.plan", "lora_B.plan"])
def test_hooks_on_a_part_of_an_adapted_linear_are_called(part):
    engine, called = engine_of(model_of("llama", head_dim=16)), []
    engine.fork("base", "plan")
    stir(engine, "plan")
    batch = Batch(policy="plan", segments=tuple(forest(1, stream="sft")))
    wanted = engine.logprobs(batch)
    engine.weights.model("plan").model.layers[1].self_attn.q_proj.get_submodule(part).register_forward_hook(
        lambda *_: called.append(1)
    )
    found = engine.logprobs(batch)
    assert called == [1]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs, abs=LOGP)


@pytest.mark.parametrize("watched", [False, True], ids=["kernels", "modules"])
def test_autocast(watched, monkeypatch):
    """Products are rounded to bfloat16, by the kernels where they can and by the linear layers where somebody
    looks at one."""
    model, kinds = model_of("llama", head_dim=16), []
    parameters = list(model.parameters())
    exact = gradients(model, parameters)
    computed = Computed(monkeypatch)
    if watched:
        model.model.layers[0].mlp.down_proj.register_forward_hook(
            lambda module, args, out: kinds.append(out.dtype)
        )
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(model, parameters)
    for g, g32 in zip(found, exact, strict=True):
        near(g, g32, rounding([1.0], steps=16, precision=torch.bfloat16))
    assert max((g - g32).abs().max() / g32.abs().max() for g, g32 in zip(found, exact, strict=True)) > 1e-4
    assert kinds == [torch.bfloat16] * watched
    if rounds_as_autocast():
        assert (computed.whole, computed.apart) == ((1, 1) if watched else (2, 0))


@pytest.mark.parametrize(
    "targets",
    [(), ("q_proj",), ("lm_head",), ("embed_tokens",), ("embed_tokens", "q_proj", "lm_head")],
    ids=str,
)
def test_an_adapter_anywhere_samples_what_it_trains(targets):
    engine = engine_of(
        model_of("llama", head_dim=16, hidden_size=64, tie_word_embeddings=False), targets=targets
    )
    engine.fork("base", "plan")
    stir(engine, "plan")
    context = (5, 6, 7, 8)
    (outs,) = engine.sample([Request(policy="plan", context=context, n=3, stops=(), max_tokens=6, seed=3)])
    segments = [Segment(parent=-1, token_ids=context)]
    segments += [
        Segment(parent=0, token_ids=out.token_ids, stream="sft", weight=(1.0,) * len(out.token_ids))
        for out in outs
    ]
    found = engine.logprobs(Batch(policy="plan", segments=tuple(segments)))[1:]
    for out, logps in zip(outs, found, strict=True):
        assert out.logprobs == pytest.approx(logps, abs=LOGP)


def test_a_call_of_sampling_leaves_nothing_behind():
    """Its keys and values go with it, not when the collector comes by."""
    engine, kept = engine_of(model_of("llama", head_dim=16, hidden_size=64), kernel_threads=2), []
    made = steps_module.NativeSteps.__init__

    def remembered(self, *args):
        kept.append(weakref.ref(self))
        made(self, *args)

    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps_module.NativeSteps, "__init__", remembered)
            engine.sample([Request(policy="base", context=(5, 6, 7), n=4, stops=(), max_tokens=5)])
    finally:
        gc.enable()
    assert len(kept) == (1 if library() else 0) and not any(ref() for ref in kept)


def test_an_engine_computes_on_its_own_number_of_threads():
    one, two = (engine_of(model_of("llama"), threads=n) for n in (1, 2))
    for engine, n in ((one, 1), (two, 2), (one, 1)):
        engine.sample([Request(policy="base", context=(5, 6), n=1, stops=(), max_tokens=2)])
        assert torch.get_num_threads() == n


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"min_p": float("nan")},
        {"seed": 1 << 64},
    ],
    ids=str,
)
def test_a_request_that_asks_for_nothing_is_refused(wrong):
    asked = {"policy": "base", "context": (5, 6), "n": 1, "stops": (), "max_tokens": 2} | wrong
    with pytest.raises(ValueError, match="a request needs n >= 1"):
        engine_of(model_of("llama")).sample([Request(**asked)])
