"""AdamW by the kernels is PyTorch's, up to rounding, and its state is PyTorch's too."""

from __future__ import annotations

import pytest
import torch

from forethought.engines.torch.forest.native.library import library
from forethought.engines.torch.forest.native.train import crew
from forethought.engines.torch.policies import adamw
from forethought.engines.torch.policies.optim import Optimizer
from forethought.recipe.schema import OptimSpec

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels are not built here")
SIZES = {"one": (3,), "wide": (300, 257), "long": (adamw.PIECE + 5,), "still": (7, 2), "none": (4, 4)}


def weights() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {k: torch.nn.Parameter(torch.randn(size, generator=generator)) for k, size in SIZES.items()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1 + step)
    return {k: 10.0**-step * torch.randn(size, generator=generator) for k, size in SIZES.items()}


def moved(optimizer: Optimizer, steps: range, across: bool = False) -> list[float]:
    """The norms of some steps. One weight has no gradient, one only now and then. `across`: gradients of
    matrices lie by columns."""
    norms = []
    for step in steps:
        for name, g in gradients(step).items():
            if name != "none" and (name != "one" or step != 1):
                g = g.t().contiguous().t() if across and g.ndim == 2 else g
                optimizer.parameters[name].grad = g
        norm = optimizer.gradient_norm()
        norms.append(norm.item())
        optimizer.step(norm, 0.5)
    return norms


@pytest.fixture
def by_kernels(monkeypatch):
    def made(wanted: bool, **spec) -> Optimizer:
        monkeypatch.setattr(adamw, "LARGE", 1 if wanted else 1 << 40)
        optimizer = Optimizer(
            weights(), OptimSpec(**{"lr": 0.01, "weight_decay": 0.1, "clip_norm": 1.0} | spec)
        )
        assert optimizer.by_kernels == wanted
        return optimizer

    return made


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        torch.testing.assert_close(a[name], b[name], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("clip", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("threads", [1, 3])
def test_it_is_pytorchs(clip, threads, by_kernels, monkeypatch):
    monkeypatch.setattr(crew, "threads", threads)
    ours, theirs = by_kernels(True, clip_norm=clip), by_kernels(False, clip_norm=clip)
    assert moved(ours, range(4)) == pytest.approx(moved(theirs, range(4)), rel=1e-6)
    same(
        {k: p.detach() for k, p in ours.parameters.items()},
        {k: p.detach() for k, p in theirs.parameters.items()},
    )
    same(ours.state(), theirs.state())
    assert torch.equal(ours.parameters["none"], weights()["none"])
    assert all(p.grad is None for p in ours.parameters.values())


def test_threads_change_no_bit(by_kernels, monkeypatch):
    found = []
    for threads in (1, 4):
        monkeypatch.setattr(crew, "threads", threads)
        optimizer = by_kernels(True)
        found.append((moved(optimizer, range(3)), optimizer.state()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][k], found[1][1][k]) for k in found[0][1])


def test_gradients_that_do_not_lie_in_order(by_kernels):
    one, other = by_kernels(True), by_kernels(True)
    assert moved(one, range(2)) == moved(other, range(2), across=True)
    assert all(torch.equal(x, other.state()[name]) for name, x in one.state().items())


@pytest.mark.parametrize("first", [True, False])
def test_one_goes_on_where_the_other_was(first, by_kernels):
    one, straight = by_kernels(first), by_kernels(True)
    moved(one, range(2))
    other = by_kernels(not first)
    with torch.no_grad():
        for name, p in other.parameters.items():
            p.copy_(one.parameters[name])
    other.load(one.state())
    moved(other, range(2, 4))
    moved(straight, range(4))
    same(other.state(), straight.state())


def test_what_is_not_finite_shows(by_kernels):
    optimizer = by_kernels(True)
    optimizer.parameters["wide"].grad = torch.full(SIZES["wide"], float("nan"))
    assert not torch.isfinite(optimizer.gradient_norm())


def test_small_models_and_muon_go_on_as_they_did():
    assert not Optimizer(weights(), OptimSpec()).by_kernels
    inside = {"layers.0.q": torch.nn.Parameter(torch.ones(4, 4)), "rest": torch.nn.Parameter(torch.ones(4))}
    assert not Optimizer(inside, OptimSpec(name="muon")).by_kernels
