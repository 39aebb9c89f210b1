"""Regions: the largest differences exactly, chance overlaps, numbers held bit for bit, transplants and arcs
worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from test_torch_training import SFT
from torch_kit import engine_of, forest, model_of, same, snapshot, stir

from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective
from forethought.engines import vectors
from forethought.engines.torch.policies.regions import numbers, slerp_tensor
from forethought.engines.torch.policies.select import draw_indices, largest
from forethought.learn.losses import term
from forethought.recipe.schema import OptimSpec

LOSS = Objective((term("sft", 7.0),))


def started(kind: str = "llama", **fields):
    """The base, a frozen copy of how it began, and a base that has moved since."""
    engine = engine_of(model_of(kind, **fields))
    engine.fork("base", "start", "frozen")
    stir(engine, "base")
    return engine


def update(engine, policy: str, seed: int = 1) -> dict[str, float]:
    engine.forward_backward(Batch(policy=policy, segments=tuple(forest(seed, **SFT))), LOSS)
    return reduce(engine.optim_step(policy))


def values(engine, policy: str, region: str) -> list[bytes]:
    own = numbers(engine.weights, policy)
    return [
        own[k].detach().take(i).numpy().tobytes() for k, i in engine.regions.found[region].indices.items()
    ]


def outside(engine, policy: str, region: str) -> torch.Tensor:
    """Copies of all other numbers."""
    found, out = engine.regions.found[region].indices, []
    for k, p in numbers(engine.weights, policy).items():
        mask = torch.ones(p.numel(), dtype=torch.bool)
        mask[found.get(k, torch.empty(0, dtype=torch.int64))] = False
        out.append(p.detach().flatten()[mask].clone())
    return torch.cat(out)


# Choosing ---------------------------------------------------------------------------------------------------


def test_the_largest_differences_by_hand():
    """|now - then| = 3, 1, 1 and 2, 1, 5: two are 5 and 3, then 2, then the ones, the earlier first."""
    now = {"a": torch.tensor([3.0, 1.0, -1.0]), "b": torch.tensor([[2.0, 0.0, -5.0]])}
    then = {"a": torch.zeros(3), "b": torch.tensor([[0.0, 1.0, 0.0]])}
    found = {n: {k: i.tolist() for k, i in largest(now, then, n).items()} for n in range(1, 7)}
    assert (
        found[1] == {"a": [], "b": [2]}
        and found[2] == {"a": [0], "b": [2]}
        and found[3] == {"a": [0], "b": [0, 2]}
    )
    assert found[4] == {"a": [0, 1], "b": [0, 2]} and found[5] == {"a": [0, 1, 2], "b": [0, 2]}
    assert found[6] == {"a": [0, 1, 2], "b": [0, 1, 2]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_are_those_of_a_full_sort(dtype):
    """On numbers of every size, subnormal ones and many ties among them."""
    generator = torch.Generator().manual_seed(0)
    now = {
        k: (
            torch.randn(n, generator=generator) * 10.0 ** torch.randint(-44, 10, (n,), generator=generator)
        ).to(dtype)
        for k, n in (("a", 3000), ("b", 1), ("c", 2000))
    }
    now["d"] = now["c"].roll(7)
    then = {k: torch.zeros_like(v) for k, v in now.items()}
    gaps = torch.cat([v.float().abs() for v in now.values()])
    order = gaps.sort(descending=True, stable=True).indices
    for count in (1, 2, 17, 1000, 4001, 7001):
        flags = torch.cat(
            [torch.zeros(now[k].numel()).index_fill_(0, i, 1.0) for k, i in largest(now, then, count).items()]
        )
        assert flags.sum() == count and set(flags.nonzero()[:, 0].tolist()) == set(order[:count].tolist())


def test_what_is_not_finite_has_no_order():
    with pytest.raises(ValueError, match="not finite"):
        largest({"a": torch.tensor([1.0, math.nan])}, {"a": torch.zeros(2)}, 1)


@pytest.mark.parametrize(
    ("size", "count"), [(10, 0), (10, 3), (10, 5), (10, 6), (10, 10), (100_000, 60_000), (1_000_000, 100)]
)
def test_numbers_drawn_are_different_and_in_range(size, count):
    found = draw_indices(size, count, torch.Generator().manual_seed(1))
    assert len(found) == count and found.dtype == torch.int64
    assert found.tolist() == sorted(set(found.tolist())) and (
        count == 0 or 0 <= found[0] and found[-1] < size
    )
    assert torch.equal(found, draw_indices(size, count, torch.Generator().manual_seed(1)))


def test_every_number_is_drawn_equally_often():
    generator = torch.Generator().manual_seed(0)
    hits = sum(torch.zeros(8).index_fill_(0, draw_indices(8, 3, generator), 1.0) for _ in range(4000))
    assert (hits / 4000 - 3 / 8).abs().max() < 4 * math.sqrt(3 / 8 * 5 / 8 / 4000)  # four standard errors


# Regions of policies ----------------------------------------------------------------------------------------


def test_a_region_is_the_share_that_moved_most_over_all_tensors_together():
    engine = started()
    before, after = numbers(engine.weights, "start"), numbers(engine.weights, "base")
    assert before.keys() == after.keys()
    total = sum(p.numel() for p in after.values())
    for share in (0.01, 1e-9, 1.0):
        count = engine.find_region("core", "base", "start", share)
        assert count == max(1, math.floor(share * total)) == engine.regions.found["core"].count()
    engine.find_region("core", "base", "start", 0.01)
    found, gaps = engine.regions.found["core"], {k: (after[k] - before[k]).abs().flatten() for k in after}
    inside = torch.cat([gaps[k][i] for k, i in found.indices.items()])
    rest = torch.cat(
        [
            g.index_fill(0, found.indices.get(k, torch.empty(0, dtype=torch.int64)), 0.0)
            for k, g in gaps.items()
        ]
    )
    assert inside.min() >= rest.max() and len(inside) == total // 100
    assert len(found.indices) > 5  # wherever in the model they are
    assert engine.overlap("core", "core") == 1


def test_two_random_regions_of_one_share_overlap_by_chance():
    """Their Jaccard index is p / (2 - p) on average: 0.3 / 1.7, with a standard error below 0.003 for so many
    numbers."""
    engine = started(vocab_size=1024)
    total = sum(p.numel() for p in engine.weights.parameters("base").values())
    engine.find_region("core", "base", "start", 0.3)
    first, second = engine.random_region("one", "core", 1), engine.random_region("two", "core", 2)
    assert first == second == int(0.3 * total) > 20_000
    counts = [
        {k: len(i) for k, i in engine.regions.found[name].indices.items()} for name in ("core", "one", "two")
    ]
    assert counts[0] == counts[1] == counts[2]
    found = engine.overlap("one", "two")
    size = {k: p.numel() for k, p in engine.weights.parameters("base").items()}
    # the share differs a little from tensor to tensor
    both = sum(n * n / size[k] for k, n in counts[0].items())
    assert found == pytest.approx(both / (2 * first - both), abs=0.01) and found == pytest.approx(
        0.3 / 1.7, abs=0.02
    )
    engine.random_region("again", "core", 1)
    assert engine.overlap("one", "again") == 1
    sets = [
        {(k, j) for k, i in engine.regions.found[name].indices.items() for j in i.tolist()}
        for name in ("one", "two")
    ]
    assert found == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))


@pytest.mark.parametrize(
    "optim",
    [
        OptimSpec(lr=0.01, weight_decay=0.1, warmup=0),
        OptimSpec(name="muon", lr=0.01, muon_lr=0.05, weight_decay=0.1, warmup=0),
    ],
    ids=["adamw", "muon"],
)
@pytest.mark.parametrize("policy", ["base", "plan", "copy"])
def test_held_numbers_stay_bit_for_bit_while_the_others_move(policy, optim):
    """Two free updates give every moment something to push with; then half of the numbers are held."""
    engine = engine_of(model_of("qwen2"))
    if policy != "base":
        engine.fork("base", policy, "adapter" if policy == "plan" else "model")
    stir(engine, policy)
    engine.fork(policy, "start", "frozen")
    engine.prepare(policy, optim)
    for seed in (1, 2):
        update(engine, policy, seed)
    engine.find_region("core", policy, "start", 0.5)
    engine.hold(policy, "core")
    before, rest = values(engine, policy, "core"), outside(engine, policy, "core")
    for seed in range(4):
        update(engine, policy, seed)
    assert values(engine, policy, "core") == before
    assert (outside(engine, policy, "core") != rest).float().mean() > 0.9
    engine.hold(policy, "")
    update(engine, policy)
    assert values(engine, policy, "core") != before


def test_a_region_of_a_model_can_be_held_on_the_base():
    engine = engine_of()
    engine.fork("base", "start", "frozen")
    engine.fork("base", "trial", "model")
    engine.prepare("trial", OptimSpec(warmup=0))
    update(engine, "trial")
    engine.find_region("core", "trial", "start", 0.2)
    engine.prepare("base", OptimSpec(warmup=0))
    engine.hold("base", "core")
    before = values(engine, "base", "core")
    update(engine, "base")
    assert values(engine, "base", "core") == before == values(engine, "start", "core")


def test_held_gradients_do_not_shrink_the_others():
    """Clipping sees the norm of what moves, and no moment gathers what is held."""
    engine = started()
    engine.prepare("base", OptimSpec(lr=0.0, weight_decay=0.0, clip_norm=0.01, warmup=0))
    engine.find_region("core", "base", "start", 0.5)
    engine.forward_backward(Batch(policy="base", segments=tuple(forest(1, **SFT))), LOSS)
    squares = 0.0
    for k, p in engine.weights.parameters("base").items():
        if p.grad is not None:
            free = p.grad.flatten().clone().double()
            free[engine.regions.found["core"].indices.get(k, torch.empty(0, dtype=torch.int64))] = 0
            squares += float(free @ free)
    engine.forget("base")
    whole = update(engine, "base")["grad_norm/base"]
    engine.hold("base", "core")
    assert update(engine, "base")["grad_norm/base"] == pytest.approx(math.sqrt(squares), rel=1e-5)
    assert whole > 1.05 * math.sqrt(squares)
    state = {k: v for k, v in engine.optimizers["base"].state().items() if k.endswith("exp_avg")}
    for k, i in engine.regions.found["core"].indices.items():
        assert state[f"{k}|exp_avg"].take(i).abs().max() == 0


def test_a_hold_goes_on_after_save_and_load(tmp_path):
    engine = started()
    engine.prepare("base", OptimSpec(warmup=0))
    engine.find_region("core", "base", "start", 0.3)
    engine.random_region("chance", "core", 5)
    engine.hold("base", "core")
    update(engine, "base")
    engine.save(tmp_path)
    other = engine_of(model_of("llama"))
    other.load(tmp_path)
    for name in ("core", "chance"):
        a, b = engine.regions.found[name], other.regions.found[name]
        assert a.sizes == b.sizes and same(a.indices, b.indices)
    before = values(other, "base", "core")
    for e in (engine, other):
        update(e, "base", 2)
    assert values(other, "base", "core") == before and same(snapshot(engine, "base"), snapshot(other, "base"))
    plain = started()
    plain.save(tmp_path / "plain")
    other.load(tmp_path / "plain")
    assert other.regions.found == {} and other.regions.holds == {}


def test_a_dropped_policy_leaves_no_hold_behind():
    engine = engine_of()
    engine.fork("base", "plan")
    stir(engine, "plan")
    engine.fork("plan", "start", "frozen")
    engine.find_region("core", "plan", "start", 0.5)
    engine.hold("plan", "core")
    engine.drop("plan")
    assert engine.regions.holds == {}


# Moving weights ---------------------------------------------------------------------------------------------


def test_a_transplant_takes_the_region_and_nothing_else():
    engine = started()
    engine.find_region("core", "base", "start", 0.1)
    rest, version = outside(engine, "base", "core"), engine.policies()["base"]
    engine.transplant("base", "start", "core")
    assert values(engine, "base", "core") == values(engine, "start", "core")
    assert torch.equal(outside(engine, "base", "core"), rest)
    assert engine.policies()["base"] == version and engine.weights.base_moved


def test_an_arc_by_hand():
    """Half way between (1, 0) and (0, 1) is (1, 1) / sqrt 2; between (2, 0) and (0, 1) at a third: sin 60 (2,
    0) + sin 30 (0, 1)."""
    assert slerp_tensor(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5).tolist() == pytest.approx(
        [math.sqrt(0.5)] * 2
    )
    assert slerp_tensor(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), 1 / 3).tolist() == pytest.approx(
        [math.sqrt(3), 0.5]
    )
    a, b = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.5, -1.0, 3.0])
    assert slerp_tensor(a, b, 0.0).tolist() == a.tolist() and slerp_tensor(
        a, b, 1.0
    ).tolist() == pytest.approx(b.tolist())


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([1.0, 0.0], [3.0, 0.0], [1.5, 0.0]),  # parallel
        ([1.0, 0.0], [1.0, 5e-4], [1.0, 1.25e-4]),  # half a thousandth of a radian apart
        ([1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]),  # opposite: no arc is the shortest
        ([0.0, 0.0], [4.0, 8.0], [1.0, 2.0]),
        ([4.0, 8.0], [0.0, 0.0], [3.0, 6.0]),
        ([0.0], [0.0], [0.0]),
    ],
)
def test_where_there_is_no_angle_the_line_is_straight(a, b, wanted):
    assert slerp_tensor(torch.tensor(a), torch.tensor(b), 0.25).tolist() == pytest.approx(wanted, abs=1e-7)


def test_the_line_begins_at_a_thousandth_of_a_radian():
    assert (
        vectors.arc(1.0, 1.0, math.cos(0.9e-3), 0.5) is None
        and vectors.arc(1.0, 1.0, math.cos(1.1e-3), 0.5) is not None
    )


def test_slerp_moves_the_numbers_outside_the_region_along_their_own_arc():
    engine = started()
    engine.find_region("core", "base", "start", 0.1)
    inside, source = (
        values(engine, "base", "core"),
        {k: p.clone() for k, p in numbers(engine.weights, "start").items()},
    )
    before, found = snapshot(engine, "base"), engine.regions.found["core"].indices
    engine.slerp("base", "start", 0.3, outside="core")
    assert values(engine, "base", "core") == inside
    for k, p in numbers(engine.weights, "base").items():
        free = torch.ones(p.numel(), dtype=torch.bool)
        free[found.get(k, torch.empty(0, dtype=torch.int64))] = False
        a, b = (x.flatten()[free].double() for x in (before[k], source[k]))
        angle = (
            torch.acos((a @ b / a.norm() / b.norm()).clamp(-1, 1))
            if a.norm() * b.norm() > 0
            else torch.tensor(0.0)
        )
        line = 0.7 * a + 0.3 * b
        arc = (torch.sin(0.7 * angle) * a + torch.sin(0.3 * angle) * b) / torch.sin(angle)
        torch.testing.assert_close(
            p.detach().flatten()[free].double(),
            line if torch.sin(angle) < 1e-3 else arc,
            atol=1e-6,
            rtol=1e-5,
        )


def test_slerp_everywhere_reaches_the_other_policy():
    engine = started()
    engine.slerp("base", "start", 1.0)
    for k, p in numbers(engine.weights, "base").items():
        torch.testing.assert_close(p, numbers(engine.weights, "start")[k], atol=1e-6, rtol=1e-5)


# Refusals ---------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    engine = started()
    engine.fork("base", "plan")
    engine.find_region("core", "base", "start", 0.1)
    for share in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="share of a region"):
            engine.find_region("x", "base", "start", share)
    with pytest.raises(ValueError, match="'plan' and 'start' do not have the same parameters"):
        engine.find_region("x", "plan", "start", 0.1)
    with pytest.raises(KeyError, match="no policy 'nobody'"):
        engine.find_region("x", "base", "nobody", 0.1)
    with pytest.raises(ValueError, match=r"no region 'x'; there are \['core'\]"):
        engine.hold("base", "x")
    with pytest.raises(ValueError, match="was found on a policy with other parameters than 'plan' has"):
        engine.hold("plan", "core")
    with pytest.raises(ValueError, match="'start' is frozen"):
        engine.hold("start", "core")
    with pytest.raises(ValueError, match="'start' is frozen"):
        engine.transplant("start", "base", "core")
    with pytest.raises(ValueError, match="'start' is frozen"):
        engine.slerp("start", "base", 0.5)
    assert engine.regions.holds == {} and list(engine.regions.found) == ["core"]
