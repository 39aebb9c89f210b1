"""Vision-language models of `transformers` at a small size, with random weights, and the folders that hold
them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_kit import WORDS
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from forethought.core.sight import Shown
from forethought.engines.torch.forest.attention import NAME
from forethought.engines.torch.models.small import tokenizer_of

MARKS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
CELL, SIDE = 4, 8  # pixels of a cell's side, and of a patch of 2 x 2 cells
KINDS: dict[str, dict] = {  # type -> what its vision tower needs beyond `vlm_of`'s own numbers
    "qwen2_vl": {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 32,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    },
}


def vlm_of(kind: str = "qwen2_vl", tokenizer=None, seed: int = 0, **fields) -> PreTrainedModel:
    """Two layers of width 32, a tower of two; skips where this `transformers` has no such class."""
    tokenizer = tokenizer or tokenizer_of([*WORDS, *MARKS])
    known, size = tokenizer.get_vocab(), len(tokenizer)
    text = {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    } | fields
    vision = {
        "depth": 2,
        "num_heads": 2,
        "patch_size": CELL,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": 0.1,
    } | KINDS[kind]
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = {name: known[mark] for name, mark in zip(names, MARKS, strict=True)}
    try:
        config = AutoConfig.for_model(kind, text_config=text, vision_config=vision, **ids)
    except ValueError as e:
        pytest.skip(f"this transformers has no {kind}: {e}")
    if kind == "qwen2_5_vl" and _places_wrongly():
        pytest.skip("this transformers multiplies the place of a picture by its tokens per second (#45325)")
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation=NAME).float().eval()
    with torch.no_grad():  # biases and norms are no zeros and ones
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return model


def _places_wrongly() -> bool:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

    said = inspect.getsource(Qwen2_5_VLModel.get_vision_position_ids)
    return "position_temporal = position_temporal * time_interval" in said


def vlm_on_disk(folder: Path, kind: str = "qwen2_vl", tokenizer=None, **fields) -> str:
    """What `--model` takes: the model, its tokenizer and its processor."""
    pytest.importorskip("PIL", reason="the extra vlm is not installed")
    tokenizer = tokenizer or tokenizer_of([*WORDS, *MARKS])
    vlm_of(kind, tokenizer, **fields).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    said = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": CELL, "merge_size": 2}
    said |= {"temporal_patch_size": 2, "size": {"shortest_edge": 64, "longest_edge": 4096}}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return str(folder)


def shown(name: str) -> Shown:
    """`HEIGHTxWIDTH/SEED`: noise of so many pixels."""
    size, seed = name.split("/")
    height, width = map(int, size.split("x"))
    return Shown(np.random.default_rng(int(seed)).integers(0, 256, (height, width, 3), np.uint8))
