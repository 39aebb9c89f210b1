"""Embeddings of short texts by any Hugging Face model: the mean of its last hidden states, which is what most
sentence transformers are trained for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoModel, PreTrainedTokenizerBase
from transformers.utils import logging

from forethought.core.errors import UserError, unknown
from forethought.engines.torch.models.loading import sentence
from forethought.engines.torch.models.tokenizer import read_tokenizer

MOST_TOKENS = 64  # of a text; a gram of five words has some ten
BATCH = 256  # texts
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError)


class Embedder:
    """`Embedder("sentence-transformers/all-MiniLM-L6-v2")(texts)`. UserError for a path or name that is no
    model with a tokenizer."""

    def __init__(self, path: str, device: str = "auto"):
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise UserError(f"--device: {unknown('device', device, ('auto', 'cpu', 'cuda', 'cuda:0'))}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError("--device cuda: no CUDA device is visible to PyTorch here; use cpu")
        self.tokenizer = _tokenizer(path)
        if self.tokenizer.pad_token_id is None:  # padding is masked, so any token will do
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)
        try:
            self.model = AutoModel.from_pretrained(_name(path), dtype=torch.float32).to(device).eval()
        except UNREADABLE as e:
            why = (
                "it comes with code of its own, which is not run here"
                if "trust_remote_code" in str(e)
                else sentence(e)
            )
            raise UserError(f"{path} cannot be loaded as a model that embeds: {why}") from e

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """[N, D] float32, rows of length 1: hidden states averaged over the tokens of each text, padding left
        out. A text gives the same row, up to rounding, whatever stands beside it."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # alike in length: little padding
        rows: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            for i, row in zip(chosen, self._batch([texts[i] for i in chosen]), strict=True):
                rows[i] = row
        return np.stack(rows)

    def _batch(self, texts: list[str]) -> np.ndarray:
        asked = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=MOST_TOKENS,
            padding_side="right",
            return_tensors="pt",
        )
        ids_BT, mask_BT = (
            asked["input_ids"].to(self.model.device),
            asked["attention_mask"].to(self.model.device),
        )
        hidden_BTD = self.model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        weight_BT1 = mask_BT[:, :, None].to(hidden_BTD.dtype)
        mean_BD = (hidden_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean_BD, dim=-1).float().cpu().numpy()


def codec(path: str) -> tuple[Callable[[str], list[int]], Callable[[Sequence[int]], str]]:
    """(encode, decode) of a model's tokenizer alone, without special tokens. UserError where there is
    none."""
    tokenizer = _tokenizer(path)
    logging.set_verbosity_error()  # a text above the model's context is no fault here: nothing reads it
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    return encode, lambda ids: tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def _tokenizer(path: str) -> PreTrainedTokenizerBase:
    try:
        return read_tokenizer(_name(path), trust_remote_code=False)
    except UNREADABLE as e:
        raise UserError(f"the tokenizer of {path} cannot be loaded: {sentence(e)}") from e


def _name(path: str) -> str:
    """What `from_pretrained` takes: a folder, or a name on the hub."""
    folder = Path(path).expanduser()
    if path.startswith((".", "/", "~")) and not folder.is_dir():
        raise UserError(f"{path}: no such folder; give one that `save_pretrained` wrote or a hub name")
    return str(folder) if folder.is_dir() else path
