"""From hidden states to logits, with the scalings that some models apply after their head. Ids without a
token get none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from forethought.engines.torch.forest.vocabulary import masked


def logits_of(model: PreTrainedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """`hidden -> logits`: Cohere multiplies by `logit_scale`, Granite divides by `logits_scaling`, Gemma 2
    caps."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        out = head(hidden) if scale == 1 else head(hidden) * scale
        return masked(model, out if cap is None else torch.tanh(out / cap) * cap)

    return logits
