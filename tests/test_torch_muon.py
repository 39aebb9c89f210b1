"""Muon on batches of matrices is `torch.optim.Muon` on one after another."""

from __future__ import annotations

import pytest
import torch

from forethought.engines.torch import muon
from forethought.engines.torch.muon import Muon, orthogonal

SHAPES = [(16, 16), (16, 32), (16, 16), (32, 16), (16, 32), (7, 3), (16, 16)]
SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}


def parameters(seed: int) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


@pytest.mark.parametrize("at_once", [1 << 26, 600])  # all of a shape together, and at most two
@pytest.mark.parametrize("nesterov", [True, False])
def test_it_is_the_optimizer_of_torch(nesterov, at_once, monkeypatch):
    monkeypatch.setattr(muon, "AT_ONCE", at_once)
    mine, theirs = parameters(0), parameters(0)
    ours, reference = Muon(mine, nesterov=nesterov, **SETTINGS), torch.optim.Muon(theirs, nesterov=nesterov, **SETTINGS)
    for step in range(4):
        for i, (a, b, g) in enumerate(zip(mine, theirs, parameters(step + 1), strict=True)):
            a.grad = None if (step, i) == (1, 3) else g.detach().clone()  # what has no gradient stays where it is
            b.grad = None if a.grad is None else a.grad.clone()
        ours.step()
        reference.step()
    for a, b, start in zip(mine, theirs, parameters(0), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)  # bf16: another order of summation moves a bit of 2^-8, times the rate
        assert (a - start).abs().max() > 1e-2
        torch.testing.assert_close(ours.state[a], reference.state[b])


def test_singular_values_are_pulled_towards_one():
    """Five quintic steps bring every singular value of a random matrix into [0.5, 1.3], whatever its scale and orientation."""
    for shape in ((3, 12, 20), (3, 20, 12)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
        out = orthogonal(x, (3.4445, -4.7750, 2.0315), 5, 1e-7)
        assert out.shape == shape and out.dtype == torch.bfloat16
        values = torch.linalg.svdvals(out.float())
        assert 0.5 < values.min() and values.max() < 1.3
        signs = torch.linalg.svd(x, full_matrices=False)
        overlap = torch.einsum("kri,kic,krc->k", signs.U, signs.Vh, out.float()) / 12
        assert (overlap > 0.7).all()  # the same singular vectors
