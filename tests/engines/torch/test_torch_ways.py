"""In which precision and by which code a model is computed: what can be had, what is faster by made-up
clocks, and what is kept."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

import torch  # noqa: E402
import torch_kit  # noqa: E402

from forethought.core.types import Request  # noqa: E402
from forethought.engines.torch.forest.decoder import decoder_of  # noqa: E402
from forethought.engines.torch.forest.native import instructions  # noqa: E402
from forethought.engines.torch.forest.native import library as native  # noqa: E402
from forethought.engines.torch.machine import device as machine  # noqa: E402
from forethought.engines.torch.machine import measured, ways
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
    monkeypatch.setattr(measured, "_known", {})
    yield
    machine.crew.threads, machine.crew.layers, machine.crew.sampling = 1, True, True
    native.take("")
    native.library()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "forethought").mkdir(mode=0o700)
    return tmp_path / "forethought"


@pytest.fixture
def bf16_kernels(monkeypatch):
    """A model that the kernels compute."""
    monkeypatch.setattr(ways, "in_c", lambda model: True)
    monkeypatch.setattr(native, "rivals", lambda: ("",))


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
    costs = {"c": iter([9, 5, 1, 5, 5]), "torch": iter([9, 2, 2, 2, 9])}  # the first is the warm-up

    def work(name):
        def do():
            order.append(name)
            now[0] += next(costs[name])

        return do

    monkeypatch.setattr(measured, "SECONDS", 0.0)
    assert measured.least({name: work(name) for name in costs}, lambda: now[0]) == {"c": 1, "torch": 2}
    assert order == ["c", "torch"] * 4


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_a_layer_is_really_timed_and_the_model_stays_as_it_was():
    model = torch_kit.model_of("llama", **LLAMA)
    for p in list(model.parameters())[::2]:
        p.requires_grad_(False)
    before = [(p.clone(), p.requires_grad) for p in model.parameters()]
    state = torch.random.get_rng_state()
    took = ways.timed(decoder_of(model), [C32, T32, T16]) | ways.timed_rows(decoder_of(model), False)
    assert set(took) == {"c fp32", "torch fp32", "torch bf16", "c", "torch"} and all(
        0 < s < 10 for s in took.values()
    )
    for p, (value, wanted) in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, value) and p.requires_grad == wanted and p.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


def layers_take(monkeypatch, **took: float) -> list:
    """What a layer takes by each way, made up; returns with what was asked."""
    asked = []

    def timed(decoder, candidates):
        asked.append(candidates)
        return {str(way): took[f"{'c' if way.kernels else 'torch'}"] for way in candidates}

    monkeypatch.setattr(ways, "timed", timed)
    return asked


def test_the_answer_is_kept_for_the_machine(cache, monkeypatch):
    asked = layers_take(monkeypatch, c=0.010, torch=0.004)
    model = torch_kit.model_of("llama", **LLAMA)
    way, why = ways.choose([C32, T32], model)
    assert way == T32 and "c fp32 10.0 ms, torch fp32 4.0 ms; another must save 15%" in why
    measured._known.clear()  # as in the next process
    assert ways.choose([C32, T32], model) == (way, why) and len(asked) == 1
    ways.choose([C32, T16], model)  # another question
    ways.choose([C32, T32], torch_kit.model_of("llama", **LLAMA, intermediate_size=96))  # another shape
    assert len(asked) == 3 and len(list(cache.glob("ways-*.json"))) == 3


@pytest.mark.parametrize("moved", ["processor", "cores", "torch", "kernels"])
def test_a_choice_of_another_machine_is_left_aside_and_that_is_said(cache, monkeypatch, moved):
    asked = layers_take(monkeypatch, c=0.010, torch=0.004)
    model = torch_kit.model_of("llama", **LLAMA)
    before = ways.choose([C32, T32], model)
    assert before[0] == T32 and "another machine" not in before[1]
    here = measured.fingerprint() | {moved: "elsewhere"}
    monkeypatch.setattr(measured, "fingerprint", lambda: here)
    layers_take(monkeypatch, c=0.001, torch=0.004)
    way, why = ways.choose([C32, T32], model)
    assert way == C32 and len(asked) == 1
    said = f"; a choice that another machine measured is left aside (other {moved})"
    assert why.endswith(
        said if moved in ("processor", "cores") else "must save 15%"
    )  # an update is no machine
    assert len(list(cache.glob("ways-*.json"))) == 2  # the other machine's stays
    measured._known.clear()
    assert ways.choose([C32, T32], model) == (
        C32,
        why.partition("; a choice that")[0],
    )  # its own, from here on


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "null",
        '{"took": 3}',
        '{"when": 1, "took": []}',
        '{"when": 1, "took": [["c fp32", "x"]]}',
        '{"when": 1, "took": [["c fp32", 1.0]]}',
        '{"when": 1, "took": [["c fp32", -1.0], ["torch fp32", 1.0]]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_answer_is_timed_anew(cache, monkeypatch, text):
    layers_take(monkeypatch, c=0.010, torch=0.004)
    model = torch_kit.model_of("llama", **LLAMA)
    ways.choose([C32, T32], model)
    [path] = cache.glob("ways-*.json")
    path.write_text(text)
    measured._known.clear()
    assert ways.choose([C32, T32], model)[0] == T32
    assert len(json.loads(path.read_text())["took"]) == 2
    beside = path.with_name(path.name[: -len("0.json") - 15] + "0" * 16 + ".json")
    beside.write_text(text)  # another machine's, as damaged
    path.unlink()
    measured._known.clear()
    assert ways.choose([C32, T32], model)[0] == T32


def test_no_cache_folder_costs_the_time_only(monkeypatch):
    layers_take(monkeypatch, c=0.010, torch=0.004)
    monkeypatch.setattr(measured.cache, "folder_of", lambda name: (_ for _ in ()).throw(OSError("nowhere")))
    assert ways.choose([C32, T32], torch_kit.model_of("llama", **LLAMA))[0] == T32


# Rows -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
@pytest.mark.parametrize(
    ("took", "threads", "by_c"),
    [
        ({"c": 1.0, "torch": 0.7}, (1, 1), True),  # PyTorch's step costs more around its products
        ({"c": 1.0, "torch": 0.5}, (1, 1), False),
        ({"c": 1.0, "torch": 0.5}, (2, 1), True),  # the kernels share their rows among threads
        ({"c": 1.0, "torch": 2.0}, (1, 2), True),
    ],
)
def test_rows_are_sampled_by_what_forms_products_sooner(cache, monkeypatch, took, threads, by_c):
    monkeypatch.setattr(ways, "timed_rows", lambda decoder, bf16: took)
    model = torch_kit.model_of("llama", **LLAMA)
    chosen, why = ways.choose_sampling("auto", C32, model, *threads)
    assert chosen == by_c and why.startswith("timed 20") and ": products c " in why
    assert ways.choose_sampling("torch", C32, model) == (False, "given")
    assert ways.choose_sampling("c", C32, model) == (True, "given")
    nothing = (False, "the kernels do not compute this model")
    assert ways.choose_sampling("c", C32, torch_kit.model_of("gpt2")) == nothing


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_an_engine_samples_by_what_was_chosen(monkeypatch):
    """The same tokens by either; only the kernels' are the same bits whatever is beside a row."""
    said = {}
    for by in ("c", "torch"):
        engine = torch_kit.engine_of(torch_kit.model_of("llama", **LLAMA, initializer_range=0.3), sampling=by)
        request = Request(policy="base", context=(3, 4, 5), n=2, stops=(), max_tokens=6, seed=0)
        said[by] = [c.token_ids for c in engine.sample([request])[0]]
        assert engine.facts()["sampling"] == engine.chosen()["sampling"] == by and engine.exact == (by == "c")
        steps = engine.kernel_weights._seen["base"].weights
        assert (steps is not None) == (by == "c")
    assert said["c"] == said["torch"]


@pytest.mark.skipif(native.library() is None or not instructions.X86, reason="builds for x86-64")
def test_other_instructions_are_taken_by_the_recipe_and_the_variable_is_stronger(monkeypatch):
    widest = native.library().products
    narrow = instructions.NARROWER[native.library().ft_width()]
    native.take(narrow)
    assert native.library().products == (narrow, instructions.ROUNDED, "")
    assert native.rivals() == ("",)  # what is asked for is had
    native.take("")
    assert native.library().products == widest
    monkeypatch.setenv("FORETHOUGHT_KERNELS", narrow)
    native.take("amx")
    assert native.library().products.name == narrow
    monkeypatch.setenv("FORETHOUGHT_KERNELS", "sse9")
    native.take("plain")
    assert native.library() is None and "FORETHOUGHT_KERNELS=sse9: expected 0, auto, amx" in native.why_not()
    monkeypatch.delenv("FORETHOUGHT_KERNELS")


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_a_layer_is_timed_with_the_instructions_that_are_asked_for(monkeypatch):
    narrow = instructions.NARROWER[native.library().ft_width()]
    native.take(narrow)
    model = torch_kit.model_of("llama", **LLAMA)
    ways.timed(decoder_of(model), [C16, T16])
    assert native.library().products.name == narrow == native._name()


def test_amx_and_what_stands_below_it_are_timed_against_each_other(monkeypatch, bf16_kernels):
    """Narrow matrices fill no tiles."""
    monkeypatch.setattr(native, "rivals", lambda: ("amx", "avx512_bf16"))
    tiles, below = Way(True, True, "amx"), Way(True, True, "avx512_bf16")
    assert ways.ways("bf16", "auto", object(), True) == [tiles, below, T16]
    assert str(below) == "c bf16 avx512_bf16"
    assert ways.best({tiles: 1.0, below: 0.7, T16: 0.9}) == below


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_an_engine_says_and_does_what_was_chosen(cache, monkeypatch):
    layers_take(monkeypatch, c=0.010, torch=0.004)
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
