"""A base kept in four bits a number, under LoRA adapters (QLoRA, arXiv 2305.14314): `engine.weights = "nf4"`,
by bitsandbytes (the extra `nf4`), on a GPU or a CPU.

What is saved is memory, an eighth of float32; each product unpacks its matrix first, so nothing gets faster.
The base is frozen: no stage can train it, and no whole copy of it is made. Embedding, head and norms stay as
they are.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from forethought.core.errors import UserError

MARK = "is_loaded_in_4bit"  # where transformers and PEFT look


def pack(model: PreTrainedModel) -> None:
    """Every linear layer but the head becomes one of four bits, one at a time. UserError where the extra is
    not installed."""
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError:
        raise UserError(
            'engine.weights = "nf4" needs the extra `nf4`: pip install "forethought[nf4]"'
        ) from None
    head = model.get_output_embeddings()
    computed = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    found = [
        (module, key, child)
        for module in model.modules()
        for key, child in module.named_children()
        if type(child) is torch.nn.Linear and child is not head
    ]
    if not found:
        raise UserError(f'engine.weights = "nf4": a {type(model).__name__} has no plain linear layers')
    for module, key, child in found:
        packed = Linear4bit(
            child.in_features,
            child.out_features,
            child.bias is not None,
            compute_dtype=computed,
            quant_type="nf4",
            device="meta",
        )
        packed.weight = Params4bit(
            child.weight.detach().contiguous(),
            requires_grad=False,
            quant_type="nf4",
            compress_statistics=True,
        )
        packed.bias = child.bias
        setattr(module, key, packed.to("cpu"))
        child.weight = None  # the plain numbers go at once
    setattr(model, MARK, True)
