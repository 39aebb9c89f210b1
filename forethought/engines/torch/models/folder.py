"""The files of a model, looked at before anything of them is loaded: weights are safetensors, shards stay
inside the folder, and what the weights' headers say is read without the weights.

Everything here raises ValueError with the file's name; `loading.from_path` says of which model.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import safe_open
from transformers.utils import cached_file

from forethought.engines.torch.models import hub

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.bin.index.json")
MOST_JSON = 64 << 20  # bytes; configurations have thousands, indexes of the largest models some millions

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor in the files -> the type of its numbers, and its shape."""


def find(name: str, file: str) -> Path | None:
    """A file of a folder, or of a name on the hub (fetched where it is not at hand); None where there is
    none. UserError where the hub cannot be asked."""
    local = Path(name)
    if local.is_dir():
        return local / file if (local / file).is_file() else None
    hub.need(name, CONFIG)
    found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def check_kinds(name: str) -> None:
    """No pipe and no device stands where a file should: reading one may never end. An adapter is no model."""
    local = Path(name)
    if not local.is_dir():
        return
    for path in sorted(local.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError(f"{path.name!r} is neither a file nor a folder")
    if (local / "adapter_config.json").exists():
        raise ValueError(
            "it is an adapter (adapter_config.json) on a model that stands elsewhere; give that model as "
            "model.path and this folder as model.adapter"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The table in a JSON file. ValueError where it is too large, unreadable or no table."""
    if (size := path.stat().st_size) > MOST_JSON:
        raise ValueError(f"{path.name} has {size:,} bytes; at most {MOST_JSON:,} are read")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path.name} cannot be read as JSON ({str(e).splitlines()[0]})") from e
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no table but a {type(found).__name__}")
    return found


def tensors_of(name: str) -> Tensors:
    """What the headers of the weights' files say."""
    if (single := find(name, WEIGHTS)) is not None:
        return _headers([single])
    if (index := find(name, INDEX)) is None:
        raise ValueError(_absent(Path(name)))
    paths = []
    for shard in _shards(read_json(index)):
        if (path := find(name, shard)) is None:
            raise ValueError(f"{INDEX} names {shard!r}, which is not there")
        paths.append(path)
    return _headers(paths)


def _shards(index: dict[str, Any]) -> list[str]:
    names = index.get("weight_map")
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(shard, str) for shard in names.values())
    ):
        raise ValueError(f"{INDEX} has no weight_map from names of tensors to names of files")
    for shard in set(names.values()):
        path = PurePosixPath(shard)
        if path.is_absolute() or ".." in path.parts or "\\" in shard or "\0" in shard:
            raise ValueError(f"{INDEX} names {shard!r}, which lies outside of the folder")
        if path.suffix != ".safetensors":
            raise ValueError(f"{INDEX} names {shard!r}; weights are read from safetensors files only")
    return sorted(set(names.values()))


def _headers(paths: list[Path]) -> Tensors:
    """Each file is as long as its header says, or safetensors refuses it."""
    found: Tensors = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                part = file.get_slice(key)
                found[key] = (part.get_dtype(), tuple(part.get_shape()))
    return found


def _absent(local: Path) -> str:
    pickles = (
        sorted(path.name for pattern in PICKLES for path in local.glob(pattern)) if local.is_dir() else []
    )
    if pickles:
        return (
            f"it has pickles only ({', '.join(pickles[:3])}), which can run code when they are read; convert "
            "it to safetensors (load it where you trust it, then save_pretrained)"
        )
    return f"it has no {WEIGHTS} and no {INDEX}; weights are read from safetensors files only"
