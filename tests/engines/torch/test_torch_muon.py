"""Muon on batches of matrices is `torch.optim.Muon` on one after another."""

from __future__ import annotations

import pytest
import torch

from forethought.engines.torch.policies import muon
from forethought.engines.torch.policies.muon import Muon, orthogonal
from forethought.engines.torch.policies.optim import Optimizer
from forethought.recipe.schema import OptimSpec

SHAPES = [(16, 16), (16, 32), (16, 16), (32, 16), (16, 32), (7, 3), (16, 16)]
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}


def parameters(seed: int) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


@pytest.mark.parametrize("at_once", [1 << 26, 600])  # all of a shape together, and at most two
@pytest.mark.parametrize("nesterov", [True, False])
def test_it_is_the_optimizer_of_torch(nesterov, at_once, monkeypatch):
    monkeypatch.setattr(muon, "AT_ONCE", at_once)
    mine, theirs = parameters(0), parameters(0)
    ours, reference = (
        Muon(mine, nesterov=nesterov, **SETTINGS),
        torch.optim.Muon(theirs, nesterov=nesterov, **SETTINGS),
    )
    for step in range(4):
        for i, (a, b, g) in enumerate(zip(mine, theirs, parameters(step + 1), strict=True)):
            # what has no gradient stays where it is
            a.grad = None if (step, i) == (1, 3) else g.detach().clone()
            b.grad = None if a.grad is None else a.grad.clone()
        ours.step()
        reference.step()
    for a, b, start in zip(mine, theirs, parameters(0), strict=True):
        # bf16: another order of summation moves a bit of 2^-8, times the rate
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
        assert (a - start).abs().max() > 1e-2
        torch.testing.assert_close(ours.state[a], reference.state[b])


def test_in_float32_it_is_the_iteration_in_float64():
    for shape in ((3, 12, 20), (3, 20, 12), (2, 8, 8)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(
            orthogonal(x, COEFFICIENTS, 5, 1e-7).double(),
            orthogonal(x.double(), COEFFICIENTS, 5, 1e-7),
            rtol=0,
            atol=1e-5,
        )


def test_a_run_in_float32_orthogonalises_in_float32():
    """The optimizer hands its precision on: a bf16 update has no more than 8 significant bits, a float32 one
    has more."""
    for dtype, wide in ((torch.bfloat16, False), (torch.float32, True)):
        p = torch.nn.Parameter(torch.zeros(16, 16))
        optimizer = Optimizer({"layers.0.w": p}, OptimSpec(name="muon", muon_lr=1.0, weight_decay=0.0), dtype)
        p.grad = torch.randn(16, 16, generator=torch.Generator().manual_seed(2))
        optimizer.step(torch.tensor(1.0), 1.0)
        assert bool((p.bfloat16().float() != p).any()) == wide


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_singular_values_are_pulled_towards_one(dtype):
    """Five quintic steps bring every singular value of a random matrix into [0.5, 1.3], whatever its scale
    and orientation."""
    for shape in ((3, 12, 20), (3, 20, 12)):
        x = (
            torch.randn(shape, generator=torch.Generator().manual_seed(0))
            * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
        )
        out = orthogonal(x.to(dtype), COEFFICIENTS, 5, 1e-7)
        assert out.shape == shape and out.dtype == dtype
        values = torch.linalg.svdvals(out.float())
        assert 0.5 < values.min() and values.max() < 1.3
        signs = torch.linalg.svd(x, full_matrices=False)
        overlap = torch.einsum("kri,kic,krc->k", signs.U, signs.Vh, out.float()) / 12
        assert (overlap > 0.7).all()  # the same singular vectors
