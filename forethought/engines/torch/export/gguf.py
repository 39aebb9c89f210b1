"""A model's folder as one GGUF file, which llama.cpp reads (the extra `gguf`, whose library writes the file).

Covered: the decoders that llama.cpp calls `llama` (Llama, Mistral, small models from scratch on free text),
`qwen2` and `qwen3`, with a byte-level BPE tokenizer whose way to cut text into words llama.cpp knows. All
else is refused by name: a file that loads and says something else is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import safe_open

from forethought.core.errors import UserError
from forethought.engines.torch.export.folders import tokenizer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Precision = Literal["f16", "f32"]
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
# name in the files of transformers -> in GGUF; of a layer, "{i}" stands before both
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def write_gguf(folder: Path, to: Path, precision: Precision, name: str) -> None:
    """Write the whole model in `folder` to the file `to`. UserError where llama.cpp has no counterpart, and
    where the extra is not installed."""
    need_extra()
    import gguf

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = check(config, folder)
    tokenizer = tokenizer_of(folder)
    words = vocabulary(tokenizer, config["vocab_size"], folder)
    writer = gguf.GGUFWriter(to, architecture)
    writer.add_name(name)
    _numbers(writer, config)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if precision == "f32" else gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut_of(tokenizer, folder))
    writer.add_token_list(words)
    writer.add_token_types(_types(tokenizer, words))
    writer.add_token_merges(_merges(tokenizer))
    _ends(writer, folder, tokenizer)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
    for key, tensor in tensors(folder, config, architecture):
        # llama.cpp computes with norms and biases in float32
        narrow = precision == "f16" and tensor.dim() > 1
        writer.add_tensor(key, tensor.to(torch.float16 if narrow else torch.float32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def need_extra() -> None:
    """UserError where the extra is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UserError('GGUF files need the extra `gguf`: pip install "forethought[gguf]"') from None


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
    if kind != "default":
        raise UserError(
            f"--gguf: {folder.name} stretches its positions (rope_type {kind!r}), which is not converted"
        )
    if config.get("sliding_window") and config.get("use_sliding_window", named == "MistralForCausalLM"):
        raise UserError(f"--gguf: {folder.name} attends in sliding windows, which is not converted")
    if config.get("hidden_act", "silu") != "silu":
        raise UserError(f"--gguf: {folder.name} uses {config['hidden_act']}, llama.cpp's decoder silu")
    return ARCHITECTURES[named]


def _numbers(writer: Any, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    theta = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10000.0))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(theta))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


# ---- the tokenizer


def vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, folder: Path) -> list[str]:
    """Token texts by id, with fillers for ids that no token has. UserError where it is no byte-level BPE."""
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    levels = json.dumps([said.get("pre_tokenizer"), said.get("decoder")])
    if said["model"].get("type") != "BPE" or "ByteLevel" not in levels or said["model"].get("byte_fallback"):
        kind = said["model"].get("type")
        what = "a list of words" if kind == "WordLevel" else kind
        raise UserError(
            f"--gguf: the tokenizer of {folder.name} is {what}, and only byte-level BPE is converted; models "
            "from scratch on tasks of words have no counterpart in llama.cpp"
        )
    words = {number: text for text, number in tokenizer.get_vocab().items()}
    return [words.get(i, f"[PAD{i}]") for i in range(rows)]


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
    import gguf

    kind, added = gguf.TokenType, tokenizer.added_tokens_decoder
    return [
        (kind.CONTROL if added[i].special else kind.USER_DEFINED)
        if i in added
        else (kind.UNUSED if word == f"[PAD{i}]" else kind.NORMAL)
        for i, word in enumerate(words)
    ]


def _merges(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    said = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in said]


def _ends(writer: Any, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer's end of text, and what else ends a turn, of which llama.cpp knows two more."""
    path = folder / "generation_config.json"
    said = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    ids = [i for i in (said if isinstance(said, list) else [said]) if isinstance(i, int)]
    if tokenizer.eos_token_id is not None:
        writer.add_eos_token_id(tokenizer.eos_token_id)
    more = [i for i in ids if i != tokenizer.eos_token_id]
    for add, number in zip((writer.add_eot_token_id, writer.add_eom_token_id), more, strict=False):
        add(number)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_add_bos_token(bool(getattr(tokenizer, "add_bos_token", False)))


# ---- the weights


def tensors(folder: Path, config: Mapping[str, Any], architecture: str) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in GGUF, tensor) of every weight. UserError for a weight without a place there."""
    heads, pairs = config["num_attention_heads"], architecture == "llama"
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                name, tensor = _placed(key, folder), file.get_tensor(key).float()
                if name == "output.weight" and config.get("tie_word_embeddings"):
                    continue
                if name.endswith("attn_output.bias") and not tensor.any():
                    continue  # of small models from scratch: zero, and never trained
                if pairs and ("attn_q." in name or "attn_k." in name):
                    n = heads if "attn_q." in name else config.get("num_key_value_heads") or heads
                    tensor = _rotated(tensor, n)
                yield name, tensor.contiguous()


def _placed(key: str, folder: Path) -> str:
    if key in WHOLE:
        return WHOLE[key]
    start, _, rest = key.partition("model.layers.")
    number, _, inner = rest.partition(".")
    module, _, kind = inner.rpartition(".")
    if start or not number.isdecimal() or module not in LAYER or kind not in ("weight", "bias"):
        raise UserError(f"--gguf: {folder.name} has a weight {key!r}, which has no place in the file")
    return f"blk.{number}.{LAYER[module]}.{kind}"


def _rotated(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in the order of llama.cpp's `llama`, which rotates neighbours where
    transformers rotates halves."""
    size = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, size, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
