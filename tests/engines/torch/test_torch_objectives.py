"""Log-probs, entropies and KL over the vocabulary: the numbers of whole distributions, for every head, in the
memory of a chunk."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from bench_load import script
from test_torch_training import STREAMS, close
from tolerance import rounding
from torch_kit import SIZE, engine_of, forest, model_of, stir

from forethought.core.types import Batch
from forethought.engines.torch.forest import heads
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.forest.native.instructions import DOTS, ROUNDED
from forethought.engines.torch.forest.native.library import library, why_not
from forethought.engines.torch.loss import distributions, objectives
from forethought.recipe.schema import OptimSpec

allocated = script("memory").allocated  # most bytes that PyTorch gives out while something runs
WIDTH = 32  # of the models of torch_kit
# CHUNK_FLOATS. Of a few chunks, and a head that trains, the logits are kept
PATHS = {"one chunk": 1 << 24, "a few": 5 * SIZE, "many": 2 * SIZE, "token by token": 1}
HEADS = {
    "plain": ("llama", {}, "base"),
    "tied": ("llama", {"tie_word_embeddings": True}, "base"),
    "bias": ("phi", {}, "base"),
    "scaled": ("cohere", {}, "base"),
    "divided": ("granite", {"logits_scaling": 3.0}, "base"),
    "soft cap": ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0}, "base"),
    "frozen": ("llama", {}, None),
    "frozen, bias": ("phi", {}, None),
    "frozen, soft cap": ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0}, None),
    "adapter": ("llama", {}, "plan"),
    "adapter, soft cap": ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0}, "plan"),
}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(distributions, "CPU_BLOCK", 3 * SIZE)


def head_of(kind: str, dtype: torch.dtype):
    """(head, what of it trains). Weights are large enough for caps to bend and for some tokens to be
    likely."""
    family, fields, policy = HEADS[kind]
    engine = engine_of(model_of(family, **fields), targets=("lm_head",))
    if policy == "plan":
        engine.fork("base", "plan")
        stir(engine, "plan")
    model = engine.weights.model(policy or "base")
    with torch.no_grad():
        model.get_output_embeddings().get_parameter(
            "base_layer.weight" if policy == "plan" else "weight"
        ).mul_(5)
        if bias := getattr(model.get_output_embeddings(), "bias", None) is not None:
            model.get_output_embeddings().bias.copy_(torch.linspace(-1, 1, SIZE))
    assert bool(bias) == ("bias" in kind) or policy == "plan"
    model.to(dtype)
    own = list(engine.weights.parameters(policy).values()) if policy else []
    head = logits_of(model)
    own = [p.requires_grad_() for p in own if any(p is q for q in model.get_output_embeddings().parameters())]
    assert bool(own) == bool(policy)
    return head, own


def inputs(dtype: torch.dtype, n: int = 23):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(n, WIDTH, generator=generator).to(dtype).requires_grad_()
    ids, gradient = (
        torch.randint(0, SIZE, (n,), generator=generator),
        torch.randn(n, generator=generator).to(dtype),
    )
    gradient[::4] = 0.0  # a token without advantage
    return hidden, ids, gradient


def gradients(value_N: torch.Tensor, gradient_N: torch.Tensor, *of: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """As whoever wants no `.grad` touched takes them."""
    found = torch.autograd.grad(value_N, of, gradient_N)
    assert all(x.grad is None for x in of)
    return found


# The numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floats", PATHS.values(), ids=PATHS.keys())
def test_two_words_by_hand(floats, monkeypatch):
    """p = (1/4, 3/4): H = ln 4 - 3/4 ln 3. d(log p of a)/d(logits) = (a is it) - p, times 2 and -1 from the
    loss."""
    monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
    logits = torch.tensor([[7.0, 7.0 + math.log(3)]] * 2).requires_grad_()
    logp, entropy = objectives.logprobs_of(lambda x: x, logits, torch.tensor([0, 1]), 2)
    within = rounding([8.0], steps=4)  # logits are 7 and 8.1, log-probs their differences
    assert logp.tolist() == pytest.approx([-math.log(4), math.log(0.75)], abs=within)
    assert (
        entropy.tolist() == pytest.approx([math.log(4) - 0.75 * math.log(3)] * 2, abs=within)
        and not entropy.requires_grad
    )
    (found,) = gradients(logp, torch.tensor([2.0, -1.0]), logits)
    torch.testing.assert_close(found, torch.tensor([[1.5, -1.5], [0.25, -0.25]]))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("floats", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize(
    ("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["float64", "float32"]
)
def test_log_probs_entropies_and_gradients_are_those_of_whole_distributions(
    kind, floats, dtype, exact, monkeypatch, small_blocks
):
    head, own = head_of(kind, dtype)
    hidden, ids, gradient = inputs(dtype)
    whole = head(hidden).log_softmax(-1)
    wanted = gradients(whole.gather(-1, ids[:, None])[:, 0], gradient, hidden, *own)
    monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
    logp, entropy = objectives.logprobs_of(head, hidden, ids, SIZE)
    close = dict(rtol=exact, atol=10 * exact)
    assert logp.dtype == entropy.dtype == dtype and entropy.max() - entropy.min() > 0.1
    torch.testing.assert_close(logp, whole.gather(-1, ids[:, None])[:, 0], **close)
    torch.testing.assert_close(entropy, -(whole.exp() * whole).sum(-1), **close)
    for found, expected in zip(gradients(logp, gradient, hidden, *own), wanted, strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(
            found, expected, rtol=exact, atol=exact * max(10.0, expected.abs().max().item() * 10)
        )


@pytest.mark.parametrize("kind", ["plain", "soft cap", "frozen", "frozen, soft cap", "adapter"])
@pytest.mark.parametrize("floats", PATHS.values(), ids=PATHS.keys())
def test_kl_and_its_gradients_are_those_of_whole_distributions(kind, floats, monkeypatch, small_blocks):
    """A step of every logit says whether the gradient is the derivative: central differences in float64."""
    head, own = head_of(kind, torch.float64)
    other, _ = head_of("bias", torch.float64)
    hidden, _, gradient = inputs(torch.float64)
    first = torch.randn(
        len(hidden), WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).requires_grad_()

    def plain(x):
        p, q = other(first.detach()).log_softmax(-1), head(x).log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1)

    monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
    kl = objectives.kl_of(other, first, head, hidden, SIZE)
    torch.testing.assert_close(kl, plain(hidden), rtol=1e-12, atol=1e-12)
    found = gradients(kl, gradient, hidden, *own)
    for one, expected in zip(found, gradients(plain(hidden), gradient, hidden, *own), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        step = torch.zeros_like(hidden)
        step[:, 3] = 1e-5
        slope = (plain(hidden + step) - plain(hidden - step)) / 2e-5
    torch.testing.assert_close(found[0][:, 3], slope * gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("large", [1, 1 << 13], ids=["kernel", "torch"])
def test_large_logits_lose_nothing(large, monkeypatch):
    """A thousand added to every logit, and a certain token: p and the entropy do not move; the rest is 1000
    nats away."""
    monkeypatch.setattr(distributions, "LARGE", large)
    logits = torch.tensor([[1000.0, 1000.0 + math.log(3)], [-1000.0, -1000.0], [0.0, 1000.0]])
    logp, entropy = objectives.logprobs_of(lambda x: x, logits, torch.tensor([0, 1, 0]), 2)
    # float32 holds ln 3 + 1000 to 3e-5
    assert logp.tolist() == pytest.approx([-math.log(4), -math.log(2), -1000.0], abs=1e-4)
    assert entropy.tolist() == pytest.approx([math.log(4) - 0.75 * math.log(3), math.log(2), 0.0], abs=1e-4)


@pytest.mark.skipif(library() is None, reason=why_not())
@pytest.mark.parametrize("words", [7, 128, 1001])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_of_a_large_vocabulary_the_kernel_says_what_pytorch_says(words, kind, monkeypatch):
    """Widths that fill no vector, one sum and several; a word that nobody says, and a row that is not a
    number."""
    generator = torch.Generator().manual_seed(2)
    logits = (4 * torch.randn(6, words, generator=generator)).to(kind)
    logits[1, 3], logits[4, 2] = -1e30, float("nan")
    ids = torch.randint(0, words, (6,), generator=generator)
    wanted = distributions.logp_of(logits, ids, descent=True)
    monkeypatch.setattr(distributions, "LARGE", 1)
    monkeypatch.setattr(distributions, "_logp", None)  # not asked
    close = dict(rtol=1e-5, atol=rounding([8.0]), equal_nan=True)
    for found, expected in zip(distributions.logp_of(logits, ids, descent=True), wanted, strict=True):
        torch.testing.assert_close(found, expected, **close)
        assert found[4].isnan().all() and not found[[0, 1, 2, 3, 5]].isnan().any()
    assert wanted[2][1, 3] == 0 and distributions.logp_of(logits, ids)[2] is None
    with pytest.raises(IndexError, match=f"token {words} of {words}"):
        distributions.logp_of(logits, torch.full((6,), words))


@pytest.mark.parametrize("rows", [1, 4, 23])
def test_blocks_change_nothing(rows, monkeypatch):
    hidden, ids, gradient = inputs(torch.float32)
    results = []
    for floats in (1 << 18, rows * WIDTH):
        monkeypatch.setattr(distributions, "CPU_BLOCK", floats)
        logp, entropy = objectives.logprobs_of(lambda x: x, hidden, ids, WIDTH)
        kl = objectives.kl_of(lambda x: x, hidden.detach().flip(0), lambda x: x, hidden, WIDTH)
        results.append(
            [logp, entropy, kl, *gradients(logp, gradient, hidden), *gradients(kl, gradient, hidden)]
        )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=rounding([1.0]))


@pytest.mark.parametrize(("way", "kind"), [(ROUNDED, torch.float32), (DOTS, torch.bfloat16)])
def test_a_large_head_is_not_emulated_in_bf16(way, kind, monkeypatch):
    if library() is None:
        pytest.skip("the kernels are not built here")
    monkeypatch.setattr(heads, "LARGE", 16)
    monkeypatch.setattr(library(), "products", library().products._replace(way=way))
    head, _ = head_of("plain", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(inputs(torch.float32)[0]).dtype == kind


@pytest.mark.parametrize("kind", ["plain", "tied", "frozen", "adapter"])
def test_bf16_logits_are_raised_and_their_gradient_is_theirs(kind, monkeypatch, small_blocks):
    """The head in bf16, everything after it in float32: what a plain log-softmax makes of the same bf16
    logits. The backward pass comes from another thread, in which autocast is off: as on a GPU."""
    head, own = head_of(kind, torch.float32)
    hidden, ids, gradient = inputs(torch.float32)

    def forward(of):
        with torch.autocast("cpu", torch.bfloat16):
            return of()

    logits = forward(lambda: head(hidden))
    wanted = logits.float().log_softmax(-1)
    expected = gradients(wanted.gather(-1, ids[:, None])[:, 0], gradient, hidden, *own)
    for floats in PATHS.values():
        monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
        logp, entropy = forward(lambda: objectives.logprobs_of(head, hidden, ids, SIZE))
        assert logits.dtype == torch.bfloat16 and logp.dtype == entropy.dtype == torch.float32
        torch.testing.assert_close(logp, wanted.gather(-1, ids[:, None])[:, 0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(entropy, -(wanted.exp() * wanted).sum(-1), rtol=1e-5, atol=1e-5)
        with ThreadPoolExecutor(1) as elsewhere:
            again = elsewhere.submit(gradients, logp, gradient, hidden, *own).result()
        for found, whole in zip(again, expected, strict=True):
            assert found.dtype == torch.float32
            assert (found - whole).norm() < 0.01 * whole.norm()  # each part was rounded to 8 bits


# Gradients, however they are taken --------------------------------------------------------------------------


@pytest.mark.parametrize("floats", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("kind", ["plain", "frozen"])
def test_a_second_backward_pass_is_refused_or_right(kind, floats, monkeypatch):
    """What was kept is overwritten by the first; where logits are computed again, nothing was. Second
    derivatives there are none."""
    monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
    head, _ = head_of(kind, torch.float32)
    hidden, ids, _ = inputs(torch.float32)
    logp, _ = objectives.logprobs_of(head, hidden, ids, SIZE)
    (first,) = torch.autograd.grad(logp.sum(), hidden, retain_graph=True)
    if kind == "plain" and floats <= 2 * SIZE:
        torch.testing.assert_close(torch.autograd.grad(logp.sum(), hidden)[0], first)
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(logp.sum(), hidden)
    logp, _ = objectives.logprobs_of(head, hidden, ids, SIZE)
    (found,) = torch.autograd.grad(logp.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found.square().sum().backward()


@pytest.mark.parametrize("policy", ["base", "plan"])
@pytest.mark.parametrize("targets", [(), ("lm_head", "q_proj")])
def test_gradients_set_aside_and_combined_do_not_depend_on_the_chunk(policy, targets, monkeypatch):
    fields, objective = STREAMS["pg with ref_kl"]
    halves = [Batch(policy=policy, segments=tuple(forest(seed, **fields))) for seed in (8, 9)]
    results = []
    for floats in (1 << 24, 7 * SIZE):
        monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
        engine = engine_of(model_of(tie_word_embeddings=not targets), targets=targets)
        engine.fork("base", "plan")
        stir(engine, "plan")
        engine.prepare(policy, OptimSpec())
        for name, half in zip("ab", halves, strict=True):
            engine.forward_backward(half, objective)
            engine.set_aside(policy, name)
        cosine = engine.conflict(policy, "a", "b")["all"]
        engine.combine(policy, ["a", "b"], "pcgrad", seed=1)
        results.append(
            (
                cosine,
                {
                    k: p.grad.clone()
                    for k, p in engine.weights.parameters(policy).items()
                    if p.grad is not None
                },
            )
        )
    # as near as the gradients are
    assert results[0][0] == pytest.approx(results[1][0], abs=2e-5) and len(results[0][1]) > 3
    close(results[0][1], results[1][1])


# What it costs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "floats", "calls"),
    [
        ("plain", 1 << 24, 1),
        ("frozen", 1 << 24, 1),
        ("plain", 5 * SIZE, 1 + 5),  # one token asks whether the head trains; the chunks of 23 tokens
        ("plain", 2 * SIZE, 1 + 12 + 12),  # each twice
        ("adapter", 2 * SIZE, 1 + 12 + 12),
        ("frozen", 2 * SIZE, 1 + 12),  # no logit is computed again
    ],
)
def test_how_often_the_head_is_computed(kind, floats, calls, monkeypatch):
    monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
    head, _ = head_of(kind, torch.float32)
    hidden, ids, _ = inputs(torch.float32)
    seen = []
    logp, _ = objectives.logprobs_of(lambda x: seen.append(len(x)) or head(x), hidden, ids, SIZE)
    logp.sum().backward()
    assert len(seen) == calls and max(seen) == min(23, floats // SIZE)
    seen.clear()
    with torch.no_grad():
        objectives.logprobs_of(lambda x: seen.append(len(x)) or head(x), hidden, ids, SIZE)
    assert sum(seen) == 23


@pytest.mark.parametrize(
    ("frozen", "floats", "kept"),
    [
        (False, 1 << 24, [23 * SIZE]),  # p - onehot, in float32
        (True, 1 << 24, [23 * SIZE]),
        (False, 5 * SIZE, [5 * SIZE] * 4 + [3 * SIZE]),
        (False, 2 * SIZE, []),
        (True, 5 * SIZE, []),
    ],
)
def test_what_is_kept_for_the_backward_pass(frozen, floats, kept, monkeypatch):
    """Of the size of the logits: one tensor a chunk where there are few, none where there are many. Where the
    head is frozen, a direction a token beside it."""
    monkeypatch.setattr(objectives, "CHUNK_FLOATS", floats)
    head = torch.nn.Linear(WIDTH - 1, SIZE, bias=False).requires_grad_(not frozen)
    hidden, ids, _ = inputs(torch.float32)
    hidden = hidden[:, 1:].detach().requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        objectives.logprobs_of(head, hidden, ids, SIZE)
    assert [x.numel() for x in saved if x.shape[-1] == SIZE and len(x) <= 23] == kept
    assert all(x.dtype == torch.float32 for x in saved if x.is_floating_point())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("what", ["logprobs", "kl"])
def test_memory_does_not_grow_with_tokens_times_vocabulary(frozen, what, monkeypatch):
    """From 4 to 32 times a chunk: log-probs hold the logits of one chunk and what becomes of them, KL two
    distributions of half the tokens and that. On top of this comes what is as long as the tokens (forty
    numbers each), and the head's gradient, twice. All tokens at once are whole multiples of tokens x
    vocabulary."""
    chunk, block, width = 1 << 16, 1 << 12, 4
    monkeypatch.setattr(objectives, "CHUNK_FLOATS", chunk)
    monkeypatch.setattr(distributions, "CPU_BLOCK", block)
    for vocabulary in (512, 2048):
        head = torch.nn.Linear(width, vocabulary, bias=False).requires_grad_(not frozen)
        other = torch.nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
        for tokens in (512, 1024):
            hidden, ids = (
                torch.randn(tokens, width, requires_grad=True),
                torch.randint(0, vocabulary, (tokens,)),
            )
            first = torch.randn(tokens, width)

            def ours():
                value = (
                    objectives.logprobs_of(head, hidden, ids, vocabulary)[0]
                    if what == "logprobs"
                    else objectives.kl_of(other, first, head, hidden, vocabulary)
                )
                value.sum().backward()

            def plain():
                value = head(hidden).log_softmax(-1)
                (
                    value.gather(-1, ids[:, None])
                    if what == "logprobs"
                    else -other(first).softmax(-1) * value
                ).sum().backward()

            allowed = 2 * chunk + 4 * max(block, vocabulary) + 2 * vocabulary * width + 40 * tokens
            assert allocated(ours) < 4 * allowed, (vocabulary, tokens)
            head.weight.grad = hidden.grad = None
            assert allocated(plain) > 4 * 2 * tokens * vocabulary > 4 * allowed
            head.weight.grad = hidden.grad = None


def test_a_chunk_is_larger_on_a_gpu():
    cpu, gpu = (objectives.chunk_rows(1000, torch.device(name)) for name in ("cpu", "cuda"))
    assert cpu == 16777 and gpu == 4 * 16777216 // 1000
    assert objectives.chunk_rows(1000, torch.device("cpu"), held=2) == 8388
    assert objectives.chunk_rows(1 << 30, torch.device("cpu")) == 1  # a token at least
