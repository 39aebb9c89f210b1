"""A model's folder as one GGUF file, which llama.cpp reads.

Covered: the decoders of `engines/gguf_families` (Llama, Mistral, small models from scratch on free text,
Qwen, and others), with a byte-level BPE tokenizer whose way to cut text into words llama.cpp knows, or one of
SentencePiece's kind (`pieces.py`). All else is refused by name: a file that loads and says something else is
worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import safe_open

from forethought.core.errors import UserError
from forethought.engines.gguf_families import FAMILIES, FREQUENCIES, WHOLE, Family, llama3_factors
from forethought.engines.torch.export.folders import tokenizer_of
from forethought.engines.torch.export.gguf_file import write_file
from forethought.engines.torch.export.pieces import pieces_of
from forethought.engines.torch.models.gguf import (
    CONTROL,
    DEFINED,
    GPT2,
    LLAMA3,
    NORMAL,
    QWEN,
    UNUSED,
    turned,
)
from forethought.engines.torch.models.tokenizer import begin_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Precision = Literal["f16", "f32"]
FILE_TYPES = {"f32": 0, "f16": 1}  # llama.cpp's numbers
ARCHITECTURES = {name: kind for kind, family in FAMILIES.items() for name in family.classes}


def write_gguf(folder: Path, to: Path, precision: Precision, name: str) -> None:
    """Write the whole model in `folder` to the file `to`. UserError where llama.cpp has no counterpart."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = check(config, folder)
    tokenizer = tokenizer_of(folder)
    fields: dict[str, Any] = {
        "general.architecture": architecture,
        "general.name": name,
        "general.file_type": FILE_TYPES[precision],
        **{f"{architecture}.{key}": value for key, value in _numbers(config, architecture).items()},
        **_words(tokenizer, config["vocab_size"], folder),
        **_ends(folder, tokenizer),
    }
    if isinstance(tokenizer.chat_template, str):
        fields["tokenizer.chat_template"] = tokenizer.chat_template
    write_file(to, fields, partial(_rounded, folder, config, architecture, precision))


def _rounded(
    folder: Path, config: Mapping[str, Any], architecture: str, precision: Precision
) -> Iterator[tuple[str, torch.Tensor]]:
    """llama.cpp computes with norms and biases in float32."""
    for key, tensor in tensors(folder, config, architecture):
        narrow = precision == "f16" and tensor.dim() > 1
        yield key, tensor.to(torch.float16 if narrow else torch.float32)


def check(config: Mapping[str, Any], folder: Path) -> str:
    """llama.cpp's name for the architecture. UserError for one that has none here."""
    named = (config.get("architectures") or ["none"])[0]
    if named not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(
            f"--gguf: {folder.name} is a {named}, for which there is no converter here (known: {known}); "
            "llama.cpp's convert_hf_to_gguf.py may have one for the folder that --merge writes"
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3") or (kind == "llama3" and ARCHITECTURES[named] != "llama"):
        raise UserError(
            f"--gguf: {folder.name} stretches its positions (rope_type {kind!r}), which is not converted"
        )
    if config.get("sliding_window") and config.get("use_sliding_window", named == "MistralForCausalLM"):
        raise UserError(f"--gguf: {folder.name} attends in sliding windows, which is not converted")
    family = FAMILIES[ARCHITECTURES[named]]
    tied, wanted = bool(config.get("tie_word_embeddings")), family.activation
    if family.tied not in (None, tied):
        what = "one matrix" if tied else "two matrices"
        raise UserError(
            f"--gguf: embedding and head of {folder.name} are {what}, which llama.cpp's {family.kind} does "
            "not load"
        )
    if (used := config.get("hidden_activation") or config.get("hidden_act", wanted)) != wanted:
        raise UserError(f"--gguf: {folder.name} uses {used}, llama.cpp's decoder {wanted}")
    return ARCHITECTURES[named]


def _numbers(config: Mapping[str, Any], architecture: str) -> dict[str, int | float]:
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    theta = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10000.0))
    more = FAMILIES[architecture].numbers
    return {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "attention.key_length": size,
        "attention.value_length": size,
        "rope.dimension_count": size,
        "rope.freq_base": float(theta),
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "vocab_size": config["vocab_size"],
        **{
            field: config.get(key) or 0 if key == "sliding_window" else float(config[key])
            for key, field in more.items()
        },
    }


# ---- the tokenizer


def _words(tokenizer: PreTrainedTokenizerBase, rows: int, folder: Path) -> dict[str, Any]:
    """Token texts by id, with fillers for ids that no token has, and how text is cut into them. UserError
    where llama.cpp would cut it otherwise."""
    known = {number: text for text, number in tokenizer.get_vocab().items()}
    words = [known.get(i, f"[PAD{i}]") for i in range(rows)]
    if pieces := pieces_of(tokenizer, words, folder):
        return pieces
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    levels = json.dumps([said.get("pre_tokenizer"), said.get("decoder")])
    if said["model"].get("type") != "BPE" or "ByteLevel" not in levels:
        kind = said["model"].get("type")
        what = "a list of words" if kind == "WordLevel" else kind
        raise UserError(
            f"--gguf: the tokenizer of {folder.name} is {what}, and only BPE is converted; models from "
            "scratch on tasks of words have no counterpart in llama.cpp"
        )
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": cut_of(tokenizer, folder),
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": _types(tokenizer, words),
        "tokenizer.ggml.merges": _merges(tokenizer),
    }


def cut_of(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    """llama.cpp's name for how the tokenizer cuts text into words. UserError for a way that is not known."""
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    if (said.get("normalizer") or {}).get("type") not in (None, "NFC"):
        raise UserError(
            f"--gguf: the tokenizer of {folder.name} rewrites its text first, which is not converted"
        )
    steps = said.get("pre_tokenizer") or {}
    parts = steps.get("pretokenizers", [steps])
    plain = [part for part in parts if part.get("type") == "ByteLevel" and not part.get("add_prefix_space")]
    if len(plain) == 1 and parts[-1] is plain[0]:
        before = parts[:-1]
        regex = plain[0].get("use_regex", True)
        if not before and regex:
            return "gpt-2"
        if regex and before == [{"type": "Digits", "individual_digits": True}]:
            return "smollm"
        pattern = before[0].get("pattern", {}).get("Regex") if len(before) == 1 else None
        if not regex and pattern in (QWEN, LLAMA3, GPT2):
            return {QWEN: "qwen2", LLAMA3: "llama-bpe", GPT2: "gpt-2"}[pattern]
    raise UserError(
        f"--gguf: how the tokenizer of {folder.name} cuts text into words ({json.dumps(steps)[:200]}) has no "
        "counterpart here"
    )


def _types(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> list[int]:
    added = tokenizer.added_tokens_decoder
    return [
        (CONTROL if added[i].special else DEFINED)
        if i in added
        else (UNUSED if word == f"[PAD{i}]" else NORMAL)
        for i, word in enumerate(words)
    ]


def _merges(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    said = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in said]


def _ends(folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer's end of text, and what else ends a turn, of which llama.cpp knows two more."""
    path = folder / "generation_config.json"
    said = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    ids = [i for i in (said if isinstance(said, list) else [said]) if isinstance(i, int)]
    more = [i for i in ids if i != tokenizer.eos_token_id]
    found = {
        "eos": tokenizer.eos_token_id,
        **dict(zip(("eot", "eom"), more, strict=False)),
        "padding": tokenizer.pad_token_id,
        "bos": tokenizer.bos_token_id,
    }
    return {f"tokenizer.ggml.{name}_token_id": i for name, i in found.items() if i is not None} | {
        "tokenizer.ggml.add_bos_token": begin_of(tokenizer) == (tokenizer.bos_token_id,)
    }


# ---- the weights


def tensors(folder: Path, config: Mapping[str, Any], architecture: str) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in GGUF, tensor) of every weight. UserError for a weight without a place there."""
    heads, family = config["num_attention_heads"], FAMILIES[architecture]
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                name, tensor = _placed(key, family, folder), file.get_tensor(key).float()
                if name == "output.weight" and config.get("tie_word_embeddings"):
                    continue
                if name.endswith("attn_output.bias") and not tensor.any():
                    continue  # of small models from scratch: zero, and never trained
                if family.turned and ("attn_q." in name or "attn_k." in name):
                    n = heads if "attn_q." in name else config.get("num_key_value_heads") or heads
                    tensor = turned(tensor, n)
                if family.shifted and name.endswith("norm.weight"):
                    tensor = tensor + 1
                yield name, tensor.contiguous()
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) == "llama3":
        size = config.get("head_dim") or config["hidden_size"] // heads
        rope = {"rope_theta": config.get("rope_theta", 10000.0)} | rope
        yield FREQUENCIES, torch.tensor(llama3_factors(rope, size))


def _placed(key: str, family: Family, folder: Path) -> str:
    if key in WHOLE:
        return WHOLE[key]
    start, _, rest = key.partition("model.layers.")
    number, _, inner = rest.partition(".")
    module, _, kind = inner.rpartition(".")
    if start or not number.isdecimal() or module not in family.layer or kind not in ("weight", "bias"):
        raise UserError(f"--gguf: {folder.name} has a weight {key!r}, which has no place in the file")
    return f"blk.{number}.{family.layer[module]}.{kind}"
