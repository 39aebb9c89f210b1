"""What a model card says of where a model comes from: its run, its measurements, its data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.recipe.schema import Recipe
from forethought.runs.rundata import NAME as DATA
from forethought.store import METRICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The newest evaluation up to a step: name -> (value, low, high, n), a 95 % interval over tasks."""

    step: int
    values: dict[str, tuple[float, float, float, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    run: Path
    step: int
    recipe: Recipe
    measured: Measured | None


def measured(run: Path, step: int) -> Measured | None:
    """The newest evaluation of the run up to this step, None where there is none."""
    found = None
    for line in _lines(run / METRICS):
        if line.get("step", step + 1) <= step and any(key.startswith("eval/") for key in line):
            found = line
    if found is None:
        return None
    names = [key.removeprefix("eval/") for key in found if key.startswith("eval/") and "@" not in key]
    values = {
        name: (
            float(found[f"eval/{name}"]),
            float(found[f"eval_low/{name}"]),
            float(found[f"eval_high/{name}"]),
            int(found[f"eval_n/{name}"]),
        )
        for name in names
        if f"eval_low/{name}" in found
    }
    return Measured(step=found["step"], values=values)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                yield json.loads(text)
            except ValueError:
                raise UserError(f"{path}:{number}: not a line of JSON") from None


def data_of(run: Path) -> dict[str, dict[str, Any]]:
    """Address in the recipe -> {"file", "bytes", "sha256"} of what the run read."""
    path = run / DATA
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path}: not JSON; it says which data the run began with") from None
    return {where: entry for where, entry in said.items() if isinstance(entry, dict) and "sha256" in entry}
