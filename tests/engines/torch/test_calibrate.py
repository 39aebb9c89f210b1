"""Timing a model's shape on this machine gives every speed that an estimate asks for."""

from __future__ import annotations

from dataclasses import asdict, fields

import torch_kit  # noqa: F401  one thread

from forethought.engines.torch.calibrate import speeds
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
