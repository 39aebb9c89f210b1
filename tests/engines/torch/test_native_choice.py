"""The next token: the kernel and PyTorch draw the same one for the same uniform number, with log-probs that
stand here by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tolerance import rounding

from forethought.engines.torch.forest.native.library import library, why_not
from forethought.engines.torch.forest.native.rows import Settings
from forethought.engines.torch.forest.native.train import crew
from forethought.engines.torch.sampling import choice
from forethought.engines.torch.sampling.choice import Choice

BY = [
    pytest.param(True, id="kernel", marks=pytest.mark.skipif(library() is None, reason=why_not())),
    pytest.param(False, id="torch"),
]
INF, NAN = float("inf"), float("nan")
LARGEST = 1 - 2**-53  # of the uniform numbers


def choose(kernels: bool, logits, uniform=0.5, temperature=1.0, top_p=1.0, repeats=None, min_p=0.0, top_k=0):
    """(tokens, log-probs, log-probs as drawn), lists."""
    logits = torch.as_tensor(logits, dtype=torch.float32)
    rows = int(np.sum(repeats)) if repeats is not None else len(logits)
    kinds = (np.float32, np.float32, np.float32, np.int64)
    asked = zip((temperature, top_p, min_p, top_k), kinds, strict=True)
    settings = Settings(*(np.full(rows, x, kind) for x, kind in asked))
    repeats = repeats if repeats is None else np.array(repeats)
    return [x.tolist() for x in Choice(kernels)(logits, repeats, np.full(rows, uniform, float), settings)]


THREE = [[math.log(x) for x in (0.2, 0.5, 0.3)]]


@pytest.mark.parametrize("kernels", BY)
@pytest.mark.parametrize(
    ("uniform", "fields", "token", "logp", "drawn"),
    [
        (0.0, {}, 0, 0.2, 0.2),
        (0.1999, {}, 0, 0.2, 0.2),
        (0.2001, {}, 1, 0.5, 0.5),
        (0.6999, {}, 1, 0.5, 0.5),
        (0.7001, {}, 2, 0.3, 0.3),
        (LARGEST, {}, 2, 0.3, 0.3),
        (0.9, {"temperature": 0.0}, 1, 0.5, 1.0),
        (0.9, {"temperature": 0.0, "top_p": 0.1}, 1, 0.5, 1.0),
        (0.104, {"temperature": 0.5}, 0, 0.2, 4 / 38),  # squares: 4, 25 and 9 of 38
        (0.106, {"temperature": 0.5}, 1, 0.5, 25 / 38),
        (0.9, {"temperature": 0.5}, 2, 0.3, 9 / 38),
        (0.0, {"top_p": 0.79}, 1, 0.5, 0.5 / 0.8),  # 0.5 and 0.3 are the fewest that hold 0.79
        (0.63, {"top_p": 0.79}, 2, 0.3, 0.3 / 0.8),
        (0.0, {"top_p": 0.81}, 0, 0.2, 0.2),  # all three are needed
        (0.99, {"top_p": 0.49}, 1, 0.5, 1.0),
        (0.99, {"top_p": 1e-6}, 1, 0.5, 1.0),
        (0.7, {"temperature": 0.5, "top_p": 0.7}, 1, 0.5, 25 / 34),  # of 25, 9 and 4 the first two
        (0.74, {"temperature": 0.5, "top_p": 0.7}, 2, 0.3, 9 / 34),
        (0.99, {"top_k": 1}, 1, 0.5, 1.0),
        (0.62, {"top_k": 2}, 1, 0.5, 0.5 / 0.8),
        (0.63, {"top_k": 2}, 2, 0.3, 0.3 / 0.8),
        (0.1, {"top_k": 3}, 0, 0.2, 0.2),
        (0.1, {"top_k": 1 << 40}, 0, 0.2, 0.2),
        (0.62, {"min_p": 0.5}, 1, 0.5, 0.5 / 0.8),  # 0.2 is less than half of 0.5
        (0.99, {"min_p": 1.0}, 1, 0.5, 1.0),
        (0.1, {"min_p": 0.39}, 0, 0.2, 0.2),
        (0.99, {"temperature": 0.5, "min_p": 0.39}, 1, 0.5, 1.0),  # 9 is less than 0.39 of 25
        (0.99, {"top_k": 2, "top_p": 0.62}, 1, 0.5, 1.0),  # 0.5 is more than 0.62 of 0.8
        (0.99, {"top_k": 2, "top_p": 0.63}, 2, 0.3, 0.3 / 0.8),
        (0.99, {"top_p": 0.81, "min_p": 0.5}, 2, 0.3, 0.3 / 0.8),  # 0.81 needs all three
        (0.9, {"temperature": 0.0, "top_k": 2, "min_p": 0.1}, 1, 0.5, 1.0),
    ],
)
def test_by_hand(kernels, uniform, fields, token, logp, drawn):
    found = choose(kernels, THREE, uniform, **fields)
    assert found[0] == [token]
    assert [found[1][0], found[2][0]] == pytest.approx([math.log(logp), math.log(drawn)], abs=1e-6)


@pytest.mark.parametrize("kernels", BY)
def test_each_row_has_its_own_number_and_shape_and_lines_are_repeated(kernels):
    logits = THREE + [[math.log(x) for x in (0.6, 0.1, 0.3)]]
    found = choose(
        kernels, logits, [0.1, 0.3, 0.9, 0.9], [1.0, 1.0, 0.0, 1.0], [1.0, 0.49, 1.0, 0.59], repeats=[3, 1]
    )
    assert found[0] == [0, 1, 1, 0]
    assert found[1] == pytest.approx([math.log(x) for x in (0.2, 0.5, 0.5, 0.6)], abs=1e-6)
    assert found[2] == pytest.approx([math.log(0.2), 0, 0, 0], abs=1e-6)


@pytest.mark.skipif(library() is None, reason=why_not())
@pytest.mark.parametrize("vocabulary", [1, 5, 128, 129, 50_000])
@pytest.mark.parametrize(
    ("top_p", "fields"),
    [(1.0, {}), (0.9, {}), (0.1, {}), (1.0, {"top_k": 40}), (0.9, {"top_k": 40, "min_p": 0.02})],
    ids=str,
)
def test_the_kernel_draws_what_pytorch_draws(vocabulary, top_p, fields):
    """Mixed temperatures; the formulas in float64 beside both."""
    rows = 24 if vocabulary > 1000 else 200
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(rows, vocabulary, generator=generator)
    uniform = torch.rand(rows, generator=generator, dtype=torch.float64).numpy()
    temperature = np.array([0.0, 0.3, 1.0, 2.0] * (rows // 4), dtype=np.float32)
    kernel, twin = (choose(k, logits, uniform, temperature, top_p, **fields) for k in (True, False))
    assert kernel[0] == twin[0]
    logp = logits.double().log_softmax(-1).gather(-1, torch.tensor(kernel[0])[:, None])[:, 0]
    within = rounding([logits.abs().max().item() / 0.3], steps=4)  # of a logit over the lowest temperature
    # PyTorch adds the nucleus up in float32, one after another
    summed = rounding([1.0], steps=int(8 * vocabulary**0.5))
    for t in range(4):
        p = (logits[t::4].double() / float(temperature[t] or 1)).softmax(-1)
        ordered, order = p.sort(-1, descending=True)
        ordered[:, fields.get("top_k", vocabulary) :] = 0
        ordered /= ordered.sum(-1, keepdim=True)
        kept = ordered.cumsum(-1) - ordered < np.float32(top_p)
        kept &= ordered >= fields.get("min_p", 0) * ordered[:, :1]
        p.scatter_(-1, order, ordered.where(kept, 0))
        drawn = (p / p.sum(-1, keepdim=True)).gather(-1, torch.tensor(kernel[0][t::4])[:, None])[:, 0]
        wanted = drawn.log() if t else torch.zeros(rows // 4)
        assert kernel[2][t::4] == pytest.approx(wanted.tolist(), abs=within)
        assert twin[2][t::4] == pytest.approx(wanted.tolist(), abs=within + summed)
    assert kernel[1] == pytest.approx(logp.tolist(), abs=within)


@pytest.mark.parametrize("kernels", BY)
def test_tokens_come_as_often_as_their_probability_says(kernels):
    """Evenly spaced uniform numbers give each token its share to within one."""
    n = 10_000
    tokens = choose(kernels, THREE, (np.arange(n) + 0.5) / n, repeats=[n])[0]
    assert np.abs(np.bincount(tokens) - np.array([2000, 5000, 3000])).max() <= 1


@pytest.mark.parametrize("kernels", BY)
@pytest.mark.parametrize("vocabulary", [3, 40, 300])
@pytest.mark.parametrize(
    "fields",
    [{}, {"temperature": 0.3}, {"top_p": 0.9}, {"temperature": 0.0}, {"top_k": 2}, {"min_p": 0.1}],
    ids=str,
)
def test_a_masked_token_is_never_drawn(kernels, vocabulary, fields):
    """Minus infinity: probability 0, at either end of the vocabulary and of the uniform numbers."""
    for open_ in (0, vocabulary // 2, vocabulary - 1):
        logits = torch.full((3, vocabulary), -INF)
        logits[:, open_] = 1.5
        assert choose(kernels, logits, [0.0, 0.5, LARGEST], **fields) == [[open_] * 3, [0.0] * 3, [0.0] * 3]


@pytest.mark.parametrize("kernels", BY)
@pytest.mark.parametrize("vocabulary", [3, 40, 300])
@pytest.mark.parametrize(
    "fields",
    [{}, {"temperature": 0.3}, {"top_p": 0.5}, {"temperature": 0.0}, {"top_k": 2}, {"min_p": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("bad", [NAN, -NAN, INF])
def test_logits_that_are_no_distribution_give_nan(kernels, vocabulary, fields, bad):
    """Wherever they stand; the token is one of the vocabulary still, and the rows beside are as before."""
    good = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(0))
    alone = choose(kernels, good, **fields)
    for place in (0, 1, vocabulary - 1):
        broken = good.clone()
        broken[0, place] = bad
        tokens, logp, drawn = choose(kernels, torch.cat([good, broken, good]), **fields)
        assert math.isnan(logp[1]) and 0 <= tokens[1] < vocabulary
        assert [[tokens[i], logp[i], drawn[i]] for i in (0, 2)] == [[x[0] for x in alone]] * 2
    assert math.isnan(choose(kernels, torch.full((1, vocabulary), -INF), **fields)[1][0])


@pytest.mark.parametrize("kernels", BY)
def test_ties(kernels):
    """The mode is the first of the likeliest; of equals a nucleus keeps as many as it needs, the first
    ones."""
    for vocabulary in (4, 200):
        flat = torch.zeros(1, vocabulary)
        half = vocabulary // 2
        assert choose(kernels, flat, temperature=0.0)[0] == [0]
        assert choose(kernels, flat, LARGEST)[0] == [vocabulary - 1]
        tokens, logp, drawn = choose(kernels, flat, LARGEST, top_p=0.5)
        assert tokens == [half - 1]
        assert [logp[0], drawn[0]] == pytest.approx([-math.log(vocabulary), -math.log(half)], abs=1e-6)
        assert choose(kernels, flat, LARGEST, top_k=3)[0] == [2]
        assert choose(kernels, flat, LARGEST, min_p=1.0)[0] == [vocabulary - 1]


def nucleus(logits: list[float], temperature: float, top_p: float) -> set[int]:
    """By the definition: sorted, the likeliest first and of equals the first, until they hold `top_p`."""
    most = max(logits)
    p = [math.exp((x - most) / temperature) for x in logits]
    before, kept = 0.0, set()
    for i in sorted(range(len(p)), key=lambda i: (-p[i], i)):
        if before < top_p * sum(p):
            kept.add(i)
        before += p[i]
    return kept


@pytest.mark.parametrize("kernels", [*BY, pytest.param(None, id="device")])
@pytest.mark.parametrize("vocabulary", [1, 2, 15, 16, 33, 140])
def test_a_nucleus_is_what_sorting_finds(kernels, vocabulary, monkeypatch):
    """Few different logits, so that most are equals; every token of the nucleus can be drawn, and no other.
    Each probability is a whole number of halves of another: no sum is rounded. `kernels` None: by PyTorch as
    on a device, where nothing is looked at on the way."""
    if kernels is None:
        monkeypatch.setattr(choice, "at_hand", lambda x: False)
    rng = np.random.default_rng(vocabulary)
    for top_p, spread in ((0.1, 1), (0.5, 2), (0.9, 3), (0.999, 6), (0.6, 12)):
        # powers of two in float32, as the kernel and PyTorch see them to within rounding
        halvings = rng.integers(0, spread + 1, vocabulary)
        logits = (-halvings * math.log(2)).tolist()
        n = 4 * vocabulary << spread if spread < 5 else 40 * vocabulary
        uniform = (np.arange(n) + 0.5) / n
        wanted = nucleus([-h * math.log(2) for h in halvings.tolist()], 1.0, top_p)
        drawn = set(choose(kernels, [logits], uniform, top_p=top_p, repeats=[n])[0])
        assert drawn <= wanted
        assert spread > 4 or drawn == wanted


@pytest.mark.skipif(library() is None, reason=why_not())
def test_threads_change_no_choice():
    logits = 3 * torch.randn(9, 20_000, generator=torch.Generator().manual_seed(0))
    uniform, top_p = np.linspace(0, LARGEST, 9), np.array([1.0, 0.9, 0.5] * 3, np.float32)
    found = []
    for crew.threads in (1, 2, 5):
        found.append(choose(True, logits, uniform, 0.7, top_p))
    crew.threads = 1
    assert found[1:] == found[:1] * 2


@pytest.mark.parametrize("kernels", BY)
def test_far_apart_logits(kernels):
    """e^-200 is 0 in float32: such a token is not drawn, and the likely one's log-prob is 0; large common
    offsets change nothing."""
    assert choose(kernels, [[-200.0, 0.0, -200.0]] * 2, [0.0, LARGEST]) == [[1, 1], [0.0, 0.0], [0.0, 0.0]]
    for offset in (-3e4, 3e4):
        tokens, logp, drawn = choose(kernels, [[offset, offset + 1.0]], 0.2)
        assert tokens == [0] and [logp[0], drawn[0]] == pytest.approx([-math.log(1 + math.e)] * 2, abs=1e-6)
