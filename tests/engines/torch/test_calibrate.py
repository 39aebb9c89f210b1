"""Timing a model's shape on this machine gives every speed that an estimate asks for."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest
import torch_kit  # noqa: F401  one thread

from forethought.engines.torch import calibrate
from forethought.engines.torch.calibrate import speeds
from forethought.engines.torch.forest.forward import targets_of
from forethought.engines.torch.forest.native.library import library
from forethought.estimate.shapes import Shape
from forethought.estimate.speed import Speed, _read
from forethought.recipe.schema import AdapterSpec, EngineSpec

TINY = Shape(layers=2, width=16, heads=2, kv_heads=1, head=8, mlp=16, vocabulary=20, tied=False)


def test_every_speed_is_there_and_can_be():
    engine = EngineSpec(device="cpu", threads=1, precision="fp32", layers="torch")
    found = speeds(asdict(TINY), engine, AdapterSpec(rank=2))
    assert set(found) == {f.name for f in fields(Speed)}
    speed = _read(found)
    assert speed.row > 0 and speed.read > 0 and speed.learn_base > 0 and speed.held > 1e7


@pytest.mark.skipif(library() is None, reason="the kernels are not built here")
def test_what_sampling_leaves_is_read_where_it_is_timed(monkeypatch):
    """In whole weights and in an adapter, at two depths, two sizes of batch."""
    read, said = [], calibrate._said

    def watched(engine, policy, paths, tokens):
        batch = said(engine, policy, paths, tokens)
        left = engine.kernel_weights.left_by(policy)
        whole = [
            left.find(row.packed, row.segments, targets_of(row).before_N) for _, row in engine._rows(batch)
        ]
        read.append((policy, all(found is not None for found in whole)))
        return batch

    monkeypatch.setattr(calibrate, "_said", watched)
    monkeypatch.setattr(calibrate, "PROMPT", 12)
    spec = EngineSpec(device="cpu", threads=1, precision="fp32", layers="c", sampling="c", reuse_forward="on")
    wide = Shape(layers=2, width=32, heads=2, kv_heads=1, head=16, mlp=32, vocabulary=20, tied=False)
    found = speeds(asdict(wide), spec, AdapterSpec(rank=2))
    assert read == [(policy, True) for policy in ("base", "base", "one", "one")] * 2
    assert all(0 < found[f"reuse_{name}"] <= found[f"learn_{name}"] for name in ("base", "adapter"))
