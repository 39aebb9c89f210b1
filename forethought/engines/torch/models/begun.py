"""A model that somebody's PEFT adapter is added to before a run begins: `model.adapter`.

The adapter's product is added into the weights, so that every layout can follow: what the run trains then, a
new adapter among it, lies on the sum. Its checkpoints hold that sum. An adapter is worth nothing on another
base, so one that names another base than `model.path` is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.torch import load_file
from transformers import PreTrainedModel

from forethought.core.errors import UserError
from forethought.engines.torch.models import folder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BIASES = (0, 21)  # version of PEFT that was seen to load the biases of LoRA layers; 0.18 does not


def with_adapter(model: PreTrainedModel, adapter: str, base: str) -> PreTrainedModel:
    """The model with the adapter at `adapter` (a folder or a hub name) added in. UserError where it is no
    adapter that can be added, or not one on `base`."""
    try:
        config = folder.find(adapter, CONFIG)
        if config is None:
            raise ValueError(
                f"it has no {CONFIG}; give a folder that PEFT's save_pretrained wrote, or a hub name"
            )
        said = folder.read_json(config)
        weights = folder.find(adapter, WEIGHTS)
        if weights is None:
            raise ValueError(f"it has no {WEIGHTS}; adapters are read from safetensors files only")
    except (ValueError, OSError) as error:
        raise UserError(f"model.adapter: {adapter} cannot be read: {str(error).splitlines()[0]}") from error
    if why := other_base(str(said.get("base_model_name_or_path") or ""), base):
        raise UserError(f"model.adapter: {adapter} {why}")
    import peft
    from peft import PeftModel

    try:
        version = tuple(int(part) for part in peft.__version__.split(".")[:2])
        if said.get("bias") == "lora_only" and version < BIASES:
            raise ValueError(
                f'PEFT {peft.__version__} loses its biases (bias = "lora_only"); 0.21 adds them in'
            )
        lost = [key for key in load_file(weights) if not _has_place(key, model)]
        if lost:
            raise ValueError(f"{lost[0]} has no place in {base}")
        wrapped = PeftModel.from_pretrained(model, str(config.parent))
        merge = getattr(wrapped, "merge_and_unload", None)
        if merge is None:
            raise ValueError(f"a {said.get('peft_type')} adapter cannot be added into weights")
        return merge(safe_merge=True)
    except Exception as error:  # what stands in a folder is a stranger's, and PEFT raises anything
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"model.adapter: {adapter} does not fit {base}: {first}") from error


def other_base(named: str, base: str) -> str:
    """Why an adapter on `named` does not belong on `base`, in a clause that follows its name, or "". The same
    name, the same folder, or folders with the same configuration and weights are one base."""
    if not named or named == base:
        return ""
    one, other = Path(named).expanduser(), Path(base).expanduser()
    if one.exists() and other.exists():
        if one.resolve() == other.resolve() or _digest(one) == _digest(other):
            return ""
    elif one.name == other.name:  # a hub name and a copy of it on disk, as far as their names tell
        return ""
    return (
        f"was trained on {named}, and this run begins from {base}; give model.path = {named!r}, or one "
        f"trained on {base}"
    )


def _digest(path: Path) -> list[tuple[str, str]]:
    """Of the configuration and of every file of weights, all of it. It takes about a second per gigabyte, and
    only where an adapter names another folder."""
    files = [file for file in (path / "config.json", *sorted(path.glob("*.safetensors"))) if file.is_file()]
    found = []
    for file in files:
        with open(file, "rb") as data:
            found.append((file.name, hashlib.file_digest(data, "blake2b").hexdigest()))
    return found


def _has_place(key: str, model: PreTrainedModel) -> bool:
    """Whether the module that a tensor of an adapter belongs to is in the model."""
    name = key.removeprefix("base_model.model.").split(".lora_")[0].split(".modules_to_save")[0]
    if name == key.removeprefix("base_model.model."):
        return True  # another kind than LoRA: PEFT tells
    return any(found == name for found, _ in model.named_modules())
