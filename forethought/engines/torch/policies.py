"""Named weights on one set of modules: the base, LoRA adapters on it (PEFT), and frozen copies that serve as references.

PEFT's `set_adapter` flips `requires_grad` of the adapters it leaves; here gradients are switched by our own table after every
change of adapter, so that exactly one policy can receive them.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear, LoraLayer
from safetensors.torch import load_file
from transformers.core_model_loading import revert_weight_conversion

from forethought.engines.base import BASE
from forethought.engines.torch.files import write_tensors
from forethought.errors import CheckpointError, RecipeError
from forethought.recipe.schema import AdapterSpec

MERGE_BELOW = 200_000_000  # parameters of a base that is worth keeping twice
WEIGHTS = "model.safetensors"


class Policies:
    """`models[name]` is what runs for that policy. Adapters share the base's modules; frozen copies have their own."""

    def __init__(self, model: torch.nn.Module, spec: AdapterSpec):
        self.base = model
        self.spec = spec
        self.peft = None  # wraps the base once there is an adapter
        self.adapters: list[str] = []
        self.copies: dict[str, torch.nn.Module] = {}
        self.merged: dict[str, torch.nn.Module] = {}  # adapter -> the base with it added in, for sampling
        self.active = BASE
        self.size = sum(p.numel() for p in model.parameters())
        self.base_moved = False  # whether the base differs from what it was loaded from
        model.requires_grad_(False)

    def names(self) -> list[str]:
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
        """The module to sample from. Sampling is many small steps, where an adapter's extra products cost as much as the layers
        themselves, so a small base is kept a second time with the adapter added in; a large one runs as it is."""
        if not self._merges(name):
            return self.model(name)
        if name not in self.merged:
            self.publish(name)
        return self.merged[name]

    @contextmanager
    def sampling(self, name: str) -> Iterator[torch.nn.Module]:
        """The module to sample from, inside. Autocast keeps the bf16 copy of a weight, instead of making it anew for every token,
        only if the weight could have a gradient; none is ever computed here."""
        model = self.sampling_model(name)
        model.requires_grad_(True)
        try:
            yield model
        finally:
            model.requires_grad_(False)

    @torch.no_grad()
    def publish(self, name: str) -> None:
        """Bring the merged copy of an adapter up to date: W + scale * B A, computed anew from the base each time."""
        if name == BASE:
            self.merged.clear()  # they stand on a base that has moved
        if not self._merges(name):
            return
        if name not in self.merged:
            self.merged[name] = self._plain_copy()
        modules = dict(self.merged[name].named_modules())
        for path, layer in self.base.named_modules():
            if isinstance(layer, LoraLayer) and name in layer.lora_A:
                base = layer.get_base_layer().weight
                modules[path].weight.copy_(base + layer.get_delta_weight(name).to(base.dtype))

    def _merges(self, name: str) -> bool:
        """Plain linear layers only. Embeddings and heads may be tied: adding to one would add to both."""
        if name not in self.adapters or self.size > MERGE_BELOW:
            return False
        ends = (self.base.get_input_embeddings(), self.base.get_output_embeddings())
        return all(type(layer) is Linear and layer not in ends for layer in self._lora_layers() if name in layer.r)

    def parameters(self, name: str) -> dict[str, torch.nn.Parameter]:
        """The policy's own weights, by the name they have in its saved file; tied weights once."""
        if name in self.copies:
            return {}
        if name == BASE:
            return {_clean(k): p for k, p in self.base.named_parameters() if "lora_" not in k}
        own = re.compile(rf"\.lora_\w+\.{re.escape(name)}(\.|$)")
        return {k: p for k, p in self.base.named_parameters() if own.search(k)}

    @contextmanager
    def training(self, name: str) -> Iterator[torch.nn.Module]:
        """Gradients on for this policy alone."""
        model = self.model(name)
        for p in self.parameters(name).values():
            p.requires_grad_(True)
        try:
            yield model
        finally:
            self._no_gradients()

    def fork(self, src: str, dst: str, frozen: bool) -> None:
        if dst in self.names():
            raise ValueError(f"policy {dst!r} exists already")
        if frozen and src == BASE:
            self.copies[dst] = self._plain_copy()
            return
        config = LoraConfig(r=self.spec.rank, lora_alpha=self.spec.alpha, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
                            target_modules=list(self.spec.targets) or "all-linear", init_lora_weights=True)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name; nothing of ours
            torch.manual_seed(sum(dst.encode()))  # LoRA's A is random: the same name begins the same way in every run
            try:
                if self.peft is None:
                    self.peft = get_peft_model(self.base, config, adapter_name=dst)
                else:
                    self.peft.add_adapter(dst, config)
            except ValueError as e:
                raise RecipeError("adapter.targets", str(e)) from e
        self.adapters.append(dst)
        if src != BASE:
            self._load_adapter(dst, self.adapter_state(src))
        self.active = ""
        self.model(src if src in self.adapters else BASE)
        self._no_gradients()

    def drop(self, name: str) -> None:
        if name in self.copies:
            del self.copies[name]
        elif name in self.adapters:
            self.peft.delete_adapter(name)
            self.merged.pop(name, None)
            self.adapters.remove(name)
            self.active = ""
            self.model(BASE)
            self._no_gradients()
        else:
            raise KeyError(f"policy {name!r} cannot be dropped; there are {self.names()}")

    # ---- files

    def save(self, directory: Path, tokenizer, source: str) -> None:
        """`base/` as `AutoModelForCausalLM` reads it (only a note where it is still what `source` holds), `adapters/NAME/` as
        `PeftModel` reads them, `copies/NAME.safetensors`."""
        base = directory / BASE
        base.mkdir(parents=True)
        if self.base_moved or not source:
            write_tensors(base / WEIGHTS, revert_weight_conversion(self.base, self.base_state()))  # experts apart, as on the hub
            self.base.config.architectures = [type(self.base).__name__]
            self.base.config.dtype = str(self.base.dtype).removeprefix("torch.")  # as trained, which may not be as loaded
            self.base.config.save_pretrained(base)
            if self.base.generation_config is not None:  # as it is: its own save_pretrained refuses some that hubs hold
                self.base.generation_config.to_json_file(base / "generation_config.json")
        tokenizer.save_pretrained(base)
        for name in self.adapters:
            folder = directory / "adapters" / name
            folder.mkdir(parents=True)
            write_tensors(folder / "adapter_model.safetensors", self.adapter_state(name))
            config = copy.deepcopy(self.peft.peft_config[name])
            config.base_model_name_or_path = source if source and not self.base_moved else f"../../{BASE}"
            config.inference_mode = True
            config.save_pretrained(folder)
        for name, model in self.copies.items():
            (directory / "copies").mkdir(exist_ok=True)
            own = {k: p.contiguous() for k, p in model.named_parameters()} | {k: b.contiguous() for k, b in model.named_buffers()}
            write_tensors(directory / "copies" / f"{name}.safetensors", own)  # a tied weight stands there once

    def load(self, directory: Path) -> None:
        """Weights into place; adapters and copies are made or dropped until they are those of the directory."""
        self.merged.clear()
        if (directory / BASE / WEIGHTS).exists():
            self._load_base(directory / BASE)
        elif self.base_moved:
            raise CheckpointError(f"{directory} was saved before the base moved and holds no weights of it; resume in a new process")
        wanted = sorted(p.name for p in (directory / "adapters").glob("*")) if (directory / "adapters").exists() else []
        for name in [n for n in self.adapters if n not in wanted] + list(self.copies):
            self.drop(name)
        for name in wanted:
            if name not in self.adapters:
                self.fork(BASE, name, frozen=False)
            self._load_adapter(name, load_file(directory / "adapters" / name / "adapter_model.safetensors"))
        for path in sorted((directory / "copies").glob("*.safetensors")) if (directory / "copies").exists() else []:
            self.copies[path.stem] = self._plain_copy()
            self.copies[path.stem].load_state_dict(load_file(path), strict=False)

    @torch.no_grad()
    def _load_base(self, folder: Path) -> None:
        state, own = load_file(folder / WEIGHTS), self.parameters(BASE)
        if not own.keys() <= state.keys():  # a layout of the hub that `transformers` turns into this model's
            state = dict(type(self.base).from_pretrained(folder, dtype=self.base.dtype).named_parameters())
        for name, p in own.items():
            p.copy_(state[name])
        self.base_moved = True

    def base_state(self) -> dict[str, torch.Tensor]:
        """The base's own tensors under the names of an unwrapped model; weights tied to another name are left out."""
        own = {p.data_ptr() for p in self.parameters(BASE).values()}
        state = {k: p.detach().contiguous() for k, p in self.parameters(BASE).items()}
        for key, buffer in self.base.state_dict().items():
            if "lora_" not in key and _clean(key) not in state and buffer.data_ptr() not in own:
                state[_clean(key)] = buffer.contiguous()
        return state

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        self.peft.active_adapter = name  # peft may look its configuration up, and the one it remembers may be dropped
        state = get_peft_model_state_dict(self.peft, adapter_name=name, save_embedding_layers=False)
        return {k: v.detach().contiguous() for k, v in state.items()}

    def _load_adapter(self, name: str, state: dict[str, torch.Tensor]) -> None:
        self.peft.active_adapter = name
        set_peft_model_state_dict(self.peft, state, adapter_name=name)
        self._no_gradients()

    # ---- helpers

    def _lora_layers(self) -> list[LoraLayer]:
        return [m for m in self.base.modules() if isinstance(m, LoraLayer)]

    def _no_gradients(self) -> None:
        self.base.requires_grad_(False)

    def _plain_copy(self) -> torch.nn.Module:
        """The base without its adapters, frozen: the same tensors in the same types, those outside the weights' file too."""
        with torch.device("meta"):  # nothing is drawn and nothing is held twice
            model = type(self.base)(copy.deepcopy(self.base.config))
        model.set_attn_implementation(self.base.config._attn_implementation)
        own = {_clean(k): p for k, p in self.base.named_parameters(remove_duplicate=False) if "lora_" not in k}
        own |= {_clean(k): b for k, b in self.base.named_buffers(remove_duplicate=False) if "lora_" not in k}
        model.load_state_dict({k: own[k].detach().clone() for k in model.state_dict()}, assign=True)
        for module_name, module in model.named_modules():
            for key in module._non_persistent_buffers_set & module._buffers.keys():
                if module._buffers[key] is not None:
                    module._buffers[key] = own[f"{module_name}.{key}".lstrip(".")].clone()
        model.tie_weights()
        return model.requires_grad_(False).eval()


def _clean(name: str) -> str:
    """The name a base weight has without PEFT around it."""
    return re.sub(r"(\.base_layer)+\.", ".", name)  # experts are wrapped once for each of their weights
