"""What llama.cpp calls the models that are known on both sides, the parts of each, and the configuration that
a GGUF file's header says in the words of `transformers`. Reading a file and writing one go by these tables.

What a file says and these tables do not is refused by name: a model that loads and computes something else is
worse than none.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forethought.engines.gguf_header import Header

# name in the files of transformers -> in GGUF
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
ATTENTION = {f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"} | {"self_attn.o_proj": "attn_output"}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
GATED = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
PLAIN = ATTENTION | NORMS | GATED
FREQUENCIES = "rope_freqs.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`kind`: the type in transformers; `classes`: what a config.json may call it. `turned`: llama.cpp
    rotates neighbours where transformers rotates halves, so rows of queries and keys stand in another order.
    `shifted`: norms are stored one larger. `layer`: parts of a layer, theirs -> llama.cpp's. `numbers`: keys
    of the configuration -> fields that only this kind has. `activation`: of the feed-forward layers. `tied`:
    whether embedding and head have to be one matrix, or two; None: either."""

    kind: str
    classes: tuple[str, ...]
    turned: bool = False
    shifted: bool = False
    layer: Mapping[str, str] = field(default_factory=lambda: PLAIN)
    numbers: Mapping[str, str] = field(default_factory=dict)
    activation: str = "silu"
    tied: bool | None = None


FAMILIES: dict[str, Family] = {
    "llama": Family(kind="llama", classes=("LlamaForCausalLM", "MistralForCausalLM"), turned=True),
    "qwen2": Family(kind="qwen2", classes=("Qwen2ForCausalLM",)),
    "qwen3": Family(kind="qwen3", classes=("Qwen3ForCausalLM",), layer=PLAIN | HEAD_NORMS),
    "gemma": Family(
        kind="gemma",
        classes=("GemmaForCausalLM",),
        shifted=True,
        activation="gelu_pytorch_tanh",
        tied=True,
    ),
    "phi3": Family(
        kind="phi3",
        classes=("Phi3ForCausalLM",),
        layer=NORMS
        | {
            "self_attn.qkv_proj": "attn_qkv",
            "self_attn.o_proj": "attn_output",
            "mlp.gate_up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        },
        numbers={"sliding_window": "attention.sliding_window"},
    ),
    "olmo2": Family(
        kind="olmo2",
        classes=("Olmo2ForCausalLM",),
        tied=False,
        layer=ATTENTION
        | HEAD_NORMS
        | GATED
        | {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"},
    ),
    "granite": Family(
        kind="granite",
        classes=("GraniteForCausalLM",),
        turned=True,
        numbers={
            "attention_multiplier": "attention.scale",
            "embedding_multiplier": "embedding_scale",
            "residual_multiplier": "residual_scale",
            "logits_scaling": "logit_scale",
        },
    ),
    "smollm3": Family(kind="smollm3", classes=("SmolLM3ForCausalLM",), turned=True),
}
BIASED = (
    "llama",
    "qwen3",
    "granite",
    "olmo2",
    "smollm3",
)  # whose configuration says whether there are biases


def family_of(header: Header) -> Family:
    """ValueError that names the architecture of a file which is none of FAMILIES."""
    if (named := header.architecture) not in FAMILIES:
        raise ValueError(
            f"it is of the architecture {named!r}, which is not read from GGUF (known: "
            f"{', '.join(FAMILIES)}); give the model as safetensors"
        )
    if header.own("expert_count", 0):
        raise ValueError(f"it is a {header.architecture} of experts, which is not read from GGUF")
    return FAMILIES[named]


def names_of(header: Header) -> dict[str, str]:
    """Tensor of the file -> its name in transformers. ValueError for one without a place."""
    family, layers = family_of(header), _whole(header, "block_count")
    whole = {gguf: ours for ours, gguf in WHOLE.items()}
    inner = {gguf: ours for ours, gguf in family.layer.items()}
    found = {}
    for name in header.tensors:
        block, _, rest = name.removeprefix("blk.").partition(".")
        part, _, kind = rest.rpartition(".")
        if name in whole:
            found[name] = whole[name]
        elif part in inner and block.isdecimal() and int(block) < layers and kind in ("weight", "bias"):
            found[name] = f"model.layers.{int(block)}.{inner[part]}.{kind}"
        elif name != FREQUENCIES:
            raise ValueError(f"it holds a tensor {name} that a {header.architecture} has no place for")
    return found


def config_of(header: Header) -> dict[str, Any]:
    """The configuration as a config.json would have it."""
    family = family_of(header)
    if (embedding := header.tensors.get("token_embd.weight")) is None or len(embedding.shape) != 2:
        raise ValueError("it has no embedding (token_embd.weight)")
    heads = _whole(header, "attention.head_count")
    width = _whole(header, "embedding_length")
    size = header.own("attention.key_length", header.own("rope.dimension_count", width // max(1, heads)))
    if header.own("rope.dimension_count", size) != size or header.own("attention.value_length", size) != size:
        raise ValueError(
            f"its heads have {size} numbers, of which {header.own('rope.dimension_count')} turn with the "
            f"position and {header.own('attention.value_length')} are values; this is not read from GGUF"
        )
    config: dict[str, Any] = {
        "model_type": family.kind,
        "architectures": [family.classes[0]],
        "vocab_size": embedding.shape[0],
        "hidden_size": width,
        "intermediate_size": _whole(header, "feed_forward_length"),
        "num_hidden_layers": _whole(header, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _whole(header, "attention.head_count_kv", heads),
        "head_dim": size,
        "max_position_embeddings": _whole(header, "context_length"),
        "rms_norm_eps": float(_number(header, "attention.layer_norm_rms_epsilon")),
        "hidden_act": family.activation,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "rope_parameters": _rope(header, size),
    }
    if family.kind in BIASED:
        config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    if family.kind == "llama":
        config["mlp_bias"] = "blk.0.ffn_up.bias" in header.tensors
    for key, of in family.numbers.items():
        config[key] = _number(header, of)
    for key, of in (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")):
        config[key] = header.fields.get(f"tokenizer.ggml.{of}_token_id")
    return config


def ends_of(header: Header) -> list[int]:
    """Every token that ends a text or a turn, that of a text first."""
    fields = [header.fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    return list(dict.fromkeys(i for i in fields if isinstance(i, int)))


def _number(header: Header, key: str) -> int | float:
    value = header.own(key)
    if isinstance(value, list) and value and all(one == value[0] for one in value):
        value = value[0]  # one for each layer
    if isinstance(value, list):
        raise ValueError(f"its layers differ ({header.architecture}.{key}), which is not read from GGUF")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        said = "nothing" if value is None else repr(value)
        raise ValueError(f"it says {said} for {header.architecture}.{key}, which has to be a number")
    return value


def _whole(header: Header, key: str, default: int | None = None) -> int:
    if default is not None and header.own(key) is None:
        return default
    value = _number(header, key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"it says {value} for {header.architecture}.{key}, which has to be a count")
    return value


# ---- positions


def _rope(header: Header, size: int) -> dict[str, Any]:
    theta = float(_number(header, "rope.freq_base")) if header.own("rope.freq_base") is not None else 10000.0
    kind = header.own("rope.scaling.type", "none")
    if kind == "linear":
        return {
            "rope_type": "linear",
            "rope_theta": theta,
            "factor": float(_number(header, "rope.scaling.factor")),
        }
    if kind != "none" or any("rope_factors" in name for name in header.tensors):
        raise ValueError(
            f"it stretches its positions (rope.scaling.type {kind!r}), which is not read from GGUF"
        )
    if FREQUENCIES not in header.tensors:
        return {"rope_type": "default", "rope_theta": theta}
    return llama3_of(_floats(header, FREQUENCIES), theta, size)


def _floats(header: Header, name: str) -> Sequence[float]:
    tensor = header.tensors[name]
    if tensor.kind != "F32":
        raise ValueError(f"{name} is stored as {tensor.kind}, which is not read")
    with open(header.path, "rb") as file:
        file.seek(tensor.start)
        return struct.unpack(f"<{tensor.size // 4}f", file.read(tensor.size))


def llama3_factors(rope: Mapping[str, Any], size: int) -> list[float]:
    """By how much each frequency of a head of `size` numbers is divided: Llama 3's way to a longer context,
    as `transformers` computes it from its numbers."""
    old, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    found = []
    for i in range(0, size, 2):
        turns = old / (2 * math.pi * rope["rope_theta"] ** (i / size))  # in the old context
        smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
        found.append(1 / ((1 - smooth) / factor + smooth))
    return found


def llama3_of(factors: Sequence[float], theta: float, size: int) -> dict[str, Any]:
    """The numbers from which Llama 3 has these factors. ValueError where it has not."""
    for old in (1 << n for n in range(5, 20)):
        rope = {
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": round(max(factors), 3),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": old,
        }
        wanted = llama3_factors(rope, size)
        if len(factors) == len(wanted) and all(
            math.isclose(a, b, rel_tol=1e-4) for a, b in zip(factors, wanted, strict=True)
        ):
            return rope
    raise ValueError(f"it divides its frequencies ({FREQUENCIES}) otherwise than Llama 3, which is not read")
