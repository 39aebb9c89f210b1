"""Policies to disk and back, in the layouts that `transformers` and `peft` open; a full disk is reported as
what it is."""

from __future__ import annotations

import copy
import errno
import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion

from forethought.core.errors import CheckpointError
from forethought.engines.base import BASE
from forethought.engines.saved import TOKENIZER, tokenizer_in
from forethought.engines.torch.forest.lora import clean
from forethought.engines.torch.policies.table import Policies

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A safetensors file. safetensors hides the system's error; it is raised as an OSError again, with its
    number."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as e:
        found = re.search(r"(?:os error|code:) (\d+)", str(e))
        number = int(found.group(1)) if found else errno.EIO
        raise OSError(number, f"cannot write tensors ({e})", str(path)) from e


def write_policies(
    policies: Policies, directory: Path, tokenizer: PreTrainedTokenizerBase, source: str
) -> None:
    """`base/` and `models/NAME/` as `AutoModelForCausalLM` reads them (no base, but
    `tokenizer/`, where it is still what `source` holds), `adapters/NAME/` as `PeftModel` reads them, frozen
    copies in `copies/NAME.safetensors`."""
    holds = policies.base_moved or not source
    (directory / (BASE if holds else TOKENIZER)).mkdir(parents=True)
    if holds:
        _write_model(policies, BASE, directory / BASE)
    _write_words(policies, tokenizer, tokenizer_in(directory))
    for name in policies.adapters:
        folder = directory / "adapters" / name
        folder.mkdir(parents=True)
        write_tensors(folder / ADAPTER, policies.adapter_state(name))
        config = copy.deepcopy(policies.peft.peft_config[name])
        config.base_model_name_or_path = source if source and not policies.base_moved else f"../../{BASE}"
        config.inference_mode = True
        for key, value in vars(config).items():
            # the names of the layers, whose order would be that of the process's hash seed
            if isinstance(value, set):
                setattr(config, key, sorted(value))
        config.save_pretrained(folder)
    for name, model in policies.copies.items():
        if name not in policies.frozen:
            folder = directory / "models" / name
            folder.mkdir(parents=True)
            _write_model(policies, name, folder)
            _write_words(policies, tokenizer, folder)
            continue
        (directory / "copies").mkdir(exist_ok=True)
        own = {k: p.contiguous() for k, p in model.named_parameters()} | {
            k: b.contiguous() for k, b in model.named_buffers()
        }
        write_tensors(directory / "copies" / f"{name}.safetensors", own)  # a tied weight stands there once


def _write_words(policies: Policies, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The tokenizer and, of a model that has one, what cuts pictures."""
    tokenizer.save_pretrained(folder)
    if save := getattr(policies.base.get_input_embeddings(), "save", None):
        save(folder)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, source: str = "") -> None:
    """CheckpointError if the folder was saved with another tokenizer: its weights would read wrong words."""
    # one that is written out in Python
    if not hasattr(tokenizer, "backend_tokenizer") or not (folder / "tokenizer.json").exists():
        return
    own = json.loads(tokenizer.backend_tokenizer.to_str())
    saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if any(own[part] != saved[part] for part in ("model", "added_tokens", "pre_tokenizer")):
        if source:
            raise CheckpointError(
                f"{folder} was saved with another tokenizer than {source} holds; put the one that it was "
                "trained with back there"
            )
        raise CheckpointError(
            f"{folder} was saved with another tokenizer than its task gives now. A small model's tokens come "
            "from the task: give it the training problems and the settings that the run began with"
        )


def read_policies(policies: Policies, directory: Path) -> None:
    """Load the weights; adapters and copies are made or dropped until they match the directory."""
    policies.publish(BASE)  # whatever samples is made anew
    if (directory / BASE / WEIGHTS).exists():
        _read_model(policies, BASE, directory / BASE)
        policies.base_moved = True
    elif policies.base_moved:
        raise CheckpointError(
            f"{directory} was saved before the base moved and holds no weights of it; resume in a new process"
        )
    adapters, models, frozen = (
        sorted((directory / kind).glob("*")) for kind in ("adapters", "models", "copies")
    )
    wanted = {"adapter": [p.name for p in adapters], "model": [p.name for p in models]}
    for name in [n for n in policies.adapters if n not in wanted["adapter"]] + [
        n for n in policies.copies if n not in wanted["model"] or n in policies.frozen
    ]:
        policies.drop(name)
    for kind, names in wanted.items():
        for name in names:
            if name not in policies.names():
                policies.fork(BASE, name, kind)
    for folder in adapters:
        policies.load_adapter(folder.name, load_file(folder / ADAPTER))
    for folder in models:
        _read_model(policies, folder.name, folder)
    for path in frozen:
        policies.fork(BASE, path.stem, "frozen")
        policies.copies[path.stem].load_state_dict(load_file(path), strict=False)


def _write_model(policies: Policies, name: str, folder: Path) -> None:
    """The weights and configuration of a whole model."""
    model = policies.model(name)
    # experts apart, as on the hub
    tensors = revert_weight_conversion(policies.base, _state(model, policies.parameters(name)))
    write_tensors(folder / WEIGHTS, tensors)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")  # as trained, which may not be as loaded
    model.config.save_pretrained(folder)
    # as it is: its own save_pretrained refuses some that hubs hold
    if policies.base.generation_config is not None:
        policies.base.generation_config.to_json_file(folder / "generation_config.json")


@torch.no_grad()
def _read_model(policies: Policies, name: str, folder: Path) -> None:
    state, own, model = load_file(folder / WEIGHTS), policies.parameters(name), policies.model(name)
    if not own.keys() <= state.keys():  # a layout of the hub that `transformers` turns into this model's
        state = dict(type(model).from_pretrained(folder, dtype=model.dtype).named_parameters())
    for key, p in own.items():
        p.copy_(state[key])


def _state(model: torch.nn.Module, parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """The tensors of a whole model under the names of an unwrapped one; weights tied to another name are left
    out."""
    own = {p.data_ptr() for p in parameters.values()}
    state = {k: p.detach().contiguous() for k, p in parameters.items()}
    for key, buffer in model.state_dict().items():
        if "lora_" not in key and clean(key) not in state and buffer.data_ptr() not in own:
            state[clean(key)] = buffer.contiguous()
    return state
