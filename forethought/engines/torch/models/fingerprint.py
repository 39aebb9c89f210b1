"""Which model this is: a digest of its configuration and of its weights. An adapter is worth nothing on
another base, and a base is only named by its path: what stands there may have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forethought.core.errors import CheckpointError

SIDE = (
    "transformers_version",
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    # say nothing of what is computed
    "pad_token_id",
    "initializer_range",
    "attention_dropout",
    "auto_map",
    "model_name",
)
PLACES = 64  # numbers of each tensor that the first form looked at in order
RUN = 1 << 15  # pairs of numbers that are multiplied with their places at once: 256 KiB, which a cache holds
ODD = 0x9E3779B97F4A7C15 - (
    1 << 64
)  # 2^64 over the golden ratio, as int64; odd, so no bit of a product is lost
FORM = "2:"  # of a digest in which every number counts with its place


@dataclass(frozen=True, slots=True)
class Fingerprint:
    config: str
    weights: str
    first_form: str  # of the weights, as runs before this form have saved it
    told: str  # for people

    def differs(self, other: dict[str, str], weights: bool) -> str:
        """How this model is not one that was saved, in words; "" where it is. `weights`: whether they count
        too (not where the checkpoint holds its own)."""
        here = self.weights if other["weights"].startswith(FORM) else self.first_form
        if self.config == other["config"] and (here == other["weights"] or not weights):
            return ""
        return (
            f"now {self.told} with the digest {self.config}/{here}, then {other['told']} with "
            f"{other['config']}/{other['weights']}"
        )


def check_base(here: Fingerprint, meta: Mapping[str, Any], directory: Path, source: str) -> None:
    """CheckpointError where `source` holds another model than the one that was trained: adapters mean nothing
    on that. `meta`: what the checkpoint in `directory` says."""
    if found := here.differs(meta["base"], weights=not meta["base_moved"]):
        raise CheckpointError(
            f"{directory} was saved on another base than {source} holds ({found}); put the one that "
            "it was trained on back there"
        )


def config_digest(raw: dict[str, Any]) -> str:
    """Of the configuration as it stands in its file, so that a new version of transformers changes
    nothing."""
    kept = {key: value for key, value in raw.items() if key not in SIDE}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=8).hexdigest()


@torch.no_grad()
def fingerprint(model: torch.nn.Module, config: str) -> Fingerprint:
    """Of a model as it was loaded. Every number counts with its place. Widened to float32, weights are the
    same on every device and in every type that holds them exactly."""
    digest, first = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
    places: dict[torch.device, torch.Tensor] = {}
    for name, p in model.named_parameters():
        bits = p.detach().float().contiguous().view(torch.int32).flatten()
        if bits.device not in places:
            places[bits.device] = (torch.arange(RUN, device=bits.device) * 2 + 1) * ODD
        head = f"{name} {tuple(p.shape)} "
        digest.update(f"{head}{_placed(bits, places[bits.device])}".encode())
        some = bits[:: max(1, bits.numel() // PLACES)].cpu().numpy().astype(np.int32)
        total = bits.cpu().numpy().sum(dtype=np.int64)  # five times as fast as PyTorch's sum
        first.update(f"{head}{total}".encode() + some.tobytes())
    text = model.config.get_text_config()
    told = (
        f"{model.config.model_type}, {sum(p.numel() for p in model.parameters()):,} weights, "
        f"{text.vocab_size:,} ids{', tied' if getattr(text, 'tie_word_embeddings', False) else ''}"
    )
    return Fingerprint(config, FORM + digest.hexdigest(), first.hexdigest(), told)


def _placed(bits: torch.Tensor, places: torch.Tensor) -> list[int]:
    """Sums (modulo 2^64) of the bits, two numbers at a time, each times an odd number that belongs to its
    place: any order of adding gives the same, and no change of one number does."""
    if bits.numel() % 2 or bits.storage_offset() % 2:
        bits = torch.cat([bits, bits.new_zeros(bits.numel() % 2)])
    runs = bits.view(torch.int64).split(RUN)
    if bits.device.type == "cpu":  # six times as fast; elsewhere there is none for whole numbers
        sums = [torch.dot(run, places[: run.numel()]) for run in runs]
    else:
        sums = [torch.sum(run * places[: run.numel()]) for run in runs]
    return torch.stack(sums).tolist() if sums else []
