"""Named weights: the base, LoRA adapters on it (PEFT) that share its modules, and whole copies of it,
trainable or frozen.

PEFT's `set_adapter` flips `requires_grad` of the adapters it leaves; here gradients are switched by our own
table after every change of adapter, so that exactly one policy can receive them.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, get_args

import torch

from forethought.core.errors import RecipeError
from forethought.engines.base import BASE, Kind
from forethought.engines.torch.forest import lora
from forethought.engines.torch.forest.recompute import recompute, recomputing
from forethought.engines.torch.forest.vocabulary import carry
from forethought.recipe.schema import AdapterSpec

if TYPE_CHECKING:  # PEFT is imported by what needs an adapter (see `lora.py`)
    from peft.tuners.lora import LoraLayer

MERGE_BELOW = 200_000_000  # parameters of a base that is worth keeping twice
# the factor of LoRA that begins as zero (of an embedding it is the other one)
NOTHING = re.compile(r"lora_(B|embedding_A)\.")


class Policies:
    """`model(name)` is what runs for a policy. A frozen copy of an adapter is another adapter, and so moves
    with the base."""

    def __init__(self, model: torch.nn.Module, spec: AdapterSpec, gradient_checkpointing: bool = False):
        self.base = model
        self.spec = spec
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            recompute(model)
        self.peft = None  # wraps the base once there is an adapter
        self.adapters: list[str] = []
        self.copies: dict[str, torch.nn.Module] = {}  # with every weight once more
        self.frozen: set[str] = set()  # adapters and copies that never change
        self.merged: dict[str, torch.nn.Module] = {}  # adapter -> the base with it added in, for sampling
        self.active = BASE
        self._speakers: dict[str, str] = {}  # adapter -> whose weights it samples with, until it is published
        self._own: dict[str, dict[str, torch.nn.Parameter]] = {}  # until the set of policies changes
        self.size = sum(p.numel() for p in model.parameters())
        self.packed = any(not p.is_floating_point() for p in model.parameters())  # four bits a number
        self.base_moved = False  # whether the base differs from what it was loaded from
        model.requires_grad_(False)

    def names(self) -> list[str]:
        """The base, then adapters, then copies."""
        return [BASE, *self.adapters, *self.copies]

    def model(self, name: str) -> torch.nn.Module:
        """The module to call, with this policy's weights switched on."""
        if name in self.copies:
            return self.copies[name]
        if name not in (BASE, *self.adapters):
            raise KeyError(f"no policy {name!r}; there are {self.names()}")
        if self.peft is not None and name != self.active:
            for layer in self._lora_layers():
                if name != BASE:
                    layer.set_adapter(name)
                layer.enable_adapters(name != BASE)
            self._no_gradients()
        self.active = name
        return self.base

    def sampling_model(self, name: str) -> torch.nn.Module:
        """The module to sample from. Sampling makes many small steps, in which an adapter's extra products
        cost as much as the layers themselves. So for a small base a second copy with the adapter added in is
        kept; a large one runs as it is."""
        if not self._merges(name):
            return self.model(name)
        if name not in self.merged:
            self.merged[name] = self.copy_of(BASE)
            self.publish(name)
        return self.merged[name]

    def speaker(self, name: str) -> str:
        """Whose weights a policy samples with: the base's, as long as its adapter was published as one that
        adds nothing, as it begins. What others have read under them it has read, too."""
        if name not in self.adapters:
            return name
        if name not in self._speakers:
            zero = (p for key, p in self.parameters(name).items() if NOTHING.search(key))
            self._speakers[name] = name if any(p.any() for p in zero) else BASE
        return self._speakers[name]

    def on_base(self, name: str) -> bool:
        """Whether a policy is sampled from through the base's own weights: the base itself, and adapters that
        are not added in."""
        return (name == BASE or not self._is_whole(name)) and not self._merges(name)

    @contextmanager
    def sampling(self, name: str) -> Iterator[torch.nn.Module]:
        """The module to sample from, inside. Autocast keeps the bf16 copy of a weight, instead of making it
        anew for every token, only if the weight could have a gradient; none is ever computed here."""
        model = self.sampling_model(name)
        if not torch.is_autocast_enabled(model.device.type):
            yield model
            return
        # packed ones have no gradient
        with _with_gradients([p for p in model.parameters() if p.is_floating_point()]):
            yield model

    @torch.no_grad()
    def publish(self, name: str) -> None:
        """Bring the merged copy of an adapter up to date: W + scale * B A, computed anew from the base each
        time. Who never samples has none."""
        self._speakers.pop(name, None)
        if name == BASE:
            self.merged.clear()  # they stand on a base that has moved
            self._speakers.clear()
        if name in self.merged:
            lora.add(self.merged[name], self.base, name)

    def _merges(self, name: str) -> bool:
        """Plain linear layers only. Embeddings and heads may be tied: adding to one would add to both."""
        if name not in self.adapters or self.size > MERGE_BELOW:
            return False
        from peft.tuners.lora import Linear

        ends = (self.base.get_input_embeddings(), self.base.get_output_embeddings())
        return all(
            type(layer) is Linear and layer not in ends for layer in self._lora_layers() if name in layer.r
        )

    def parameters(self, name: str) -> dict[str, torch.nn.Parameter]:
        """The policy's own weights, by the name they have in its saved file (for whole models the same
        names); tied weights once."""
        if name not in self._own:
            own = re.compile(rf"\.lora_\w+\.{re.escape(name)}(\.|$)")
            whole = name in self.copies or name == BASE
            named = self.copies.get(name, self.base).named_parameters()
            self._own[name] = {
                lora.clean(k) if whole else k: p
                for k, p in named
                if ("lora_" not in k if whole else own.search(k))
            }
        return dict(self._own[name])

    def recomputing(self, name: str, wanted: bool) -> AbstractContextManager[None]:
        """Inside, if it is wanted, the layers of this policy's model are computed again (`recompute`)."""
        return recomputing(self.copies.get(name, self.base), wanted)

    @contextmanager
    def training(self, name: str) -> Iterator[torch.nn.Module]:
        """Gradients on for this policy alone."""
        if name in self.frozen:
            raise ValueError(f"policy {name!r} is frozen; it cannot train")
        model = self.model(name)
        with _with_gradients(self.parameters(name).values()):
            yield model

    def fork(self, src: str, dst: str, kind: Kind) -> None:
        """See `engines.base.Engine`. RecipeError where an adapter's targets are not in the model, or cannot
        be merged into one."""
        if dst in self.names():
            raise ValueError(f"policy {dst!r} exists already")
        if kind not in get_args(Kind):
            raise ValueError(f"a policy cannot be forked as {kind!r}; known: {', '.join(get_args(Kind))}")
        self._own.clear()  # PEFT wraps modules, and a name may be another policy's now
        whole = self._is_whole(src)
        if self.packed and whole and kind == "frozen":
            kind = "adapter"  # one that adds nothing: the base is frozen itself
            self.frozen.add(dst)
        elif self.packed and kind == "model":
            raise RecipeError("engine.weights", "no whole model is made of a base in four bits (nf4)")
        if kind == "model" or (kind == "frozen" and whole):
            self.copies[dst] = self.copy_of(src)
        elif whole and src != BASE:
            raise ValueError(f"an adapter lies on the base; {src!r} is a whole model of its own")
        else:
            self._add_adapter(dst)
            if src != BASE:
                self.load_adapter(dst, self.adapter_state(src))
            self.active = ""
            self.model(src)
            self._no_gradients()
        if kind == "frozen":
            self.frozen.add(dst)

    def _add_adapter(self, name: str) -> None:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.spec.rank,
            lora_alpha=self.spec.alpha,
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            target_modules=list(self.spec.targets) or "all-linear",
            init_lora_weights=True,
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            # peft asks transformers by an old name; nothing of ours
            # LoRA's A is random: the same name begins the same way in every run
            torch.manual_seed(sum(name.encode()))
            try:
                if self.peft is None:
                    self.peft = get_peft_model(self.base, config, adapter_name=name)
                else:
                    self.peft.add_adapter(name, config)
            except ValueError as e:
                raise RecipeError("adapter.targets", str(e)) from e
        self.adapters.append(name)

    @torch.no_grad()
    def assign(self, dst: str, src: str) -> None:
        """See `engines.base.Engine`."""
        if self._is_whole(dst) != self._is_whole(src):
            raise ValueError(
                f"{dst!r} and {src!r} are an adapter and a whole model; the weights of one "
                f"cannot become the other's"
            )
        if dst in self.frozen:
            raise ValueError(f"policy {dst!r} is frozen; its weights stay as they are")
        if dst in self.adapters:
            self.load_adapter(dst, self.adapter_state(src))
            return
        source = self.parameters(src)
        for name, p in self.parameters(dst).items():
            p.copy_(source[name])
        self.base_moved |= dst == BASE

    @torch.no_grad()
    def factor(self, dst: str, start: str) -> float:
        """See `engines.base.Engine`. A tied weight counts at each place that uses it: an adapter may lie on
        one of them alone."""
        if not self._is_whole(start) or start == BASE:
            raise ValueError(f"the base can become a whole copy of it again; {start!r} is none")
        self.fork(BASE, dst, "adapter")  # refuses what it must before a weight moves
        layers, before = lora.targets(self.base, dst), _weights(self.copies[start])
        total = lost = 0.0
        for name, p in _weights(self.base).items():
            difference = p.float() - before[name].float()
            squared = difference.double().square().sum().item()
            total += squared
            lost += lora.approach(layers[name], dst, difference) if name in layers and squared else squared
        self.assign(BASE, start)
        return max(0.0, 1 - lost / total) if total else 1.0

    def drop(self, name: str) -> None:
        """Forget an adapter or a copy. KeyError for the base and for an unknown name."""
        self._own.clear()
        if name in self.copies:
            del self.copies[name]
        elif name in self.adapters:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that it was the active one: ours is set below
                self.peft.delete_adapter(name)
            self.merged.pop(name, None)
            self._speakers.pop(name, None)
            self.adapters.remove(name)
            self.active = ""
            self.model(BASE)
            self._no_gradients()
        else:
            raise KeyError(f"policy {name!r} cannot be dropped; there are {self.names()}")
        self.frozen.discard(name)

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """Tensors of an adapter by PEFT's names, contiguous and detached."""
        from peft import get_peft_model_state_dict

        # peft may look its configuration up, and the one it remembers may be dropped
        self.peft.active_adapter = name
        state = get_peft_model_state_dict(self.peft, adapter_name=name, save_embedding_layers=False)
        return {k: v.detach().contiguous() for k, v in state.items()}

    def load_adapter(self, name: str, state: dict[str, torch.Tensor]) -> None:
        """Write tensors by PEFT's names into an adapter."""
        from peft import set_peft_model_state_dict

        self.peft.active_adapter = name
        set_peft_model_state_dict(self.peft, state, adapter_name=name)
        self._no_gradients()

    # ---- helpers

    def _lora_layers(self) -> list[LoraLayer]:
        return lora.layers_of(self.base)

    def _no_gradients(self) -> None:
        self.base.requires_grad_(False)

    def _is_whole(self, name: str) -> bool:
        """Whether a policy has every weight of its own; an adapter has not. KeyError for a name that is none
        of them."""
        if name not in self.names():
            raise KeyError(f"no policy {name!r}; there are {self.names()}")
        return name not in self.adapters

    @torch.no_grad()
    def copy_of(self, src: str) -> torch.nn.Module:
        """A whole model that behaves like `src`, without gradients: the same tensors in the same types, those
        outside the weights' file too. An adapter is added into the weights (RecipeError where it lies on tied
        ones)."""
        source = self.copies.get(src, self.base)
        with torch.device("meta"):  # nothing is drawn and nothing is held twice
            model = type(self.base)(copy.deepcopy(self.base.config))
            if again := getattr(self.base.get_input_embeddings(), "of_copy", None):  # of pictures
                model.set_input_embeddings(again(model))
        model.set_attn_implementation(self.base.config._attn_implementation)
        own = _weights(source) | {lora.clean(k): b for k, b in source.named_buffers(remove_duplicate=False)}
        if src in self.adapters:
            self._check_mergeable(src)
        fixed = {lora.clean(k) for k, _ in source.named_buffers(remove_duplicate=False)}
        # what is a buffer here (a bias that stays zero) must not train there
        for module_name, module in model.named_modules():
            for key in [k for k in module._parameters if f"{module_name}.{k}".lstrip(".") in fixed]:
                module.register_buffer(key, module._parameters.pop(key).data)
        model.load_state_dict({k: own[k].detach().clone() for k in model.state_dict()}, assign=True)
        for module_name, module in model.named_modules():
            for key in module._non_persistent_buffers_set & module._buffers.keys():
                if module._buffers[key] is not None:
                    module._buffers[key] = own[f"{module_name}.{key}".lstrip(".")].clone()
        model.tie_weights()
        carry(self.base, model)
        if src in self.adapters:
            lora.add(model, self.base, src)
        if self.gradient_checkpointing:
            recompute(model)
        return model.requires_grad_(False).eval()

    def _check_mergeable(self, adapter: str) -> None:
        own = _weights(self.base)
        for name in lora.targets(self.base, adapter):
            if tied := [k for k, p in own.items() if p is own[name] and k != name]:
                raise RecipeError(
                    "adapter.targets",
                    f"{name} is tied to {tied[0]}: adapter {adapter!r} cannot become a whole model, because "
                    "what it adds to one would be added to both; leave it out of the targets",
                )


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every weight of a model without its adapters, by its plain name; tied ones under each of their
    names."""
    return {lora.clean(k): p for k, p in model.named_parameters(remove_duplicate=False) if "lora_" not in k}


@contextmanager
def _with_gradients(parameters: Collection[torch.Tensor]) -> Iterator[None]:
    for p in parameters:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(False)
