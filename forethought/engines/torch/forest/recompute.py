"""Gradient checkpointing: a layer keeps its input alone and computes the rest again in the backward pass.

Not the switch of `transformers`: that one works only on a model in training mode, where dropout would make
sampler and trainer disagree, and its second forward would not know the forest (on a GPU, backward runs in
another thread).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from forethought.core.errors import RecipeError
from forethought.engines.torch.forest.attention import again


def recompute(model: torch.nn.Module) -> None:
    """Every layer of `model` from now on. RecipeError where the model does not say what its layers are."""
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    inner = {id(child) for layer in layers for child in layer.modules() if child is not layer}
    layers = [layer for layer in layers if id(layer) not in inner]
    if not layers:
        raise RecipeError(
            "engine.gradient_checkpointing",
            f"{type(model).__name__} has no layers that can be computed again",
        )
    for layer in layers:
        layer.forward = _twice(layer.forward)
    model.recomputes = True


def recomputes(model: torch.nn.Module) -> bool:
    """Whether `recompute` has been asked for it: the written-out decoder does not call the layers' own
    forward."""
    return getattr(model, "recomputes", False)


@contextmanager
def recomputing(model: torch.nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, if it is wanted, the written-out decoder of `model` computes its layers again; other models go
    on as they are."""
    before = recomputes(model)
    model.recomputes = before or wanted
    try:
        yield
    finally:
        model.recomputes = before


def _twice(forward: Callable) -> Callable:
    def run(*args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(
            forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again()), **kwargs
        )

    return run
