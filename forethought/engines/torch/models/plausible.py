"""Whether a configuration can be that of the weights beside it, found before a weight is read and before
memory is taken: its numbers are numbers of a size that models have, and the model that they make is no larger
than what the files hold.

Everything here raises ValueError with the key and the value; `loading.from_path` says of which model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from forethought.core.printable import cut
from forethought.core.sight import SEEING
from forethought.engines.torch.models.architecture import auto_class
from forethought.engines.torch.models.folder import Tensors

# what is counted -> (its keys in the configurations of transformers, the most that any model has, and room)
COUNTS = {
    "tokens": (("vocab_size",), 1 << 24),
    "positions": (
        (
            "max_position_embeddings",
            "n_positions",
            "n_ctx",
            "max_seq_len",
            "seq_length",
            "original_max_position_embeddings",
        ),
        1 << 26,
    ),
    "numbers": (
        (
            "hidden_size",
            "n_embd",
            "d_model",
            "dim",
            "intermediate_size",
            "n_inner",
            "ffn_dim",
            "ffn_hidden_size",
            "embedding_size",
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "kv_lora_rank",
            "q_lora_rank",
            "rotary_dim",
        ),
        1 << 20,
    ),
    "heads": (
        ("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads", "num_kv_heads"),
        1 << 14,
    ),
    "numbers of a head": (
        ("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "d_kv"),
        1 << 14,
    ),
    "layers": (("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 1 << 13),
    "experts": (
        ("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok", "n_shared_experts"),
        1 << 13,
    ),
}
ZERO = (
    "rotary_dim",
    "n_shared_experts",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    # may be none
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "seq_length",
    "n_inner",
    "kv_lora_rank",
    "q_lora_rank",
)
FLAGS = (
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "is_encoder_decoder",
    "use_sliding_window",
    "alibi",
)
# of a tower that reads pictures
TOWER = {
    "depth": 1 << 10,
    "embed_dim": 1 << 20,
    "in_channels": 1 << 4,
    "mlp_ratio": 1 << 6,
    "out_hidden_size": 1 << 20,
    "patch_size": 1 << 10,
    "spatial_merge_size": 1 << 6,
    "temporal_patch_size": 1 << 6,
    "window_size": 1 << 12,
}
IDS = ("eos_token_id", "bos_token_id", "pad_token_id")
TYPES = ("float32", "float16", "bfloat16", "float64", "float", "half", "double", "auto")
FLOATS = ("F64", "F32", "F16", "BF16")  # in the headers of safetensors
# numbers that a model may make for itself (masks, rotary tables) beside as many as it has weights
BUFFERS = 1 << 28
DEPTH = 4  # of tables in tables that are looked at


def check_numbers(raw: dict[str, Any]) -> None:
    """The configuration as it stands in its file."""
    limits = {key: most for keys, most in COUNTS.values() for key in keys}
    for where, key, value in _entries(raw, "", 0):
        least = 0 if key in ZERO else 1
        if value is None:
            continue
        if key in limits and (type(value) is not int or not least <= value <= limits[key]):
            raise ValueError(
                f"config.json: {where} = {_short(value)} is not a whole number from {least} to "
                f"{limits[key]:,}"
            )
        if key in FLAGS and type(value) is not bool:
            raise ValueError(f"config.json: {where} = {_short(value)} is neither true nor false")
        if key in IDS and not all(
            type(i) is int and -1 <= i < 1 << 31 for i in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(f"config.json: {where} = {_short(value)} is not a token id")
        if key in ("dtype", "torch_dtype") and not (
            isinstance(value, str) and value.removeprefix("torch.") in TYPES
        ):
            raise ValueError(
                f"config.json: {where} = {_short(value)} is not a type that weights train in; "
                f"known: {', '.join(TYPES[:4])}"
            )
        if key.endswith(("_eps", "_epsilon")) and not (type(value) in (int, float) and 0 <= value < 1):
            raise ValueError(f"config.json: {where} = {_short(value)} is not a number from 0 to 1")
        if key == "rope_theta" and not (type(value) in (int, float) and 0 < value < math.inf):
            raise ValueError(f"config.json: {where} = {_short(value)} is not a positive number")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"config.json: {where} = {value} is not finite")
    tower = raw.get("vision_config")
    if raw.get("model_type") in SEEING and isinstance(tower, dict):
        for key in tower.keys() & TOWER.keys():
            if type(tower[key]) is not int or not 1 <= tower[key] <= TOWER[key]:
                raise ValueError(
                    f"config.json: vision_config.{key} = {_short(tower[key])} is not a whole number from 1 "
                    f"to {TOWER[key]:,}"
                )
    if raw.get("quantization_config") is not None:
        raise ValueError(
            "it is quantised (quantization_config); what trains are plain weights: use the "
            "model as it was before"
        )
    if raw.get("transformers_weights") is not None:
        raise ValueError(
            f"config.json: transformers_weights = {_short(raw['transformers_weights'])}; "
            f"weights are read from model.safetensors"
        )


def _entries(table: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    """(address, key, value) of all entries that are no table."""
    for key, value in table.items():
        if isinstance(value, dict):
            if depth < DEPTH:
                yield from _entries(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", key, value


def _short(value: object) -> str:
    many = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30
    return "a number of more than 30 digits" if many else cut(repr(value))


def check_sizes(config: PretrainedConfig, tensors: Tensors) -> None:
    """The model that the configuration makes, against the headers of its files. It is made on no device,
    without memory."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if layers > len(tensors):  # to make so many takes time
        raise ValueError(
            f"config.json says {layers:,} layers (num_hidden_layers), and its files hold "
            f"{len(tensors):,} tensors"
        )
    if config.model_type in SEEING:
        tensors = {_named(key): held for key, held in tensors.items()}
    with torch.device("meta"):
        model = auto_class(config).from_config(config)
    wanted = dict(model.named_parameters(remove_duplicate=False))
    for key, p in wanted.items():
        if key in tensors:
            kind, shape = tensors[key]
            if shape != tuple(p.shape):
                raise ValueError(
                    f"{key} has the shape {list(shape)} in the files and {list(p.shape)} by config.json"
                )
            if kind not in FLOATS:
                raise ValueError(f"{key} is stored as {kind}; weights are read as one of {', '.join(FLOATS)}")
    own, held = (
        sum(p.numel() for p in model.parameters()),
        sum(math.prod(shape) for _, shape in tensors.values()),
    )
    if own > held:
        _refuse_absent(model, wanted, tensors, own, held)
    if (made := sum(b.numel() for b in model.buffers())) > max(BUFFERS, own):
        raise ValueError(f"config.json asks for tables of {made:,} numbers beside weights of {own:,}")


def _named(key: str) -> str:
    """What a weight of a model that sees is called now; files have the names of an earlier time."""
    if key.startswith("visual."):
        return f"model.{key}"
    if key.startswith("model.") and not key.startswith(("model.language_model.", "model.visual.")):
        return key.replace("model.", "model.language_model.", 1)
    return key


def _refuse_absent(
    model: PreTrainedModel, wanted: dict[str, torch.nn.Parameter], tensors: Tensors, own: int, held: int
) -> None:
    # a tied weight stands under one of its names
    there = {id(p) for key, p in wanted.items() if key in tensors}
    absent = sorted(key for key, p in model.named_parameters() if id(p) not in there)
    if there and absent:
        raise ValueError(lacking(type(model).__name__, absent))
    raise ValueError(f"config.json makes a model of {own:,} weights, and its files hold {held:,}")


def lacking(name: str, absent: list[str]) -> str:
    """The sentence about weights that a checkpoint does not hold."""
    return (
        f"it lacks weights of {name}: {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}; they "
        f"would be drawn at random"
    )
