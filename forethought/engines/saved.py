"""Where the weights of a policy lie in a checkpoint's `engine` folder, found without loading any.

base/             the base, where the run has trained or made it; without one:
tokenizer/        its tokenizer alone (which earlier checkpoints have in base/)
adapters/NAME/    a LoRA adapter on the base
models/NAME/      a whole model
engine.json       the base's path or hub name ("source")
joined.json       several engines: each has a folder of this kind, by its name
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forethought.core.errors import CheckpointError
from forethought.engines.base import BASE

ENGINE, JOINED = "engine.json", "joined.json"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """`folder`: its weights, as `transformers` or PEFT read them; None: the base as the run found it at
    `base`. `base`: the folder or hub name of the base; under an adapter what it lies on. `tokenizer`: a
    folder."""

    policy: str
    kind: Literal["model", "adapter", "base"]
    folder: Path | None
    base: str
    tokenizer: Path
    inside: bool  # whether the base stands in the checkpoint; else it is the user's own, unchanged


def saved(engine: Path, policy: str) -> Saved:
    """The policy as this folder holds it. CheckpointError where it holds none of that name."""
    if (engine / JOINED).exists():
        for key in _read(engine / JOINED).get("engines", []):
            inner = BASE if policy == key else policy
            if (inner != BASE or policy == key) and (found := _in(engine / key, inner)):
                return found
    elif found := _in(engine, policy):
        return found
    raise CheckpointError(f"{engine} holds no weights of policy {policy!r}")


def tokenizer_in(engine: Path) -> Path:
    """The folder with the tokenizer of the base."""
    return engine / (TOKENIZER if (engine / TOKENIZER).is_dir() else BASE)


def has_projector(engine: Path) -> bool:
    """Whether the base is a model from scratch that reads pictures, which `transformers` cannot open."""
    config = engine / BASE / "config.json"
    return config.is_file() and '"forethought_sight"' in config.read_text("utf-8")


def _in(engine: Path, policy: str) -> Saved | None:
    inside = (engine / BASE / WEIGHTS).is_file()
    base = str(engine / BASE) if inside else str(_read(engine / ENGINE).get("source", ""))
    said: dict[str, Any] = {"policy": policy, "base": base, "inside": inside}
    if policy == BASE:
        folder = engine / BASE if inside else None
        return Saved(
            kind="model" if inside else "base", folder=folder, tokenizer=tokenizer_in(engine), **said
        )
    if (folder := engine / "adapters" / policy).is_dir():
        return Saved(kind="adapter", folder=folder, tokenizer=tokenizer_in(engine), **said)
    if (folder := engine / "models" / policy).is_dir():
        return Saved(kind="model", folder=folder, tokenizer=folder, **said)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no table")
    return found
