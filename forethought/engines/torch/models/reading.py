"""A model's files to a model with its tokenizer: the folder that `save_pretrained` writes, a name on the hub,
or a GGUF file. What the configuration and the headers of the files say is checked before a weight is read.

Readers raise whatever a stranger's files lead to; `loading.from_path` says of which model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file, logging

from forethought.core.errors import UserError
from forethought.engines.gguf_families import config_of, names_of
from forethought.engines.gguf_header import PLAIN, file_at, lacks_model, read_header
from forethought.engines.torch.forest.attention import NAME
from forethought.engines.torch.models import folder, gguf, plausible
from forethought.engines.torch.models.architecture import INSTEAD, auto_class, check_config
from forethought.engines.torch.models.fingerprint import config_digest
from forethought.engines.torch.models.tokenizer import read_tokenizer


@dataclass(frozen=True, slots=True)
class Read:
    """`name`: what transformers calls it by. `info`: keys that are missing or too many, as transformers says.
    `digest`: which configuration (of a GGUF: which file) this is. `moved`: nothing but this library makes
    these weights of the file, so checkpoints hold them."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    info: dict
    digest: str
    notes: tuple[str, ...] = ()
    moved: bool = False


def read_folder(path: str, trust_remote_code: bool, dtype: torch.dtype | str, pictures: bool = False) -> Read:
    """A folder of `save_pretrained`, or a name on the hub. `pictures`: whether the task shows some."""
    local = Path(path).expanduser()
    if lacks_model(path):
        raise UserError(
            f"{path} is not a model: it has no config.json; give a folder that `save_pretrained` "
            f"wrote, a GGUF file, or a hub name"
        )
    name = str(local) if local.exists() else path
    folder.check_kinds(name)
    raw = folder.read_json(folder.find(name, folder.CONFIG) or Path(name, folder.CONFIG))
    plausible.check_numbers(raw)
    if (ends := folder.find(name, folder.GENERATION)) is not None:
        folder.read_json(
            ends
        )  # transformers goes on without it where it is torn, and its end tokens are lost
    config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    check_config(config, path, pictures)
    tokenizer = read_tokenizer(name, trust_remote_code, config.get_text_config().vocab_size)
    tensors = folder.tensors_of(name)
    if not trust_remote_code:
        plausible.check_sizes(config, tensors)
    with bars_on_terminals_alone(), _through_the_interface(config, path):
        model, info = auto_class(config).from_pretrained(
            name,
            config=config,
            attn_implementation=NAME,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    return Read(name, model, tokenizer, info, config_digest(raw))


def find_gguf(path: str) -> Path | None:
    """The GGUF file that a path means: a file, a folder with one, or `owner/model/file.gguf` on the hub; None
    where it means none. ValueError where it means several."""
    if (found := file_at(path)) is not None:
        return found
    parts = path.split("/")
    if len(parts) < 3 or not path.endswith(".gguf") or path.startswith((".", "/", "~")):
        return None
    found = cached_file("/".join(parts[:2]), "/".join(parts[2:]))
    return Path(found) if found else None


def read_gguf(file: Path, path: str, dtype: torch.dtype | str) -> Read:
    """A GGUF file. Quantised weights become plain ones: float32, or bf16 where a GPU will hold them."""
    header = read_header(file)
    raw = config_of(header)
    plausible.check_numbers(raw)
    config = AutoConfig.for_model(**raw)
    check_config(config, path)
    names = names_of(header)
    plausible.check_sizes(config, {ours: ("F32", header.tensors[key].shape) for key, ours in names.items()})
    quantised = any(stored.kind not in PLAIN for stored in header.tensors.values())
    if quantised:
        gguf.need_extra(f"{path} is quantised ({gguf.describe(header)})")
    tokenizer = gguf.tokenizer_of(header)
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    if dtype == "auto":
        dtype = torch.bfloat16 if quantised and torch.cuda.is_available() else torch.float32
    model, info = kind.from_pretrained(
        None,
        config=config,
        state_dict=gguf.weights_of(
            header, {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        ),
        attn_implementation=NAME,
        dtype=dtype,
        output_loading_info=True,
    )
    model.generation_config = GenerationConfig(**gguf.generation_of(header))
    digest = gguf.digest(file)
    note = (
        f"{path} is a GGUF file ({gguf.describe(header)}; SHA-256 {digest[:16]}), read as "
        f"{str(model.dtype).removeprefix('torch.')}; checkpoints hold the base, which nothing else can "
        "make of it"
    )
    return Read(path, model, tokenizer, info, digest, (note,), moved=True)


@contextmanager
def _through_the_interface(config: PretrainedConfig, path: str) -> Iterator[None]:
    """UserError for a model that asks for an attention by name and knows only its own."""
    try:
        yield
    except KeyError as e:
        if e.args != (NAME,):
            raise
        raise UserError(
            f"{path} ({config.model_type}) has an attention that does not go through the attention interface "
            f"of transformers, and so cannot take packed forests; {INSTEAD}"
        ) from e


@contextmanager
def bars_on_terminals_alone() -> Iterator[None]:
    """A bar in a file or a pipe is a line that nobody asked for."""
    if sys.stderr.isatty() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
