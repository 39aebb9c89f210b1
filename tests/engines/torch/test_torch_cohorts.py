"""Sampling by PyTorch: shapes that stay give what shapes that follow the rows give, and policies in one batch
what each gives alone."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from tolerance import LOGP, rounding
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch_kit import engine_of, model_of, stir

from forethought.core.types import Batch, Request, Segment
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest.decoder import decoder_of
from forethought.engines.torch.forest.lora import is_lora
from forethought.engines.torch.forest.native.rows import Settings
from forethought.engines.torch.policies import table as policies
from forethought.engines.torch.sampling import choice, decoding, mixed, slots
from forethought.engines.torch.sampling import sampler as sampling
from forethought.engines.torch.sampling.cohorts import Cohorts, places, renumbered
from forethought.engines.torch.sampling.graphs import WARM, Graphs
from forethought.engines.torch.sampling.routes import Routes
from forethought.engines.torch.sampling.sampler import Sampler
from forethought.engines.torch.sampling.slots import Slots, by_torch, padded
from forethought.engines.torch.sampling.stops import Stops

LONG = {"initializer_range": 0.3, "max_position_embeddings": 256}


def ask(context, seed=0, n=2, policy="base", max_tokens=8, **fields) -> Request:
    return Request(
        policy=policy, context=tuple(context), n=n, stops=(), max_tokens=max_tokens, seed=seed, **fields
    )


def tokens(outs) -> list[tuple[int, ...]]:
    return [out.token_ids for out in outs]


def run(steps, requests, rows=1024, eos=(1,)):
    return Sampler(steps, set(eos), rows).run(requests, [Stops(None, ())] * len(requests), 0)


def equal(found, wanted, within: float = LOGP) -> None:
    for outs, others in zip(found, wanted, strict=True):
        assert tokens(outs) == tokens(others)
        for out, other in zip(outs, others, strict=True):
            assert (out.status, out.version) == (other.status, other.version)
            assert out.logprobs == pytest.approx(other.logprobs, abs=within)


# Shapes that stay -------------------------------------------------------------------------------------------

VARIED = [
    ask((3, 4, 5), seed=1, n=3, max_tokens=90),  # a tail longer than the shortest block
    ask((3, 4, 5, 6, 7), seed=2, n=3, max_tokens=3),
    # a longer prefix than the others'
    ask([3 + i % 20 for i in range(70)], seed=3, n=3, max_tokens=20, temperature=0.7),
    ask((9,), seed=4, n=1, max_tokens=12),
    ask((3, 4, 8), seed=5, n=5, top_p=0.8, max_tokens=7),
    *(ask((3, 4, 10 + i), seed=10 + i, n=3, max_tokens=2 + 3 * i) for i in range(8)),
]


def ways(model) -> tuple[Cohorts, Slots]:
    decoder = decoder_of(model)
    return by_torch(model, decoder, static=False), by_torch(model, decoder, static=True)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("rows", [1024, 12, 1])
def test_shapes_that_stay_give_the_same_rows(kind, rows):
    """Rows leave, others enter, contexts move into free slots, blocks grow."""
    model = model_of(kind, **LONG)
    dynamic, static = ways(model)
    wanted = run(dynamic, VARIED, rows)
    equal(run(static, VARIED, rows), wanted)
    assert len({t for outs in wanted for t in tokens(outs)}) > 15
    assert dynamic.live == static.live == 0


def test_by_default_shapes_stay_on_a_gpu_alone():
    model = model_of("llama")
    assert isinstance(by_torch(model, decoder_of(model)), Cohorts)
    # a model that runs through its own modules
    assert isinstance(by_torch(model.to("meta"), None, static=True), Cohorts)


def test_sizes_are_half_octaves():
    assert [padded(i) for i in (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17)] == [
        1,
        2,
        3,
        4,
        6,
        6,
        8,
        12,
        12,
        16,
        16,
        24,
    ]
    assert [padded(i, 64) for i in (1, 64, 65, 96, 97, 129, 200)] == [64, 64, 96, 96, 128, 192, 256]


def test_rows_are_found_wherever_they_stand():
    assert places(np.array([2, -1, 0, 1, -1])).tolist() == [2, 3, 0]
    numbers = renumbered(np.array([True, False, True]))
    assert numbers[np.array([2, -1, 0, 1, -1])].tolist() == [1, -1, 0, -1, -1]


class Recorded:
    """Records steps as lists of tensor operations, which know nothing of Python, as a CUDA graph does not."""

    def __init__(self, fails: bool = False):
        self.warmed = self.replayed = 0
        self.recorded, self.fails = [], fails

    def warm(self, step, given):
        self.warmed += 1
        return step(given)

    def record(self, step, given):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        graph = make_fx(step)(given)
        self.recorded.append([str(node.target) for node in graph.graph.nodes])

        def replay(given):
            self.replayed += 1
            return graph(given)

        return replay


def graphed(model, recorder) -> Slots:
    static = by_torch(model, decoder_of(model), static=True)
    static.graphs = Graphs(recorder)
    return static


@pytest.mark.parametrize("rows", [1024, 6])
def test_a_recorded_step_is_the_step(rows):
    """Replayed without Python: every number that changes from step to step is in the tensors, and none is
    read back."""
    model, recorder = model_of("llama", **LONG), Recorded()
    requests = [r for r in VARIED if r.n == 3][:5]
    equal(run(graphed(model, recorder), requests, rows), run(ways(model)[0], requests, rows))
    assert (
        recorder.replayed > 3 * len(recorder.recorded)
        and recorder.warmed >= WARM * len(recorder.recorded) > 0
    )
    assert not any(
        "_local_scalar_dense" in target or "nonzero" in target
        for graph in recorder.recorded
        for target in graph
    )


def test_shapes_follow_what_is_there_in_few_sizes():
    """Five contexts of two rows take six slots for three steps, and two when three of them have left; the
    tail's 65th token takes the next size."""
    static, keys = ways(model_of("llama", **LONG))[1], Counter()

    class Counted(Graphs):
        def __call__(self, key, step, given):
            keys[key] += 1
            return step(given)

    static.graphs = Counted(None)
    run(static, [ask((3, 4, 5 + i), seed=i, max_tokens=70 if i > 2 else 4) for i in range(5)], eos=())
    assert keys == {(("", 2, 6, 64, 64),): 3, (("", 2, 2, 64, 64),): 61, (("", 2, 2, 64, 96),): 5}


def test_contexts_move_into_free_slots_and_bring_their_rows():
    pool = slots.Pool(2, "")
    kv = lambda n: {0: tuple(torch.arange(n * 4.0).view(n, 1, 4) + x for x in (0, 100))}  # noqa: E731
    index = torch.tensor([[0, 1], [2, 3], [4, 4], [5, 6]])
    done = slots.Prefilled(torch.zeros(4, 1), kv(7), index, [2, 2, 1, 2])
    assert pool.enter(done, np.arange(8), 5) and pool.sizes == (4, 64, 64)
    last = pool.prefix[0][0][3].clone()
    pool.t_C[3] = 7
    pool.keep(renumbered(np.array([0, 0, 0, 0, 0, 0, 0, 1], dtype=bool)))
    assert pool.row_Cn.tolist() == [[-1, 0], [-1, -1], [-1, -1], [-1, -1]] and pool.shape() == (1, 64, 64)
    assert (pool.t_C.tolist(), pool.length_C.tolist()) == ([7, 0, 0, 0], [2, 0, 0, 0])
    assert torch.equal(pool.prefix[0][0][0], last) and last[0, :2].tolist() == [
        [20, 21, 22, 23],
        [24, 25, 26, 27],
    ]
    # nothing was allocated
    assert not pool.enter(slots.Prefilled(torch.zeros(3, 1), kv(5), index[:3], [2, 2, 1]), np.arange(1, 7), 5)
    assert pool.row_Cn.tolist() == [[-1, 0], [1, 2], [3, 4], [5, 6]] and pool.shape() == (4, 64, 64)
    assert pool.enter(done, np.arange(7, 15), 65) and pool.sizes == (8, 64, 128)
    assert torch.equal(pool.prefix[0][0][0], last) and pool.tail[0][1].shape == (8, 2, 1, 128, 4)


def test_what_cannot_be_recorded_is_launched_and_said_once():
    model, recorder = model_of("llama", **LONG), Recorded(fails=True)
    why = (
        r"could not be recorded as a CUDA graph \(operation not permitted when stream is capturing\); "
        r"steps are launched one kernel"
    )
    with pytest.warns(RuntimeWarning, match=why) as said:
        found = run(graphed(model, recorder), VARIED)
    assert len(said) == 1 and recorder.warmed == WARM
    equal(found, run(ways(model)[0], VARIED))


@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_a_step_that_fails_is_no_recording_that_fails(call):
    """What runs out of memory, say, is for who chooses the sizes."""
    calls = []

    def step(given):
        calls.append(0)
        if len(calls) > call:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return given

    class Plain(Recorded):
        def record(self, step, given):
            return step

    graphs = Graphs(Plain())
    with warnings.catch_warnings(), pytest.raises(torch.OutOfMemoryError):
        warnings.simplefilter("error")
        for _ in range(call + 1):
            graphs("a", step, torch.zeros(1))


def test_without_a_recorder_steps_just_run():
    assert Graphs(None)("a", lambda given: given + 1, torch.zeros(1)).tolist() == [1.0]


# Drawing ----------------------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for a device."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.0, 1.0), (0.5, 0.6), (None, None)])
def test_drawing_by_pytorch_is_drawing_by_the_kernel_and_reads_nothing_back_on_the_way(
    temperature, top_p, monkeypatch
):
    """As on a device; where the logits are at hand, looking at them on the way changes no choice."""
    rng = np.random.default_rng(0)
    logits, uniform = torch.from_numpy(rng.normal(0, 3, (40, 50)).astype(np.float32)), rng.random(40)
    heat = (
        np.full(40, temperature, np.float32)
        if temperature is not None
        else rng.choice([0, 0.5, 1, 2], 40).astype(np.float32)
    )
    share = (
        np.full(40, top_p, np.float32)
        if top_p is not None
        else rng.choice([0.3, 0.9, 1], 40).astype(np.float32)
    )
    repeats = np.array([1, 3, 0, 2] * 10)
    more = np.repeat(np.arange(40), repeats)
    least = np.float32([0, 0.01]).repeat(20)[more] if top_p != 1 else np.zeros(len(more), np.float32)
    most = np.array([0, 9, 50, 3]).repeat(10)[more] if top_p != 1 else np.zeros(len(more), np.int64)
    settings = Settings(heat[more], share[more], least, most)
    looking = choice.Choice(kernels=False)(logits, repeats, uniform[more], settings)
    monkeypatch.setattr(choice, "at_hand", lambda x: False)
    with Waits() as waits:
        found = choice.Choice(kernels=False)(logits, repeats, uniform[more], settings)
    for one, other in zip(found, looking, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not waits.seen.keys() & {"_local_scalar_dense", "nonzero", "repeat_interleave"}
    assert [x.dtype for x in found] == [np.int64, np.float32, np.float32]
    logp = logits[more].log_softmax(-1).numpy()[np.arange(len(more)), found[0]]
    within = rounding([np.abs(logits.numpy()).max()], steps=8)
    np.testing.assert_allclose(found[1], logp, rtol=0, atol=within)
    assert (found[2][heat[more] == 0] == 0).all() and (found[0] == logits[more].argmax(-1).numpy())[
        heat[more] == 0
    ].all()
    if choice.library() is not None:
        kernel = choice.Choice()(logits, repeats, uniform[more], settings)
        assert (found[0] == kernel[0]).all()
        np.testing.assert_allclose(found[2], kernel[2], rtol=0, atol=2 * within)  # over a temperature of 1/2


# Linear layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("join", [True, False])
def test_joined_layers_with_adapters_are_the_layers(join, monkeypatch):
    """Three rows: one of each adapter and one of the base. PEFT computes the same for each, switched one
    after another."""
    engine = two_adapters()
    if not join:
        monkeypatch.setattr(decoding, "JOIN_BELOW", 0)
    attn, x = engine.weights.base.model.layers[0].self_attn, torch.randn(3, 32)
    layers = (attn.q_proj, attn.k_proj, attn.v_proj)
    together = decoding.Linears(layers, ["a", "b"])
    assert len(together.products) == (1 if join else 3)
    found = together(x, [("", 0, 1), ("a", 1, 2), ("b", 2, 3)])
    for row, name in enumerate(["base", "a", "b"]):
        engine.weights.model(name)
        for y, layer in zip(found, layers, strict=True):
            # of the sum of the terms' absolute values
            most = (layer.weight.abs() @ x[row].abs()).max().item()
            torch.testing.assert_close(y[row], layer(x[row]), rtol=0, atol=rounding([most], steps=16))
    assert not torch.allclose(found[0][1], decoding.Linears(layers, [])(x)[0][1], atol=1e-3)


def test_weights_are_cast_once_under_autocast_and_left_where_they_are_without():
    linear = torch.nn.Linear(8, 4)
    assert decoding.Linears([linear]).products[0].weight.data_ptr() == linear.weight.data_ptr()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        cast, x = decoding.Linears([linear]), torch.randn(3, 8)
        assert cast.products[0].weight.dtype == torch.bfloat16 and torch.equal(cast(x)[0], linear(x))


def test_a_layer_that_somebody_watches_is_called():
    linear, seen = torch.nn.Linear(8, 4), []
    linear.register_forward_hook(lambda *_: seen.append(1))
    decoding.Linears([linear])(torch.randn(3, 8))
    assert seen == [1]


def test_neighbours_of_one_adapter_are_one_span():
    assert decoding.spans_of([("", 2), ("", 3), ("a", 4), ("b", 1)]) == [
        ("", 0, 5),
        ("a", 5, 9),
        ("b", 9, 10),
    ]


# Several policies -------------------------------------------------------------------------------------------

NAMES = ("base", "a", "b", "copy")
MANY = [
    ask(
        (3, 4, 5 + i % 3),
        seed=i,
        n=1 + i % 3,
        policy=NAMES[i % 4],
        max_tokens=3 + 2 * (i % 5),
        temperature=(1.0, 0.7)[i % 2],
    )
    for i in range(16)
]


def two_adapters(kind: str = "llama", scale: float = 0.1, **spec) -> TorchEngine:
    engine = engine_of(model_of(kind, initializer_range=0.3), **spec)
    for i, name in enumerate(["a", "b"]):
        engine.fork("base", name)
        stir(engine, name, seed=i, scale=scale)
    return engine


def four(kind: str = "llama", **spec) -> TorchEngine:
    engine = two_adapters(kind, **spec)
    engine.fork("base", "copy", "model")
    stir(engine, "copy", seed=5)
    engine.publish("a")
    return engine


def by_pytorch(monkeypatch, static: bool | None = None) -> None:
    """As where no kernels are, and with `static` as on a GPU."""
    for module, name in ((sampling, "runs"), (mixed, "by_kernels")):
        monkeypatch.setattr(module, name, lambda *_: False)
    for module in (sampling, mixed):
        monkeypatch.setattr(module, "by_torch", partial(slots.by_torch, static=static))


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("llama", "kernels"),
        ("llama", "dynamic"),
        ("llama", "static"),
        ("qwen2", "dynamic"),
        ("qwen2", "static"),
        ("gpt2", "modules"),
    ],
)
def test_policies_in_one_batch_say_what_each_says_alone(kind, way, merged, monkeypatch):
    if not merged:
        monkeypatch.setattr(policies, "MERGE_BELOW", 0)
    if way != "kernels":
        by_pytorch(monkeypatch, way == "static")
    engine = four(kind)
    alone = [engine.sample([r])[0] for r in MANY]
    for rows in (1024, 7):
        engine.rows.now = rows
        equal(engine.sample(MANY), alone)
        equal(engine.sample(MANY[::-1]), alone[::-1])
    assert {r.policy: outs[0].version for r, outs in zip(MANY, alone, strict=True)} == {
        "base": 0,
        "a": 2,
        "b": 1,
        "copy": 1,
    }
    same = [ask((3, 4, 5), n=4, policy=name, max_tokens=8) for name in NAMES]
    assert len({tuple(tokens(outs)) for outs in engine.sample(same)}) == 4  # they are four


@pytest.mark.parametrize("static", [True, False])
def test_adapters_go_through_the_base_together_and_nothing_is_switched(static, monkeypatch):
    """2 layers of 4 products and the head: 9 for each step and for each group of contexts, whoever speaks."""
    by_pytorch(monkeypatch, static)
    monkeypatch.setattr(policies, "MERGE_BELOW", 0)
    engine, calls, steps = two_adapters(), [], []
    engine.weights.model("b")
    state = lambda: [
        (m.active_adapters, m.disable_adapters) for m in engine.weights.base.modules() if is_lora(m)
    ]  # noqa: E731
    before, switched = state(), []
    monkeypatch.setattr(type(engine.weights), "model", lambda self, name: switched.append(name) or self.base)
    product, step = decoding._Product.__call__, Routes.step
    monkeypatch.setattr(
        decoding._Product, "__call__", lambda self, x, spans: calls.append(len(x)) or product(self, x, spans)
    )
    monkeypatch.setattr(Routes, "step", lambda self, t: steps.append(len(t)) or step(self, t))
    engine.sample(
        [
            ask((3, 4, 5 + i), seed=i, policy=name, max_tokens=6)
            for i, name in enumerate(["base", "a", "b", "a", "base"])
        ]
    )
    assert steps[0] == 10 and len(calls) == 9 * (len(steps) + 3)
    assert state() == before and before[0] == (["b"], False) and switched == []


def test_who_shares_a_run(monkeypatch):
    monkeypatch.setattr(policies, "MERGE_BELOW", 0)
    by_pytorch(monkeypatch)
    assert mixed.runs_of(four("llama").weights, NAMES) == [list(NAMES)]
    modules = four("gpt2").weights
    assert mixed.runs_of(modules, NAMES) == [["base", "copy"], ["a"], ["b"]]
    assert mixed.runs_of(modules, ["copy", "b"]) == [["copy", "b"]] and mixed.runs_of(modules, []) == []
    monkeypatch.setattr(policies, "MERGE_BELOW", 1 << 40)  # added in: each has modules of its own
    assert mixed.runs_of(modules, NAMES) == [list(NAMES)]
    with pytest.raises(KeyError, match="no policy 'nobody'"):
        mixed.runs_of(modules, ["nobody"])


@pytest.mark.parametrize("static", [True, False])
def test_an_adapter_on_the_head_is_left_to_peft(static, monkeypatch):
    monkeypatch.setattr(policies, "MERGE_BELOW", 0)
    by_pytorch(monkeypatch, static)
    engine = two_adapters(targets=("q_proj", "lm_head"))
    assert mixed.runs_of(engine.weights, ["base", "a", "b"]) == [["base"], ["a"], ["b"]]
    requests = [ask((3, 4, 5), n=3, policy=name) for name in ("base", "a", "b")]
    together = engine.sample(requests)
    equal(together, [engine.sample([r])[0] for r in requests])
    assert len({tuple(tokens(outs)) for outs in together}) == 3


def test_in_bf16_policies_in_one_batch_stay_close_to_the_trainer(monkeypatch):
    """Rounded differently in a step than in a forest, and by no more than rounding."""
    by_pytorch(monkeypatch, static=True)
    monkeypatch.setattr(policies, "MERGE_BELOW", 0)
    exact, rounded, names = two_adapters(), two_adapters(precision="bf16"), ("a", "b")
    for name, outs in zip(names, rounded.sample([ask((3, 4, 5), n=4, policy=p) for p in names]), strict=True):
        segments = (
            Segment(parent=-1, token_ids=(3, 4, 5)),
            *(Segment(parent=0, token_ids=o.token_ids, stream="sft") for o in outs),
        )
        logps = exact.logprobs(Batch(policy=name, segments=segments))[1:]
        gaps = [
            abs(a - b)
            for out, row in zip(outs, logps, strict=True)
            for a, b in zip(out.logprobs, row, strict=True)
        ]
        assert 0 < sum(gaps) / len(gaps) < 0.05
