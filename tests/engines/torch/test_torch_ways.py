"""In which precision and by which code a model is computed: what can be had, what is faster by made-up
clocks, and what is kept."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

import torch  # noqa: E402
import torch_kit  # noqa: E402

from forethought.engines.torch.forest.decoder import decoder_of  # noqa: E402
from forethought.engines.torch.forest.native import library as native  # noqa: E402
from forethought.engines.torch.machine import device as machine  # noqa: E402
from forethought.engines.torch.machine import ways
from forethought.engines.torch.machine.ways import Way  # noqa: E402
from forethought.recipe.schema import EngineSpec  # noqa: E402

C32, C16, T32, T16 = (Way(bf16, kernels) for kernels in (True, False) for bf16 in (False, True))
LLAMA = {"head_dim": 16, "hidden_size": 64}  # heads of whole vectors, so that the kernels compute it


@pytest.fixture(scope="module")
def untimed():
    """Not here: what times is what is tested."""


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """And the process computes as it did before."""
    monkeypatch.setattr(ways, "_known", {})
    yield
    machine.crew.threads, machine.crew.layers = 1, True


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "forethought").mkdir(mode=0o700)
    return tmp_path / "forethought"


@pytest.fixture
def bf16_kernels(monkeypatch):
    """A model that the kernels compute."""
    monkeypatch.setattr(ways, "in_c", lambda model: True)


@pytest.mark.parametrize(
    ("precision", "layers", "fast", "found"),
    [
        ("auto", "auto", True, [C32, C16, T32, T16]),
        ("auto", "auto", False, [C32, T32]),  # emulated bf16 is not even timed
        ("fp32", "auto", True, [C32, T32]),
        ("bf16", "auto", False, [C16, T16]),  # what is asked for is had
        ("auto", "c", True, [C32, C16]),
        ("bf16", "torch", True, [T16]),
    ],
)
def test_what_can_be_had_follows_from_the_recipe_and_the_machine(
    bf16_kernels, precision, layers, fast, found
):
    assert ways.ways(precision, layers, object(), fast) == found


def test_a_model_that_the_kernels_do_not_compute_has_pytorchs_ways():
    model = torch_kit.model_of("gpt2")
    assert ways.ways("auto", "auto", model, True) == [T32, T16] and ways.ways("auto", "c", model, False) == [
        T32
    ]
    assert ways.choose([T32, T16], model) == (T32, "not timed: the model runs through its own modules")


@pytest.mark.parametrize(
    ("took", "chosen"),
    [
        ({C32: 1.0, C16: 0.9}, C32),  # 10 % are not enough
        ({C32: 1.0, C16: 0.8}, C16),
        ({C32: 1.0, C16: 1.5, T32: 2.0, T16: 0.7}, T16),
        ({C32: 1.0, C16: 0.8, T32: 0.9, T16: 0.75}, C16),  # against what was taken so far
    ],
)
def test_another_way_must_save_its_share(took, chosen):
    assert ways.best(took) == chosen


def test_threads_count_for_who_has_them():
    """A layer that PyTorch computes faster on one thread: the kernels share theirs, PyTorch trains a small
    model on one."""
    took = {C32: 1.0, T16: 0.8}
    assert [ways.best(took, *threads) for threads in ((1, 1), (2, 1), (2, 2), (1, 2))] == [T16, C32, T16, T16]
    assert ways.best({C32: 1.0, T16: 0.5}, 2, 1) == T16


def test_rounds_alternate_and_the_least_counts(monkeypatch):
    """Whoever is disturbed in one round is not in the next."""
    now, order = [0.0], []
    costs = {C32: iter([9, 5, 1, 5, 5]), T32: iter([9, 2, 2, 2, 9])}  # the first is the warm-up

    def work(decoder, way):
        def do():
            order.append(way)
            now[0] += next(costs[way])

        return do

    monkeypatch.setattr(ways, "_work", work)
    monkeypatch.setattr(ways, "SECONDS", 0.0)
    assert ways.timed(None, [C32, T32], lambda: now[0]) == {C32: 1, T32: 2}
    assert order == [C32, T32] * 4


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_a_layer_is_really_timed_and_the_model_stays_as_it_was():
    model = torch_kit.model_of("llama", **LLAMA)
    for p in list(model.parameters())[::2]:
        p.requires_grad_(False)
    before = [(p.clone(), p.requires_grad) for p in model.parameters()]
    state = torch.random.get_rng_state()
    took = ways.timed(decoder_of(model), [C32, T32, T16])
    assert set(took) == {C32, T32, T16} and all(0 < s < 10 for s in took.values())
    for p, (value, wanted) in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, value) and p.requires_grad == wanted and p.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_answer_is_kept_for_the_machine(cache, monkeypatch):
    asked = []
    monkeypatch.setattr(
        ways, "timed", lambda decoder, candidates: asked.append(1) or {C32: 0.010, T32: 0.004}
    )
    model = torch_kit.model_of("llama", **LLAMA)
    way, why = ways.choose([C32, T32], model)
    assert way == T32 and "c fp32 10.0 ms, torch fp32 4.0 ms; another must save 15%" in why
    ways._known.clear()  # as in the next process
    assert ways.choose([C32, T32], model) == (way, why) and len(asked) == 1
    ways.choose([C32, T16], model)  # another question
    ways.choose([C32, T32], torch_kit.model_of("llama", **LLAMA, intermediate_size=96))  # another shape
    assert len(asked) == 3 and len(list(cache.glob("ways-*.json"))) == 3
    monkeypatch.setattr(native, "processor", lambda: "another processor")
    ways.choose([C32, T32], model)
    assert len(asked) == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "null",
        '{"took": 3}',
        '{"when": 1, "took": []}',
        '{"when": 1, "took": [[0, 1, "x"]]}',
        '{"when": 1, "took": [[0, 1, -1.0]]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_answer_is_timed_anew(cache, monkeypatch, text):
    monkeypatch.setattr(ways, "timed", lambda decoder, candidates: {C32: 0.010, T32: 0.004})
    model = torch_kit.model_of("llama", **LLAMA)
    ways.choose([C32, T32], model)
    [path] = cache.glob("ways-*.json")
    path.write_text(text)
    ways._known.clear()
    assert ways.choose([C32, T32], model)[0] == T32
    assert len(json.loads(path.read_text())["took"]) == 2


def test_no_cache_folder_costs_the_time_only(monkeypatch):
    monkeypatch.setattr(ways, "timed", lambda decoder, candidates: {C32: 0.010, T32: 0.004})
    monkeypatch.setattr(ways.cache, "folder_of", lambda name: (_ for _ in ()).throw(OSError("nowhere")))
    assert ways.choose([C32, T32], torch_kit.model_of("llama", **LLAMA))[0] == T32


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_an_engine_says_and_does_what_was_chosen(cache, monkeypatch):
    monkeypatch.setattr(ways, "timed", lambda decoder, candidates: {C32: 0.010, T32: 0.004})
    facts = torch_kit.engine_of(torch_kit.model_of("llama", **LLAMA), precision="auto", layers="auto").facts()
    assert (facts["precision"], facts["layers"]) == ("fp32", "torch") and facts["precision/why"].startswith(
        "timed 20"
    )
    on = machine.prepare(
        EngineSpec(device="cpu", precision="fp32", layers="c"), torch_kit.model_of("llama", **LLAMA)
    )
    assert on.layers and on.way == "the only way here, or given"
    with on.autocast():
        assert machine.crew.layers and machine.crew.threads == on.kernels
