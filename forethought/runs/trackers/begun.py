"""The start of a run, as its trackers hear it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What a tracker is told at its start. `id`: the same for the same run whenever it is resumed; `step`:
    the run's when this process begins; `config`: the resolved recipe, flat, keys such as stage.0.optim.lr."""

    out: Path
    name: str  # of the run: its folder's
    project: str  # of the recipe
    id: str
    step: int
    config: Mapping[str, str | float | bool]
