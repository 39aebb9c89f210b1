"""Which of a model's ids are tokens. Models are padded to round numbers of rows; an id without a token is
nothing that anybody can read.

The distribution of a policy is over the tokens alone: ids without one get probability 0 wherever logits are
made, in sampling and in training alike, so that the log-probs of both agree. A model without such ids is
computed as it is.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# a logit whose probability is 0 in any precision; infinity times 0 would be no number in an entropy
NEVER = -1e30
ATTRIBUTE = "ids_without_token"


def check_ids(tokenizer: PreTrainedTokenizerBase, rows: int) -> str:
    """Why these tokens are not those of a model that embeds so many; "" where they are."""
    known = tokenizer.get_vocab()
    last = max(known, key=known.__getitem__, default="")
    if max(len(tokenizer), known.get(last, -1) + 1) <= rows:
        return ""
    named = f"{last[:40]!r} has the id {known.get(last, -1)}"
    return (
        f"has {len(tokenizer)} tokens, its model embeds {rows} ({named})"
        if len(tokenizer) > rows
        else f"has a token with the id {known[last]}, its model embeds {rows} ({last[:40]!r})"
    )


def mark(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Remember the ids that are no tokens beside the model; how many there are."""
    rows = model.get_output_embeddings().weight.shape[0]
    empty = sorted(set(range(rows)) - set(tokenizer.get_vocab().values()))
    setattr(model, ATTRIBUTE, torch.tensor(empty, device=model.device) if empty else None)
    return len(empty)


def carry(source: torch.nn.Module, copy: torch.nn.Module) -> None:
    """A copy of a model has the same tokens."""
    setattr(copy, ATTRIBUTE, empty_of(source))


def empty_of(model: torch.nn.Module) -> torch.Tensor | None:
    """Ids without a token; None: there are none, or nobody has said so."""
    return getattr(model, ATTRIBUTE, None)


def masked(model: torch.nn.Module, logits: torch.Tensor) -> torch.Tensor:
    """Logits [..., vocabulary] of which ids without a token have `NEVER`."""
    empty = empty_of(model)
    return logits if empty is None else logits.index_fill(-1, empty, NEVER)
