"""A training step by the kernels: a layer and its parts give the numbers and the gradients of the formulas
written out in float64."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tolerance import rounding
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint
from torch_kit import forest

from forethought.core.types import Segment
from forethought.engines.torch.forest.native import layer as layer_module
from forethought.engines.torch.forest.native import train as train_module
from forethought.engines.torch.forest.native.layer import GIVEN, LOW, MATRICES, WEIGHTS, Layer, Shape
from forethought.engines.torch.forest.native.library import library, why_not
from forethought.engines.torch.forest.native.train import Attention, Gate, Norm, Rotate
from forethought.engines.torch.forest.packing import pack

pytestmark = pytest.mark.skipif(library() is None, reason=why_not())
PRECISIONS = [pytest.param(False, id="fp32"), pytest.param(True, id="bf16")]

ONE = [Segment(parent=-1, token_ids=(1, 2, 3, 4, 5))]
SINGLE = [Segment(parent=-1, token_ids=(1,))]
TREES = forest(0, roots=2, segments=14, longest=9)
LONG = forest(1, roots=1, segments=6, longest=3) + [
    Segment(parent=2, token_ids=(5,) * 150),
    Segment(parent=6, token_ids=(6,) * 140),
]
FORESTS = {"trees": TREES, "one segment": ONE, "one token": SINGLE, "more than a chunk of keys": LONG}
EPS, SCALE = 1e-5, 0.3


def near(found: torch.Tensor, wanted: torch.Tensor, limit: float = 1e-5, least: float = 0.0) -> None:
    """To this share of the largest number, or of 1; `least`: and to so much, where numbers cancel."""
    assert found.shape == wanted.shape and found.dtype == torch.float32
    largest = torch.cat([wanted.abs().flatten(), torch.ones(1)]).max().item()
    torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=max(limit * largest, least))


def random(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def leaves(
    tensors: Sequence[torch.Tensor | None], kind: torch.dtype, asks: Sequence[bool] | None = None
) -> list[torch.Tensor | None]:
    asks = asks or [True] * len(tensors)
    return [
        None if t is None else t.detach().to(kind).requires_grad_(ask)
        for t, ask in zip(tensors, asks, strict=True)
    ]


def sees(segments: Sequence[Segment]) -> torch.Tensor:
    """[N, N]: whether a token of the packed row sees another: its ancestors and, causally, its own
    segment."""
    starts, n = pack(segments).starts, sum(len(s.token_ids) for s in segments)
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i, s in enumerate(segments):
        rows, up = slice(starts[i], starts[i] + len(s.token_ids)), s.parent
        mask[rows, rows] = torch.ones(len(s.token_ids), len(s.token_ids)).tril().bool()
        while up >= 0:
            mask[rows, starts[up] : starts[up] + len(segments[up].token_ids)] = True
            up = segments[up].parent
    return mask


# The formulas -----------------------------------------------------------------------------------------------


def normed(x, weight, eps=EPS):
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def turned(x, cos, sin, scale=1.0):
    a, b = x.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1) * scale


def attended(q, k, v, mask):
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q, k).masked_fill(~mask, float("-inf"))
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v)


def composed(x, cos, sin, mask, rows, shape: Shape, *weights):
    w = SimpleNamespace(**dict(zip(GIVEN, weights, strict=True)))
    for name in MATRICES:
        if (A := getattr(w, f"{name}_A")) is not None:
            setattr(w, name, getattr(w, name) + getattr(w, f"{name}_B") @ A)
    linear = torch.nn.functional.linear
    y = normed(x, w.norm1, shape.eps)
    q, k, v = (
        linear(y, *each).unflatten(-1, (-1, shape.d))
        for each in ((w.q, w.q_bias), (w.k, w.k_bias), (w.v, w.v_bias))
    )
    out = attended(turned(q, cos, sin, shape.scale), turned(k, cos, sin), v, mask).flatten(1)
    x, out = (x, out) if rows is None else (x[rows], out[rows])
    x = x + linear(out, w.o, w.o_bias)
    y = normed(x, w.norm2, shape.eps)
    return x + linear(silu(linear(y, w.gate)) * linear(y, w.up), w.down)


class Case:
    """A layer's input, and what it is to give."""

    def __init__(
        self,
        segments=TREES,
        hidden=80,
        inner=72,
        heads=5,
        kv_heads=1,
        d=16,
        biases="",
        rows: Sequence[int] | None = None,
        bf16: bool = False,
        rank: int = 0,
        adapted: Sequence[str] = MATRICES,
    ):
        packed = pack(segments)
        n, a, kv = len(packed.ids_N), heads * d, kv_heads * d
        angles = packed.positions_N[:, None] * 3.0 ** -torch.arange(d // 2)
        self.fixed = angles.cos().contiguous(), angles.sin().contiguous()
        self.spans, self.mask, self.rows = packed.layout.spans_S3, sees(segments), rows
        self.shape = Shape(heads, kv_heads, d, EPS, SCALE, bf16)
        sizes = {
            "norm1": (hidden,),
            "norm2": (hidden,),
            "q": (a, hidden),
            "k": (kv, hidden),
            "v": (kv, hidden),
            "o": (hidden, a),
            "gate": (inner, hidden),
            "up": (inner, hidden),
            "down": (hidden, inner),
            "q_bias": (a,),
            "k_bias": (kv,),
            "v_bias": (kv,),
            "o_bias": (hidden,),
        }
        given = [name for name in WEIGHTS if not name.endswith("bias") or name[0] in biases]
        weights = {
            name: random(*size, seed=i, size=0.8 * size[-1] ** -0.5)
            for i, (name, size) in enumerate(sizes.items())
        }
        weights |= {name: 1 + weights[name] for name in ("norm1", "norm2")}
        for name in adapted if rank else ():
            out, into = sizes[name]
            weights[f"{name}_A"] = random(rank, into, size=0.3 * into**-0.5)
            weights[f"{name}_B"] = random(out, rank, seed=1, size=0.5 * rank**-0.5)
        given += [name for name in LOW if name in weights]
        self.given = [random(n, hidden), *(weights[name] if name in given else None for name in GIVEN)]
        self.dy = random(n if rows is None else len(rows), hidden, seed=7)

    def native(self, x, *weights) -> torch.Tensor:
        rows = None if self.rows is None else np.array(self.rows, dtype=np.int32)
        return Layer.apply(x, *self.fixed, self.spans, rows, self.shape, *weights)

    def exact(self, x, *weights) -> torch.Tensor:
        rows = None if self.rows is None else list(self.rows)
        return composed(x, *(c.double() for c in self.fixed), self.mask, rows, self.shape, *weights)

    def both(self, asks: Sequence[bool] | None = None):
        """((output, gradients) of the kernel, the same of the formula)."""
        for run, kind in ((self.native, torch.float32), (self.exact, torch.float64)):
            args = leaves(self.given, kind, asks)
            y = run(*args)
            if y.requires_grad:
                y.backward(self.dy.to(kind))
            yield y, [None if t is None else t.grad for t in args]

    def check(self, asks: Sequence[bool] | None = None) -> None:
        (y, grads), (y64, grads64) = self.both(asks)
        limit = 2e-2 if self.shape.bf16 else 1e-5
        near(y, y64, limit)
        assert [g is None for g in grads] == [g is None for g in grads64]
        for g, g64 in zip(grads, grads64, strict=True):
            if g is not None:
                near(g, g64, limit)


# A layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", FORESTS.values(), ids=FORESTS)
def test_a_layer_is_its_formula(segments):
    Case(segments).check()


SIZES = [(64, 48, 4, 2, 16), (80, 72, 5, 5, 16), (33, 37, 2, 1, 32), (31, 1, 3, 1, 64), (96, 130, 6, 3, 48)]


@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("biases", ["", "qkv", "qkvo", "o"])
def test_sizes_that_fill_no_vector_and_biases(sizes, biases, bf16):
    Case(TREES, *sizes, biases=biases, bf16=bf16).check()


def test_bf16_rounds_the_factors_of_products():
    """It is not the same as float32, and what does not ask moves nothing here either."""
    y, y32 = (case.native(*leaves(case.given, torch.float32)) for case in (Case(bf16=True), Case()))
    assert 1e-4 < (y - y32).abs().max() < 2e-2 * y32.abs().max()
    Case(bf16=True, biases="qkvo", rows=[2, 3, 30]).check(
        [name in ("x", "q", "o_bias", "gate") for name in ("x", *GIVEN)]
    )


@pytest.mark.parametrize("rows", [[], [0], [3, 4, 10, 40], list(range(0, 50, 2))], ids=len)
def test_some_rows_alone(rows):
    """The others give keys and values, whose gradients flow on."""
    Case(rows=rows, biases="qkvo").check()
    if rows == [0]:
        Case(SINGLE, rows=rows).check()


def test_rows_beyond_one_block():
    Case(LONG, 32, 40, 2, 1, 16, "qkvo").check()
    Case(LONG, 32, 40, 2, 1, 16, rows=list(range(5, 280, 2))).check()


@pytest.mark.parametrize("asking", [*WEIGHTS, "x", "", "norm1 gate", "q down v_bias"])
def test_what_does_not_ask_gets_no_gradient(asking):
    Case(biases="qkvo", rows=[2, 3, 30]).check([name in asking.split() for name in ("x", *GIVEN)])


@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rank", [1, 6, 70])
def test_an_adapters_gradients_alone(sizes, rank, bf16):
    """As those of a matrix with the product of the factors in it; the matrix below asks for none."""
    case = Case(TREES, *sizes, biases="qkvo", rank=rank, bf16=bf16)
    case.check([name in ("x", *LOW) for name in ("x", *GIVEN)])
    case.rows = [2, 3, 30]
    case.dy = case.dy[:3]
    case.check([name in ("x", *LOW) for name in ("x", *GIVEN)])
    case.check()


@pytest.mark.parametrize("adapted", [("q",), ("v", "down"), ("o", "up")], ids="-".join)
def test_adapters_on_some_matrices(adapted):
    case = Case(LONG, 32, 40, 2, 1, 16, "qkvo", rank=3, adapted=adapted)
    case.check([name in LOW for name in ("x", *GIVEN)])
    case.check([name == f"{adapted[0]}_A" for name in ("x", *GIVEN)])
    case.check([name == f"{adapted[-1]}_B" for name in ("x", *GIVEN)])


# Threads ----------------------------------------------------------------------------------------------------

WIDE = forest(2, roots=6, segments=160, longest=12)  # several blocks, and more rows than are summed at once


def passed(case: Case) -> list[torch.Tensor]:
    """The output and all gradients."""
    args = leaves(case.given, torch.float32)
    y = case.native(*args)
    y.backward(case.dy)
    return [y.detach(), *(t.grad for t in args if t is not None)]


@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize("rows", [None, list(range(1, 900, 2))], ids=["all", "some"])
@pytest.mark.parametrize("rank", [0, 4])
def test_no_bit_depends_on_the_number_of_threads(rows, bf16, rank):
    case = Case(WIDE, 80, 136, 6, 3, 16, "qkvo", rows, bf16, rank)
    assert case.given[0].shape[0] > 900 and case.shape.threads == 1
    alone = passed(case)
    for threads in (2, 3, 7):
        case.shape = case.shape._replace(threads=threads)
        for _ in range(3):
            assert all(map(torch.equal, passed(case), alone))


@pytest.mark.parametrize("rank", [0, 4])
def test_a_wide_layer(rank):
    """Gradients that do not stay in the cache are sums of more rows, whose factors are laid out first."""
    case = Case(WIDE, 544, 1040, 4, 2, 16, rank=rank)
    case.check([name in ("x", *LOW) if rank else True for name in ("x", *GIVEN)])
    alone = passed(case)
    case.shape = case.shape._replace(threads=2)
    assert all(map(torch.equal, passed(case), alone))


def test_layers_asked_for_at_once_do_not_disturb_each_other():
    """The crew works for one of them; the other does its work alone."""
    cases = [Case(WIDE, biases="qkvo"), Case(LONG, 32, 40, 2, 1, 16)]
    alone = [passed(case) for case in cases]
    for case in cases:
        case.shape = case.shape._replace(threads=2)
    with ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(passed, cases * 6)):
            assert all(map(torch.equal, found, alone[i % 2]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_crew_of_its_own():
    """It inherits the memory of its parent's, and none of its threads: it would wait for them for ever."""
    case = Case(WIDE, biases="qkvo")
    case.shape = case.shape._replace(threads=2)
    x, *weights = (None if t is None else t.detach() for t in case.given)
    want = case.native(x, *weights)
    if not (child := os.fork()):
        os._exit(0 if torch.equal(case.native(x, *weights), want) else 1)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the forked process hangs")
    assert status == 0


def test_gradients_of_two_passes_add_up_and_a_pass_repeats_to_the_bit():
    case = Case(biases="qkvo")
    args = leaves(case.given, torch.float32)
    y = case.native(*args)
    given = [t for t in args if t is not None]
    first = torch.autograd.grad(y, given, case.dy, retain_graph=True)
    again = torch.autograd.grad(y, given, case.dy)
    assert all(map(torch.equal, first, again))
    for _ in range(2):
        case.native(*args).backward(case.dy)
    assert all(torch.equal(t.grad, 2 * g) for t, g in zip(given, first, strict=True))


@pytest.mark.parametrize("rows", [None, [2, 3, 30]], ids=["all", "some"])
def test_what_is_computed_again_gives_the_same_bits(rows):
    """Of two layers in a row, whose room is shared."""
    case = Case(biases="qkvo", rows=rows, rank=3)

    def run(again: bool) -> list[torch.Tensor]:
        x, *weights = leaves(case.given, torch.float32)
        case.shape = case.shape._replace(again=again)
        y = case.native(x, *weights, *weights)
        return [y, *torch.autograd.grad(y, [t for t in (x, *weights) if t is not None], case.dy)]

    assert all(map(torch.equal, run(True), run(False)))


def test_checkpointing_around_a_layer():
    case = Case(biases="qkv")
    args = [[t for t in leaves(case.given, torch.float32)] for _ in range(2)]
    case.native(*args[0]).backward(case.dy)
    checkpoint(case.native, *args[1], use_reentrant=False).backward(case.dy)
    assert all(a is None or torch.equal(a.grad, b.grad) for a, b in zip(*args, strict=True))


def test_inputs_that_do_not_lie_in_order():
    case = Case(biases="qkvo")
    y, dy = case.native(*leaves(case.given, torch.float32)), case.dy.T.contiguous().T
    case.given = [
        None if t is None else t.T.contiguous().T if t.dim() == 2 else torch.stack([t, t], 1)[:, 0]
        for t in case.given
    ]
    assert torch.equal(case.native(*leaves(case.given, torch.float32)), y)
    case.dy = dy
    case.check()


@pytest.mark.parametrize("segments", FORESTS.values(), ids=FORESTS)
@pytest.mark.parametrize("rows", [None, [0], []], ids=["all", "one", "none"])
@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize("rank", [0, 5])
def test_nothing_is_written_beyond_its_room_or_read_before_it_is_written(
    segments, rows, bf16, rank, monkeypatch
):
    """All room is NaN beforehand and has as much of it behind, which has to be there still."""
    case, rooms = Case(segments, 33, 37, 2, 1, 32, "qkvo", rows, bf16, rank), []

    def guarded(*sizes: int) -> torch.Tensor:
        n = int(np.prod(sizes))
        rooms.append((n, torch.full((2 * n + 256,), float("nan"))))
        return rooms[-1][1][:n].view(sizes)

    for where in (layer_module, train_module):
        monkeypatch.setattr(where, "floats", guarded)
    case.check()
    q, k, v = (
        random(case.mask.shape[0], 4, 16),
        random(case.mask.shape[0], 2, 16),
        random(case.mask.shape[0], 2, 16),
    )
    near(Attention.apply(q, k, v, case.spans), attended(q.double(), k.double(), v.double(), case.mask))
    assert len(rooms) == 5 and all(room[n:].isnan().all() for n, room in rooms)


# Its parts --------------------------------------------------------------------------------------------------


def same_as(
    native,
    exact,
    *tensors: torch.Tensor,
    asks: Sequence[bool] | None = None,
    limit: float = 2e-6,
    least: float = 0.0,
) -> None:
    args, args64 = leaves(tensors, torch.float32, asks), leaves(tensors, torch.float64, asks)
    y, y64 = native(*args), exact(*args64)
    near(y, y64, limit)
    dy = random(*y.shape, seed=5)
    y.backward(dy)
    y64.backward(dy.double())
    for t, t64 in zip(args, args64, strict=True):
        assert (t.grad is None) == (t64.grad is None)
        if t.grad is not None:
            near(t.grad, t64.grad, 2 * limit, least)


@pytest.mark.parametrize("segments", FORESTS.values(), ids=FORESTS)
@pytest.mark.parametrize(("heads", "kv_heads", "d"), [(4, 2, 16), (3, 3, 48), (5, 1, 128)])
def test_attention(segments, heads, kv_heads, d):
    mask, spans = sees(segments), pack(segments).layout.spans_S3
    q, k, v = (
        random(len(mask), heads, d, size=d**-0.5),
        random(len(mask), kv_heads, d),
        random(len(mask), kv_heads, d, seed=1),
    )
    # d products of two normal numbers: softmax's gradient takes such sums from one another
    least = rounding([2 / math.pi * d], steps=8)
    same_as(
        lambda *a: Attention.apply(*a, spans), lambda *a: attended(*a, mask), q, k, v, limit=1e-5, least=least
    )


def test_threads_change_no_bit_of_attention():
    spans, n = pack(LONG).layout.spans_S3, len(sees(LONG))
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        args = leaves([random(n, 6, 16), random(n, 3, 16), random(n, 3, 16, seed=1)], torch.float32)
        y = Attention.apply(*args, spans)
        y.backward(random(n, 6, 16, seed=2))
        found.append([y, *(t.grad for t in args)])
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 16), (4, 80), (6, 3, 32), (0, 16)], ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_norm(shape, frozen):
    same_as(
        lambda x, w: Norm.apply(x, w, EPS),
        normed,
        random(*shape),
        1 + random(shape[-1], seed=1, size=0.3),
        asks=[True, not frozen],
    )


@pytest.mark.parametrize(("n", "heads", "d"), [(1, 1, 2), (7, 3, 16), (5, 2, 10), (0, 2, 16)])
def test_rotate(n, heads, d):
    angles = random(n, d // 2, size=3)
    cos, sin = angles.cos(), angles.sin()
    same_as(
        lambda x: Rotate.apply(x, cos, sin, SCALE),
        lambda x: turned(x, cos.double(), sin.double(), SCALE),
        random(n, heads, d),
    )


@pytest.mark.parametrize("shape", [(1,), (15,), (16,), (3, 37), (0, 5)], ids=str)
def test_gate(shape):
    same_as(Gate.apply, lambda g, up: silu(g) * up, random(*shape, size=4), random(*shape, seed=1))


# exp --------------------------------------------------------------------------------------------------------


def test_exp_to_the_last_digits():
    """Of -90 to 0 as the weights of a softmax beside a score of 0, of 0 to 88 as the gate of -x, which is -x
    / (1 + e^x)."""
    heads, d = 400, 16
    x = -90 * torch.rand(heads, 15, generator=torch.Generator().manual_seed(0))
    q, k = torch.zeros(16, heads, d), torch.zeros(16, heads, d)
    q[..., 0], k[1:, :, 0] = 1, x.T
    out = Attention.apply(
        q, k, torch.eye(16)[:, None].expand(16, heads, d), np.array([[0, 16, 16]], dtype=np.int32)
    )[-1]
    found, wanted = (out[:, 1:] / out[:, :1]).double(), x.double().exp()
    assert ((found / wanted - 1).abs()[x > -87]).max() < 5e-7 and not found[x < -87].any()
    g = -88 * torch.rand(6000, generator=torch.Generator().manual_seed(1))
    assert (Gate.apply(g, torch.ones_like(g)).double() / silu(g.double()) - 1).abs().max() < 5e-7
    far = torch.tensor([-1e30, -200.0, -100.0, 100.0, 1e30] * 4)
    near(Gate.apply(far, torch.ones(20)), silu(far))


@pytest.mark.parametrize("place", [0, 17, 36])
def test_what_is_not_finite_shows(place):
    g = random(37)
    g[place] = float("nan")
    assert Gate.apply(g, torch.ones(37)).isnan().nonzero().tolist() == [[place]]
    assert Norm.apply(g, torch.ones(37), EPS).isnan().all()
    q, k, v = random(40, 2, 16), random(40, 1, 16), random(40, 1, 16, seed=1)
    k[place] = float("nan")
    seen = Attention.apply(q, k, v, np.array([[0, 40, 40]], dtype=np.int32)).isnan().flatten(1)
    assert seen.all(1).tolist() == seen.any(1).tolist() == [i >= place for i in range(40)]
