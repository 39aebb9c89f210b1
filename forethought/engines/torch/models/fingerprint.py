"""Which model this is: a digest of its configuration and of its weights. An adapter is worth nothing on
another base, and a base is only named by its path: what stands there may have changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

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
PLACES = 64  # numbers of each tensor that are looked at in order


@dataclass(frozen=True, slots=True)
class Fingerprint:
    config: str
    weights: str
    told: str  # for people

    def differs(self, other: dict[str, str], weights: bool) -> str:
        """How this model is not one that was saved, in words; "" where it is. `weights`: whether they count
        too (not where the checkpoint holds its own)."""
        if self.config == other["config"] and (self.weights == other["weights"] or not weights):
            return ""
        return (
            f"now {self.told} with the digest {self.config}/{self.weights}, then {other['told']} with "
            f"{other['config']}/{other['weights']}"
        )


def config_digest(raw: dict[str, Any]) -> str:
    """Of the configuration as it stands in its file, so that a new version of transformers changes
    nothing."""
    kept = {key: value for key, value in raw.items() if key not in SIDE}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=8).hexdigest()


@torch.no_grad()
def fingerprint(model: torch.nn.Module, config: str) -> Fingerprint:
    """Of a model as it was loaded. Every number counts, in a sum of bits that any order of adding gives
    alike; some count with their place. Widened to float32, weights are the same on every device and in every
    type that holds them exactly."""
    digest = hashlib.blake2b(digest_size=8)
    for name, p in model.named_parameters():
        bits = p.detach().float().contiguous().view(torch.int32).flatten()
        some = bits[:: max(1, bits.numel() // PLACES)].cpu().numpy().astype(np.int32)
        digest.update(
            f"{name} {tuple(p.shape)} {bits.sum(dtype=torch.int64).item()}".encode() + some.tobytes()
        )
    text = model.config.get_text_config()
    told = (
        f"{model.config.model_type}, {sum(p.numel() for p in model.parameters()):,} weights, "
        f"{text.vocab_size:,} ids{', tied' if getattr(text, 'tie_word_embeddings', False) else ''}"
    )
    return Fingerprint(config, digest.hexdigest(), told)
