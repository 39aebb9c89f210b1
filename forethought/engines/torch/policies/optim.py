"""Optimizers of a policy, one parameter group per kind, and their state as plain tensors (no pickles)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from forethought.engines.torch.policies import adamw
from forethought.engines.torch.policies.muon import Muon
from forethought.recipe.schema import OptimSpec


@torch.no_grad()
def first_not_finite(tensors: Mapping[str, torch.Tensor]) -> str:
    """The name of the first tensor with NaN or inf, or "". One pass over the numbers, without a copy, and one
    wait for a GPU."""
    some = {name: t for name, t in tensors.items() if t.numel() and t.is_floating_point()}
    if not some:
        return ""
    ends = [torch.stack(torch.aminmax(t)).double() for t in some.values()]
    # the least and the largest: NaN comes through both
    # an optimizer may count its steps on the CPU
    device = max((e.device for e in ends), key=lambda device: device.type == "cuda")
    bad = (
        (~torch.isfinite(torch.stack([e.to(device) for e in ends])).all(-1)).nonzero()[:1].flatten().tolist()
    )
    return list(some)[bad[0]] if bad else ""


class Optimizer:
    """AdamW on everything, or Muon on the matrices inside the layers and AdamW on the rest. `dtype`: of
    Muon's iteration."""

    def __init__(
        self, parameters: dict[str, torch.nn.Parameter], spec: OptimSpec, dtype: torch.dtype = torch.bfloat16
    ):
        self.spec = spec
        self.parameters = parameters
        # a numbered layer, whatever the model calls it (layers.0, h.0, blocks.0)
        inside = re.compile(r"\.\d+\.")
        matrices = [
            k for k, p in parameters.items() if spec.name == "muon" and p.ndim == 2 and inside.search(k)
        ]
        rest = [k for k in parameters if k not in matrices]
        self.parts: list[tuple[list[str], torch.optim.Optimizer, float]] = []
        if rest:
            adam = torch.optim.AdamW(
                [parameters[k] for k in rest],
                lr=spec.lr,
                betas=tuple(spec.betas),
                weight_decay=spec.weight_decay,
                fused=True,
            )
            self.parts.append((rest, adam, spec.lr))
        if matrices:
            muon = Muon(
                [parameters[k] for k in matrices],
                lr=spec.muon_lr,
                weight_decay=spec.weight_decay,
                dtype=dtype,
            )
            self.parts.append((matrices, muon, spec.muon_lr))
        self.by_kernels = not matrices and adamw.moves(list(parameters.values()))

    def gradient_norm(self) -> torch.Tensor:
        """L2 norm over all gradients of the policy, before clipping."""
        if self.by_kernels:
            return adamw.norm([p.grad for p in self.parameters.values() if p.grad is not None])
        return torch.nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])

    def step(self, norm: torch.Tensor, lr_scale: float) -> None:
        """Clip by the given total norm, update, clear."""
        most = self.spec.clip_norm
        if most > 0 and not self.by_kernels:
            torch.nn.utils.clip_grads_with_norm_(list(self.parameters.values()), self.spec.clip_norm, norm)
        for _, optimizer, lr in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = lr * lr_scale
            if self.by_kernels:
                adamw.step(optimizer, min(1.0, most / (float(norm) + 1e-6)) if most > 0 else 1.0)
            else:
                optimizer.step()
        self.clear()

    def clear(self) -> None:
        """Drop the gradients (set to None, so the memory is free)."""
        for p in self.parameters.values():
            p.grad = None

    def still(self, held: Iterable[tuple[torch.nn.Parameter, torch.Tensor]]) -> None:
        """Zero the moments of these numbers (flat indices of each parameter): with Muon they would rotate the
        rest of the matrix."""
        for p, index in held:
            for _, optimizer, _ in self.parts:
                for value in optimizer.state.get(p, {}).values():
                    if value.shape == p.shape:
                        value.put_(index, torch.zeros_like(index, dtype=value.dtype))

    def state(self) -> dict[str, torch.Tensor]:
        """`PARAMETER|KEY` -> a copy of the tensor."""
        return {name: value.clone().contiguous() for name, value in self.numbers().items()}

    def numbers(self) -> dict[str, torch.Tensor]:
        """As `state`, but the tensors themselves, which the next step changes."""
        return {
            f"{name}|{key}": torch.as_tensor(value).detach()
            for names, optimizer, _ in self.parts
            for name in names
            for key, value in optimizer.state.get(self.parameters[name], {}).items()
        }

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take the state that `state` wrote, on the device of each parameter; what is missing starts
        afresh."""
        by_name: dict[str, dict[str, torch.Tensor]] = {}
        for full, value in state.items():
            name, key = full.rsplit("|", 1)
            by_name.setdefault(name, {})[key] = value.clone()
        for names, optimizer, _ in self.parts:
            optimizer.state.clear()
            for name in names:
                if name in by_name:
                    device = self.parameters[name].device
                    optimizer.state[self.parameters[name]] = {
                        k: v if k == "step" and device.type == "cpu" else v.to(device)
                        for k, v in by_name[name].items()
                    }
