"""What a LoRA adapter (arXiv 2106.09685) adds to each weight of its base, and the adapter that comes nearest
to a given difference.

PEFT keeps the factors of a weight in one shape for each kind of layer; here they are always B [experts, out,
rank] and A [experts, rank, in] (one expert where there are none), with `scaling * B A` added to the weight.

PEFT is imported where the first adapter is made, not at the top of a module: whoever trains whole weights
never waits for it.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


def is_lora(layer: torch.nn.Module) -> bool:
    """Whether PEFT has wrapped this layer. None is where nobody has imported PEFT, so looking does not import
    it either."""
    peft = sys.modules.get("peft.tuners.lora")
    return peft is not None and isinstance(layer, peft.LoraLayer)


def layers_of(base: torch.nn.Module) -> list[LoraLayer]:
    """All that PEFT has wrapped, each once. Every call of the sampler asks, and `modules`, which also finds
    names, takes longer than what follows."""
    found: dict[torch.nn.Module, None] = {}
    waiting = [base] if "peft.tuners.lora" in sys.modules else []
    for one in waiting:
        if is_lora(one):
            found[one] = None
        waiting += filter(None, one._modules.values())
    return list(found)


def clean(name: str) -> str:
    """The name a base weight has without PEFT around it."""
    return re.sub(r"(\.base_layer)+\.", ".", name)  # experts are wrapped once for each of their weights


def targets(base: torch.nn.Module, adapter: str) -> dict[str, LoraLayer]:
    """Name of a weight in the plain model -> the layer in which `adapter` adds to it."""
    return {
        clean(f"{path}.{getattr(layer, 'parameter_name', 'weight')}"): layer
        for path, layer in base.named_modules()
        if is_lora(layer) and adapter in layer.r
    }


def _own(layer: LoraLayer) -> torch.Tensor:
    """The base's weight below an adapter."""
    return getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"))


@torch.no_grad()
def delta(layer: LoraLayer, adapter: str) -> torch.Tensor:
    """What `adapter` adds to the layer's weight, scaling * B A: the one place where it is multiplied out.

    Always in the precision of B and A. Under an autocast the product would be rounded to bf16, and the
    weights that sample would depend on who asked for them first: a run that merges after each update, or one
    that was resumed and merges when it first samples.
    """
    with torch.autocast(_own(layer).device.type, enabled=False):
        return layer.get_delta_weight(adapter)


@torch.no_grad()
def add(model: torch.nn.Module, base: torch.nn.Module, adapter: str) -> None:
    """The weights of `model` that `adapter` adds to become those of `base` (with PEFT around it) and what it
    adds: W + scaling * B A."""
    for name, layer in targets(base, adapter).items():
        own = _own(layer)
        model.get_parameter(name).copy_(own + delta(layer, adapter).to(own.dtype))


@torch.no_grad()
def approach(layer: LoraLayer, adapter: str, difference: torch.Tensor) -> float:
    """Make a fresh adapter add the matrix nearest to `difference` that its rank allows; returns the squared
    distance that is left.

    The square roots of the singular values go to both factors, so that both learn at the same pace. Where the
    difference has fewer directions than the rank, the others stay as LoRA begins (A random, B zero): from A =
    B = 0 nothing would ever train.
    """
    from peft.tuners.lora import Embedding

    scaling, experts = layer.scaling[adapter], getattr(layer, "num_experts", 1)
    embedding = isinstance(layer, Embedding)
    B, A = (
        (layer.lora_embedding_B[adapter], layer.lora_embedding_A[adapter])
        if embedding
        else (layer.lora_B[adapter].weight, layer.lora_A[adapter].weight)
    )
    B_EOR, A_ERI = B.view(B.shape[0], -1, experts).permute(2, 0, 1), A.view(experts, -1, A.shape[1])
    turned = (
        embedding
        or layer.fan_in_fan_out
        or (difference.ndim == 3 and getattr(layer.get_base_layer(), "is_transposed", False))
    )
    wanted_EOI = (difference.mT if turned else difference).reshape(experts, B_EOR.shape[1], A_ERI.shape[2])
    U_EOK, size_EK, V_EKI = leading(wanted_EOI, A_ERI.shape[1])
    # the rest is rounding
    there_EK = size_EK > torch.finfo(torch.float32).eps * size_EK.amax(-1, keepdim=True)
    root_EK, k = (size_EK / scaling * there_EK).sqrt(), size_EK.shape[1]
    B_EOR.zero_()
    B_EOR[..., :k] = (U_EOK * root_EK[:, None]).to(B.dtype)
    A_ERI[:, :k] = torch.where(there_EK[..., None], (V_EKI * root_EK[..., None]).to(A.dtype), A_ERI[:, :k])
    return (difference.double() - delta(layer, adapter).double()).square().sum().item()


def leading(matrices_EOI: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U [E, O, k], S [E, k], V^T [E, k, I]: the largest k = min(rank, O, I) singular values and their
    vectors, in float64.

    U S V^T is the nearest matrix of that rank (Eckart and Young). Taken from the eigenvectors of M M^T on the
    smaller side of M, at a small part of a full decomposition's cost; squared in float64, singular values are
    as exact, relative to the largest, as the float32 numbers of M.
    """
    M = matrices_EOI.double()
    if M.shape[-2] > M.shape[-1]:
        V, S, U = leading(M.mT, rank)
        return U.mT, S, V.mT
    U = torch.linalg.eigh(M @ M.mT).eigenvectors.flip(-1)[..., :rank]
    rows = U.mT @ M
    S = rows.norm(dim=-1)
    return U, S, rows / torch.where(S > 0, S, 1.0)[..., None]
