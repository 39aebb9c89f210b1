"""Folders of models and adapters, as `transformers`, PEFT and vLLM open them."""

from __future__ import annotations

import errno
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from forethought.core.errors import UserError
from forethought.engines.saved import Saved
from forethought.engines.torch.models.architecture import auto_class
from forethought.engines.torch.models.loading import sentence
from forethought.engines.torch.models.reading import bars_on_terminals_alone
from forethought.engines.torch.models.tokenizer import PROBES, read_tokenizer
from forethought.engines.torch.sampling.stops import Stops

GENERATION, CONFIG, ADAPTER = "generation_config.json", "config.json", "adapter_config.json"
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")


def copy_model(saved: Saved, to: Path) -> None:
    """A whole model of the checkpoint, file by file."""
    assert saved.folder is not None, f"policy {saved.policy!r} has no folder of its own in the checkpoint"
    shutil.copytree(saved.folder, to)


def copy_adapter(saved: Saved, to: Path, base: str) -> None:
    """An adapter with the tokenizer of its base. `base`: what its base_model_name_or_path says."""
    assert saved.folder is not None, f"policy {saved.policy!r} has no folder of its own in the checkpoint"
    shutil.copytree(saved.folder, to)
    copy_tokenizer(saved, to)
    config = json.loads((to / ADAPTER).read_text(encoding="utf-8"))
    (to / ADAPTER).write_text(
        json.dumps(config | {"base_model_name_or_path": base}, indent=2), encoding="utf-8"
    )


def copy_tokenizer(saved: Saved, to: Path) -> None:
    """The tokenizer's files, its chat template among them, without the weights that may lie beside them."""
    for path in sorted(saved.tokenizer.iterdir()):
        if (
            path.is_file()
            and path.name not in (*WEIGHTS, CONFIG, GENERATION)
            and not (to / path.name).exists()
        ):
            shutil.copy(path, to / path.name)


@contextmanager
def quiet() -> Iterator[None]:
    """Bars on terminals alone, and no warnings of one library about another."""
    with bars_on_terminals_alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


class Opened(NamedTuple):
    """A model with its tokenizer."""

    model: Any  # a PreTrainedModel, or a PeftModel around one
    tokenizer: PreTrainedTokenizerBase


def opened(saved: Saved, merge: bool = False, trust_remote_code: bool = False) -> Opened:
    """The policy as `transformers` and PEFT open it. `merge`: an adapter is added into the weights, in
    float32, which then have the type of the base again. UserError where the base cannot be loaded."""
    path = saved.folder if saved.kind == "model" else saved.base
    try:
        with quiet():
            config = AutoConfig.from_pretrained(str(path), trust_remote_code=trust_remote_code)
            model: Any = auto_class(config).from_pretrained(
                str(path), dtype="auto", trust_remote_code=trust_remote_code, use_safetensors=True
            )
            kept = model.dtype
            if saved.kind == "adapter":
                from peft import PeftModel

                model = PeftModel.from_pretrained(model.float() if merge else model, str(saved.folder))
                if merge:
                    model = model.merge_and_unload(safe_merge=True).to(kept)
    except Exception as error:  # what stands in a folder is a stranger's, and transformers raises anything
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EMFILE):
            raise
        raise UserError(f"{path} cannot be opened for policy {saved.policy!r}: {sentence(error)}") from error
    return Opened(model.eval(), tokenizer_of(saved.tokenizer))


def write_merged(saved: Saved, to: Path, trust_remote_code: bool = False) -> None:
    """The policy as one whole model."""
    model, _ = opened(saved, merge=True, trust_remote_code=trust_remote_code)
    try:
        with quiet():
            model.save_pretrained(to)
    except SafetensorError as error:  # hides the system's error
        found = re.search(r"(?:os error|code:) (\d+)", str(error))
        raise OSError(int(found[1]) if found else errno.EIO, str(error), str(to)) from error
    copy_tokenizer(saved, to)


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer whose files lie in a folder."""
    return read_tokenizer(str(folder), trust_remote_code=False)


def strange_tokenizer(folder: Path) -> bool:
    """Whether AutoTokenizer makes another tokenizer of this folder than its tokenizer.json is: it opens some
    kinds of models (a qwen2) with a class of their own, whatever the files say."""
    own = tokenizer_of(folder)
    try:
        auto = AutoTokenizer.from_pretrained(folder)
        return any(
            auto.encode(text, add_special_tokens=False) != own.encode(text, add_special_tokens=False)
            for text in PROBES
        )
    except Exception:  # of a class that takes no such files
        return True


def ends(folder: Path, stops: Sequence[str], base: str = "") -> dict[str, Any]:
    """What ends a turn of roles with these stop words: {"eos_token_id": ids, "stop_strings": words that may
    be spelled with several tokens}. The model's own ends are among the ids. `base`: where an adapter's base
    says its own."""
    tokenizer = tokenizer_of(folder)
    found = Stops(tokenizer, stops)
    own = _ids(_read(folder / GENERATION)) or _ids(_read(folder / CONFIG))
    if not own and base and Path(base).is_dir():
        own = _ids(_read(Path(base) / GENERATION)) or _ids(_read(Path(base) / CONFIG))
    ids = dict.fromkeys([*own, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])])
    ids |= dict.fromkeys(sorted(found.ids))
    return {"eos_token_id": list(ids), **({"stop_strings": found.texts} if found.texts else {})}


def write_generation(folder: Path, ending: Mapping[str, Any]) -> None:
    """generation_config.json: what the model's own says, and what ends a turn."""
    tokenizer = tokenizer_of(folder)
    said = {key: value for key, value in _read(folder / GENERATION).items() if value is not None}
    if "pad_token_id" not in said and tokenizer.pad_token_id is not None:
        said["pad_token_id"] = tokenizer.pad_token_id
    GenerationConfig(**(said | dict(ending))).to_json_file(folder / GENERATION)


def _ids(config: Mapping[str, Any]) -> list[int]:
    said = config.get("eos_token_id")
    return [i for i in (said if isinstance(said, list) else [said]) if isinstance(i, int)]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
