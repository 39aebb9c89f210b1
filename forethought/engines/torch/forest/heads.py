"""From hidden states to logits, with the scalings that some models apply after their head. Ids without a
token get none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from transformers import PreTrainedModel

from forethought.engines.torch.forest.native import train as native
from forethought.engines.torch.forest.native.instructions import ROUNDED
from forethought.engines.torch.forest.native.library import library
from forethought.engines.torch.forest.vocabulary import masked

LARGE = 1 << 13  # words of a head whose product is worth a look


def logits_of(model: PreTrainedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """`hidden -> logits`: Cohere multiplies by `logit_scale`, Granite divides by `logits_scaling`, Gemma 2
    caps."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False) if _emulated(head, hidden) else nullcontext():
            out = head(hidden) if scale == 1 else head(hidden) * scale
        return masked(model, out if cap is None else torch.tanh(out / cap) * cap)

    plain = type(head) is torch.nn.Linear and head.bias is None and scale == 1 and cap is None
    if plain and native.fits(head.weight):
        logits.weight = head.weight  # who knows the logits needs no more for their gradient
    return logits


def _emulated(head: torch.nn.Module, hidden: torch.Tensor) -> bool:
    """Whether PyTorch would emulate a large head's product in bf16: a processor without instructions for it
    takes several times as long as in float32, and gains nothing."""
    weight = getattr(head, "weight", None)
    return (
        torch.is_autocast_enabled("cpu")
        and isinstance(weight, torch.Tensor)
        and native.fits(hidden)
        and native.fits(weight)
        and len(weight) >= LARGE
        and library().products.way == ROUNDED
    )
