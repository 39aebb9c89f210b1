"""Sampling by the kernels: every row's logits are those of the model's plain forward, whatever its context
shares with others', who enters beside it and who leaves; and where contexts share nothing, a row's bits are
its own affair."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch_kit import SIZE, engine_of, model_of, plain_logits

from forethought.core.types import Request
from forethought.engines.torch.forest.decoder import decoder_of
from forethought.engines.torch.forest.native import steps as module
from forethought.engines.torch.forest.native import weights as weights_module
from forethought.engines.torch.forest.native.library import library, why_not
from forethought.engines.torch.forest.native.steps import NativeSteps
from forethought.engines.torch.forest.native.tree import Tree
from forethought.engines.torch.forest.native.weights import Weights, angles_of, runs
from forethought.engines.torch.sampling.sampler import Sampler
from forethought.engines.torch.sampling.stops import Stops

pytestmark = pytest.mark.skipif(library() is None, reason=why_not())

SMALL = {"hidden_size": 64, "head_dim": 16}
SHAPES: dict[str, dict] = {
    "llama": {"kind": "llama", **SMALL},
    "biases": {"kind": "llama", "attention_bias": True, "mlp_bias": True, "hidden_size": 64, "head_dim": 32},
    "scaled": {
        "kind": "llama",
        "hidden_size": 64,
        "head_dim": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen2": {"kind": "qwen2", "hidden_size": 64},
    "qwen3": {
        "kind": "qwen3",
        "hidden_size": 48,
        "head_dim": 32,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
    "mistral": {"kind": "mistral", "hidden_size": 64, "head_dim": 128},
    "tied": {"kind": "llama", **SMALL, "tie_word_embeddings": True},
    "one head of keys": {
        "kind": "llama",
        "hidden_size": 80,
        "head_dim": 16,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
    },
    "no groups": {"kind": "qwen2", "hidden_size": 64, "num_key_value_heads": 4},
    "odd sizes": {
        "kind": "llama",
        "hidden_size": 51,
        "head_dim": 16,
        "intermediate_size": 77,
        "vocab_size": 37,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
    },
    "wide": {
        "kind": "llama",
        "hidden_size": 160,
        "head_dim": 32,
        "intermediate_size": 200,
        "vocab_size": 131,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
    },
}
# where every shape would be too many
LIKELY = {"llama": SHAPES["llama"], "odd sizes": SHAPES["odd sizes"], "qwen3": SHAPES["qwen3"]}


def made(shape: dict, seed: int = 0):
    """A model whose biases and norms are not what they begin as: zero and one."""
    model = model_of(seed=seed, **{"max_position_embeddings": 512} | shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def steps_of(model, threads: int = 1, bf16: bool = False, positions: int = 512) -> NativeSteps:
    decoder = decoder_of(model)
    assert runs(decoder, model)
    return NativeSteps(Weights(decoder, model, bf16, angles_of(decoder, positions)), threads)


def words(seed: int, n: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(SIZE), k=n))


class Played:
    """Rows that are led through a `NativeSteps` by tokens of their own, with all logits that came back."""

    def __init__(self, steps: NativeSteps, seed: int = 0):
        self.steps, self.rng = steps, random.Random(seed)
        self.live: list[list[int]] = []
        # (all tokens so far, the logits after them)
        self.heard: list[tuple[tuple[int, ...], torch.Tensor]] = []

    def enter(self, contexts: Sequence[tuple[int, ...]], n: Sequence[int] | int = 1, room: int = 8) -> Played:
        n = [n] * len(contexts) if isinstance(n, int) else n
        logits = self.steps.enter(contexts, n, [room] * len(contexts))
        self.heard += zip(contexts, logits, strict=True)
        self.live += [list(context) for context, k in zip(contexts, n, strict=True) for _ in range(k)]
        return self

    def step(self, times: int = 1) -> Played:
        for _ in range(times):
            tokens = [self.rng.randrange(SIZE) for _ in self.live]
            for row, token in zip(self.live, tokens, strict=True):
                row.append(token)
            self.heard += zip(map(tuple, self.live), self.steps.step(np.array(tokens)), strict=True)
        return self

    def keep(self, *kept: int) -> Played:
        self.steps.keep(np.isin(np.arange(len(self.live)), kept))
        self.live = [self.live[i] for i in kept]
        return self

    def agrees(self, model, limit: float = 1e-5) -> Played:
        """Largest difference to the plain forward, as a share of the largest logit."""
        longest = {
            ids
            for ids, _ in self.heard
            if not any(len(o) > len(ids) and o[: len(ids)] == ids for o, _ in self.heard)
        }
        plain = {ids: plain_logits(model, ids) for ids in longest}
        for ids, found in self.heard:
            wanted = plain[next(o for o in longest if o[: len(ids)] == ids)][len(ids) - 1]
            torch.testing.assert_close(
                found, wanted, rtol=0, atol=limit * max(1.0, wanted.abs().max().item())
            )
        return self


# The plain forward ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_are_the_plain_forwards(shape):
    model = made(shape)
    contexts = [words(1, 19), words(1, 19) + words(2, 5), words(3, 1), words(1, 8) + words(4, 30)]
    Played(steps_of(model)).enter(contexts, [3, 1, 2, 1]).step(4).agrees(model)


def test_a_head_with_a_bias():
    model = made(SHAPES["llama"])
    head = torch.nn.Linear(64, SIZE)
    head.weight = model.lm_head.weight
    model.lm_head = head
    Played(steps_of(model)).enter([words(1, 9)]).step(2).agrees(model)


def test_an_adapter_is_added_in():
    engine = engine_of(made(SHAPES["biases"]), targets=("q_proj", "o_proj", "up_proj"))
    engine.fork("base", "plan")
    with torch.no_grad():
        for p in engine.weights.parameters("plan").values():
            p.normal_(std=0.2)
    before = plain_logits(engine.weights.model("base"), words(1, 9))[-1]
    model = engine.weights.model("plan")
    played = Played(steps_of(model)).enter([words(1, 9)]).step(2).agrees(model)
    assert (played.heard[0][1] - before).abs().max() > 0.1


@pytest.mark.parametrize("shape", [SHAPES["llama"], SHAPES["scaled"]], ids=["llama", "scaled"])
def test_more_keys_than_the_scores_of_one_chunk(shape):
    """128 keys are looked at together: 127, 128, 129 and 300 of them, and rows that grow over the edge."""
    model = made(shape)
    contexts = [words(5, 127), words(6, 128), words(7, 129), words(8, 300)]
    Played(steps_of(model)).enter(contexts, 2).step(5).agrees(model)


@pytest.mark.parametrize("most", [1, 7, 64])
def test_contexts_are_computed_in_several_calls(most, monkeypatch):
    monkeypatch.setattr(module, "PREFILL_TOKENS", most)
    model = made(SHAPES["llama"])
    contexts = [words(1, 20), words(1, 9) + words(2, 9), words(1, 5), words(3, 40), words(1, 20)]
    Played(steps_of(model)).enter(contexts, 2).step(2).agrees(model)


# Shared beginnings ------------------------------------------------------------------------------------------

A, B, C, D = words(1, 20), words(2, 9), words(3, 6), words(4, 3)
SHARED = {
    "equal": [A, A, A],
    "one begins another, the longer first": [A + B, A, A[:3]],
    "one begins another, the shorter first": [A[:3], A, A + B],
    "apart inside a segment": [A, A[:7] + B, A[:7] + C, A[:6] + D, A[:7] + B + C],
    "three levels": [A + B + C, A + B + D, A + D, A + B + C + D, A + B, B],
    "apart at the first token": [(1, 2, 3), (2, 2, 3), (3,)],
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("contexts", SHARED.values(), ids=SHARED)
def test_contexts_share_what_they_have_in_common(contexts, threads):
    """All at once, and one after another while the others are live."""
    model = made(SHAPES["llama"])
    together = Played(steps_of(model, threads)).enter(contexts, 2).step(2).agrees(model)
    apart = Played(steps_of(model, threads))
    for context in contexts:
        apart.enter([context], 2).step()
    apart.agrees(model)
    for steps in (together.steps, apart.steps):
        held = {segment for path in steps.paths for segment, _ in path}
        beginnings = {c[: i + 1] for c in contexts for i in range(len(c))}
        assert sum(len(steps.tree._nodes[s].tokens) for s in held) == len(beginnings)  # each is kept once


def test_rows_enter_and_leave_in_the_middle():
    model = made(SHAPES["qwen2"])
    played = (
        Played(steps_of(model))
        .enter([A, A + B], [3, 2])
        .step(2)
        .keep(0, 3)
        .enter([A + B + C, C], [1, 2])
        .step(3)
        .keep(1, 2, 4)
    )
    played.enter([A, C + D]).step(2).agrees(model)
    played.keep()
    assert played.steps.tree.floats == 0 and played.steps.tree._nodes == [None] * len(
        played.steps.tree._nodes
    )
    played.enter([A], 2).step().agrees(model)  # what has been forgotten is computed again


# Bits -------------------------------------------------------------------------------------------------------


def crowd(steps: NativeSteps) -> list[torch.Tensor]:
    played = Played(steps).enter([A, A[:5] + B, B, A + C, (7, 7), A], [2, 1, 3, 1, 1, 2]).step(3)
    played.keep(0, 2, 4, 5, 7, 9).enter([C, A + C + D]).step(2)
    return [logits for _, logits in played.heard]


def many(steps: NativeSteps) -> list[torch.Tensor]:
    """More tokens and more rows than a panel of weights is read for at once (96)."""
    contexts = [words(9, 430), A]  # and of one call more than two threads' blocks hold
    return [logits for _, logits in Played(steps).enter(contexts, [60, 70]).step().heard]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", LIKELY.values(), ids=LIKELY)
def test_threads_change_no_bit(shape, bf16, monkeypatch):
    """Whether each has rows of its own or columns of every product; of many rows, blocks."""
    model = made(shape)
    one, more = (case(steps_of(model, 1, bf16)) for case in (crowd, many))
    for together in (1 << 60, 0):
        monkeypatch.setattr(module, "TOGETHER", together)
        for threads in (2, 3):
            assert all(map(torch.equal, crowd(steps_of(model, threads, bf16)), one))
        assert all(map(torch.equal, many(steps_of(model, 2, bf16)), more))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", LIKELY.values(), ids=LIKELY)
def test_rows_around_change_no_bit_where_they_share_nothing(shape, bf16):
    model = made(shape)
    contexts = [(i, *words(i, 3 + 17 * i)) for i in range(12)]
    tokens = [words(100 + i, 4) for i in range(12)]

    def heard(members: Sequence[int]) -> dict[int, list[torch.Tensor]]:
        steps = steps_of(model, bf16=bf16)
        out = [steps.enter([contexts[i] for i in members], [1] * len(members), [4] * len(members))]
        out += [steps.step(np.array([tokens[i][t] for i in members])) for t in range(4)]
        return {i: [logits[place] for logits in out] for place, i in enumerate(members)}

    every = heard(range(12))
    for members in ([0], [11], [7, 3], [5, 6, 1, 0, 9]):
        found = heard(members)
        assert all(torch.equal(a, b) for i in members for a, b in zip(found[i], every[i], strict=True))


def test_bf16_is_what_autocast_computes():
    model = made(SHAPES["odd sizes"])
    played = Played(steps_of(model, bf16=True)).enter([words(1, 30)], 2).step(3)
    with torch.autocast("cpu", torch.bfloat16):
        played.agrees(model, 2e-2)
    exact = Played(steps_of(model)).enter([words(1, 30)], 2).step(3)
    assert not any(torch.equal(a, b) for (_, a), (_, b) in zip(played.heard, exact.heard, strict=True))


# Memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_nothing_is_written_beyond_its_room_or_read_before_it_is_written(shape, bf16, monkeypatch):
    """All room is NaN beforehand and has as much of it behind, which has to be there still."""
    model, rooms = made(shape), []
    wanted = [*crowd(steps_of(model, bf16=bf16)), *many(steps_of(model, bf16=bf16))]

    def guarded(*sizes: int) -> torch.Tensor:
        n = int(np.prod(sizes))
        rooms.append((n, torch.full((2 * n + 256,), float("nan"))))
        return rooms[-1][1][:n].view(sizes)

    for where in (module, weights_module):
        monkeypatch.setattr(where, "floats", guarded)
    monkeypatch.setattr(np, "empty", lambda size, dtype: np.full(size, np.nan, dtype))  # the tree's
    assert all(
        map(torch.equal, [*crowd(steps_of(model, bf16=bf16)), *many(steps_of(model, bf16=bf16))], wanted)
    )
    assert len(rooms) > 10 and all(room[n:].isnan().all() for n, room in rooms)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("n", [20, 120, 127, 128, 300])
def test_a_row_alone_says_what_would_be_read(n, bf16):
    """It stands behind its context, in one segment: the same sums, bit for bit."""
    model, context, said = made(SHAPES["biases"]), words(1, n), words(2, 20)
    steps = steps_of(model, bf16=bf16)
    steps.enter([context, context[:9]], [1, 2], [len(said) + 1] * 2)
    for k, token in enumerate(said, start=1):
        found = steps.step(np.array([token, 3, 4]))[0]
        assert torch.equal(found, steps_of(model, bf16=bf16).enter([context + said[:k]], [1], [1])[0])


def test_what_would_be_read_or_written_elsewhere_is_refused():
    model = made(SHAPES["llama"])
    with pytest.raises(IndexError, match="token 32 is none of the model's 32"):
        steps_of(model).enter([(3, 32)], [1], [4])
    with pytest.raises(IndexError, match="token -1 is none"):
        steps_of(model).enter([(3,), (4, -1, 40)], [1, 1], [4, 4])
    with pytest.raises(IndexError, match="13 tokens .* 12 positions"):
        steps_of(model, positions=12).enter([words(1, 9)], [1], [4])
    steps = steps_of(model)
    steps.enter([(3,)], [1], [1])
    for _ in range(steps.tree.room[steps.tail[0]] - 1):  # its context has a token
        steps.step(np.array([5]))
    with pytest.raises(IndexError, match="no room was made"):
        steps.step(np.array([5]))


def test_pytorchs_defaults_do_not_matter():
    model = made(SHAPES["biases"])
    wanted = crowd(steps_of(model))
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = crowd(steps_of(model))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("name", ["embed_tokens", "q_proj", "k_proj", "v_proj", "down_proj", "norm"])
def test_weights_that_are_not_finite_show(name):
    """A NaN in a query or a key is no score of minus infinity: it may not vanish in the softmax."""
    model = made(SHAPES["llama"])
    next(p for key, p in model.named_parameters() if f"{name}.weight" in key).data.view(-1)[:64] = float(
        "nan"
    )
    steps = steps_of(model)
    assert steps.enter([(0, 5, 6)], [1], [4]).isnan().all() and steps.step(np.array([5])).isnan().all()


# The whole loop in one call ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_the_loop_in_one_call_draws_what_single_steps_draw(threads):
    """Also where others wait to enter, and with stops, budgets and shapes of distributions of the rows'
    own."""
    model = made({**SHAPES["llama"], "initializer_range": 0.3})
    contexts = [A, A, A[:9] + B, C, A + D, B, D, (5,)]
    requests = [
        Request(
            policy="base",
            context=c,
            n=1 + i % 3,
            stops=(),
            max_tokens=3 + 2 * i,
            seed=i,
            temperature=(1.0, 0.7, 0.0)[i % 3],
            top_p=(1.0, 0.8)[i % 2],
            top_k=(0, 0, 9)[i % 3],
            min_p=(0.0, 0.0, 0.0, 0.05)[i % 4],
        )
        for i, c in enumerate(contexts)
    ]
    stops = [Stops(None, ()) for _ in requests]

    class Single:
        def __init__(self, steps: NativeSteps):
            self.enter, self.step, self.keep = steps.enter, steps.step, steps.keep

    for rows in (1024, 4):
        steps = steps_of(model, threads)
        whole = Sampler(steps, {1, 2, 9}, rows).run(requests, stops, 0)
        assert whole == Sampler(Single(steps_of(model, threads)), {1, 2, 9}, rows).run(requests, stops, 0)
        assert steps.tree.floats == 0
    assert {out.status for outs in whole for out in outs} == {"finished", "truncated"}


def test_keys_and_values_in_bf16_take_half_the_room_and_are_rounded_once():
    """Of a token: each number to the nearest with 8 bits, in pairs of a key's numbers and of two tokens'
    values."""
    model, context = made(SHAPES["qwen3"]), words(1, 7)
    held = []
    for bf16 in (False, True):
        steps = steps_of(model, bf16=bf16)
        steps.enter([context], [1], [2])
        tree = steps.tree
        held.append(tree.held(int(steps.tail[0])).reshape(tree.heads, 2, -1))
        assert tree.floats_of(100) == tree.floats_of(1) * -(-100 // tree.lanes)
    exact, half = held
    assert half.size * 2 == exact.size
    keys = half[0, 0].view(np.uint16).reshape(-1, tree.d // 2, tree.lanes, 2)
    values = half[0, 1].view(np.uint16).reshape(-1, tree.d, 2)
    for t in range(len(context)):
        panel, lane = divmod(t, tree.lanes)
        for found, wanted in (
            (keys[panel, :, lane].ravel(), exact[0, 0].reshape(-1, tree.d, tree.lanes)[panel, :, lane]),
            (values[t // 2, :, t % 2], exact[0, 1].reshape(-1, tree.d)[t]),
        ):
            found = (found.astype(np.uint32) << 16).view(np.float32)
            # products in bf16 come before: the layer's own are those of rounded factors
            assert np.abs(found - wanted).max() < 2e-2 * np.abs(wanted).max()


# The tree, by hand ------------------------------------------------------------------------------------------


def test_find_and_grow_by_hand():
    tree = Tree(heads=5, d=1, lanes=4)
    assert tree.find((1, 2, 3)) == []
    a = tree.grow([], (1, 2, 3, 4, 5))
    assert (a, tree.room[a], tree.floats) == (0, 8, 80)  # five tokens take two vectors of four
    assert tree.find((1, 2, 3, 4, 5)) == [(0, 5)] and tree.find((1, 2)) == [(0, 2)] and tree.find((2,)) == []
    assert tree.find((1, 2, 9)) == [(0, 2)]
    b = tree.grow([(0, 2)], (9, 8))
    c = tree.grow([(0, 5)], (6,))
    d = tree.grow([(0, 2), (b, 1)], (7, 7, 7))
    assert tree.find((1, 2, 9, 8, 5)) == [(0, 2), (b, 2)] and tree.find((1, 2, 9, 7, 7)) == [
        (0, 2),
        (b, 1),
        (d, 2),
    ]
    assert tree.find((1, 2, 3, 4, 5, 6, 7)) == [(0, 5), (c, 1)] and tree.find((1, 2, 3, 4, 9)) == [(0, 4)]
    assert tree.floats == 80 + 3 * 40


@pytest.mark.parametrize("half", [False, True])
def test_the_first_tokens_of_a_segment_are_copied_by_hand(half):
    """Two heads of size 2, panels of 4 tokens. In halves a float holds two numbers: of a key, or of two
    tokens' values."""
    tree = Tree(heads=2, d=2, lanes=4, half=half)
    source, target = tree.rows(1, 8), tree.rows(1, 12)
    tree.held(source)[:] = np.arange(tree.floats_of(8))
    tree.held(target)[:] = -1
    tree.copy(tree.held(source), target, 5)
    found = tree.held(target).reshape(2, 2, -1)
    wanted = tree.held(source).reshape(2, 2, -1)
    keys, values = (8, 6) if half else (16, 10)  # two panels of keys; five tokens' values, three pairs
    for h in range(2):
        assert found[h, 0].tolist() == wanted[h, 0, :keys].tolist() + [-1] * (found.shape[2] - keys)
        assert found[h, 1].tolist() == wanted[h, 1, :values].tolist() + [-1] * (found.shape[2] - values)


def test_segments_are_forgotten_when_nobody_uses_them():
    tree = Tree(heads=1, d=1, lanes=4)
    a = tree.grow([], (1, 2, 3))
    b = tree.grow([(a, 2)], (5,))
    first = tree.rows(3, 6)
    assert (first, tree.floats) == (2, 8 + 8 + 3 * 16)
    # 8 tokens of 2 floats each, side by side
    assert np.diff(tree.base[first : first + 3].astype(np.int64)).tolist() == [64, 64]
    paths = [[(a, 3), (2, 0)], [(a, 2), (b, 1), (3, 0)], [(a, 2), (b, 1), (4, 0)]]
    for path in paths:
        tree.use(path)
    tree.leave(paths[1])
    assert tree.floats == 8 + 8 + 2 * 16 and tree.find((1, 2, 5)) == [(a, 2), (b, 1)]
    tree.leave(paths[2])
    assert tree.floats == 8 + 16 and tree.find((1, 2, 5)) == [(a, 2)]
    assert tree.grow([(a, 2)], (5, 6)) == 5
    tree.leave(paths[0])
    assert tree.floats == 8 and tree.find((1, 2, 3)) == []  # what was grown and not used is still counted


def test_a_tree_grows_beyond_its_first_places():
    tree = Tree(heads=1, d=1, lanes=1)
    assert [tree.rows(50, 1), tree.rows(50, 2), tree.rows(200, 1)] == [0, 50, 100]
    assert (
        tree.room[:300].tolist() == [1] * 50 + [2] * 50 + [1] * 200
        and len(set(tree.base[:300].tolist())) == 300
    )


def test_a_model_is_left_alone_where_the_kernels_do_not_compute_it():
    llama = made(SHAPES["llama"])
    assert runs(decoder_of(llama), llama)
    for other in (made({"kind": "llama", "head_dim": 6}), model_of("gpt2"), model_of("qwen3_moe")):
        assert not runs(decoder_of(other), other)
    watched = copy.deepcopy(llama)
    watched.model.layers[1].mlp.register_forward_hook(lambda *args: None)
    assert not runs(decoder_of(watched), watched)
