"""Whether a model can be held at all, said before a weight of it is read: what surely lies in memory
(weights, optimizer, gradients, adapters), against what the machine has free, and what fits instead.

Activations and keys come on top of it; how many of them are computed at once the engine finds by itself.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forethought.core.errors import RecipeError, UserError
from forethought.core.free import free_memory
from forethought.estimate.hardware import GIB, Hardware, cpu, this_machine
from forethought.estimate.memory import MERGE_BELOW, NF4, Parts
from forethought.estimate.shapes import shape_of
from forethought.recipe.check import check
from forethought.recipe.layout import policy_of, trains_whole, weights_of
from forethought.recipe.schema import ModelSpec, Recipe, TrainingSpec

MOST_HEADER = 100 << 20  # bytes, as safetensors has it
SAME = 0.9  # of the weights by a configuration that its files hold at least
# settings that take less, from the one that changes least
TRIALS: tuple[tuple[str, ...], ...] = (
    ("engine.weights=bf16",),
    ("layout=adapter",),
    ("layout=adapter", "engine.weights=bf16"),
    ("layout=adapter", "engine.weights=nf4"),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """`weights`: of a model. `ends`: of its embedding and head among them. `rank`: of a LoRA adapter of rank
    one on all other matrices."""

    weights: int
    ends: int
    rank: int


def check_room(recipe: Recipe, trains: bool = True, free: float | None = None) -> None:
    """RecipeError where the model of a recipe does not fit: to train it, or (`trains` = False) to sample from
    it. `free`: bytes; by default what this machine has."""
    model = recipe.model
    if not model.path or (found := counted(model)) is None:
        return
    hardware = cpu() if recipe.engine.device == "cpu" else this_machine()
    if free is None:
        free = hardware.memory if hardware.kind == "cuda" else free_memory()
    parts = needs(recipe, found, hardware, trains)
    if not free or (total := sum(parts.values())) <= free:
        return
    said = ", ".join(f"{what} {size / GIB:.1f}" for what, size in parts.items())
    raise RecipeError(
        "model.path",
        f"{model.path} has {found.weights:,} weights; this takes at least {total / GIB:.1f} GiB ({said}), "
        f"and {free / GIB:.1f} GiB are free; {_instead(recipe, found, hardware, trains, free)}",
    )


def needs(recipe: Recipe, model: Counted, hardware: Hardware, trains: bool = True) -> Parts:
    """Bytes by part, of the stage that takes most."""
    each = _stored(recipe, hardware)
    # embedding and head are never in four bits
    plain = each if each >= 2 else 4.0 if hardware.kind == "cpu" else 2.0
    weights = {"weights": each * (model.weights - model.ends) + plain * model.ends}
    stages = [stage for stage in recipe.stage if trains and isinstance(stage, TrainingSpec)]
    found = [weights | _trained(recipe, stage, model, each) for stage in stages]
    return max(found, key=lambda parts: sum(parts.values()), default=weights)


def _trained(recipe: Recipe, stage: TrainingSpec, model: Counted, each: float) -> Parts:
    own = weights_of(recipe, stage)
    policies = len({policy_of(recipe, role) for role in stage.roles})
    n = {"base": 1, "model": policies}.get(own, 0) * model.weights
    if own == "adapter":
        n = policies * recipe.adapter.rank * model.rank
    moments = 4.0 if stage.optim.name == "muon" and own != "adapter" else 8.0
    parts = {"optimizer": moments * n, "gradients": 4.0 * n}
    if own != "base":
        parts["models of the roles" if own == "model" else "adapters"] = 4.0 * n
    if own == "adapter" and model.weights < MERGE_BELOW and recipe.engine.weights != "nf4":
        parts["copies that sample"] = policies * each * model.weights
    return parts


def _stored(recipe: Recipe, hardware: Hardware) -> float:
    kept = {"fp32": 4.0, "bf16": 2.0, "nf4": NF4}
    return kept.get(recipe.engine.weights, 4.0 if trains_whole(recipe) or hardware.kind == "cpu" else 2.0)


def _instead(recipe: Recipe, model: Counted, hardware: Hardware, trains: bool, free: float) -> str:
    for sets in TRIALS:
        changed = _with(recipe, dict(text.split("=") for text in sets))
        try:
            check(changed)
        except RecipeError:  # another setting stands against it
            continue
        if (total := sum(needs(changed, model, hardware, trains).values())) <= free:
            words = " ".join(f"--set {text}" for text in sets)
            return f"{words} takes at least {total / GIB:.1f} GiB"
    return "no layout fits: take a smaller model, or a machine with more memory"


def _with(recipe: Recipe, said: dict[str, Any]) -> Recipe:
    if "engine.weights" in said:
        recipe = replace(recipe, engine=replace(recipe.engine, weights=said["engine.weights"]))
    if "layout" not in said:
        return recipe
    stages = (replace(s, weights="auto") if isinstance(s, TrainingSpec) else s for s in recipe.stage)
    return replace(recipe, layout=said["layout"], stage=tuple(stages))


# ---- what a model has


def counted(model: ModelSpec) -> Counted | None:
    """By its configuration, or by the headers of its files; None where neither tells, or where the files hold
    less than the configuration says: loading names what does not match."""
    held = _by_headers(Path(model.path).expanduser())
    try:
        shape = shape_of(model.path)
    except UserError:
        return held
    if held and held.weights < SAME * shape.parameters:
        return None
    ends = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    return Counted(shape.parameters, ends, shape.adapter(1))


def _by_headers(folder: Path) -> Counted | None:
    total = ends = rank = 0
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        for name, shape in _tensors(file):
            total += math.prod(shape)
            if re.search(r"embed|lm_head|wte|wpe", name):
                ends += math.prod(shape)
            elif len(shape) == 2:
                rank += sum(shape)
    return Counted(total, ends, rank) if total else None


def _tensors(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What a safetensors file's header says; nothing of one that cannot be read, which loading names."""
    try:
        with open(file, "rb") as data:
            (size,) = struct.unpack("<Q", data.read(8))
            header = json.loads(data.read(size)) if size <= MOST_HEADER else {}
        for name, said in header.items():
            if name != "__metadata__":
                yield name, tuple(int(n) for n in said["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
        return
