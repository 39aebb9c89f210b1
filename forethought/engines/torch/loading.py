"""From a recipe's `model` table to a model with its tokenizer: a small one from scratch, or any Hugging Face causal LM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from forethought.engines.torch.attention import NAME
from forethought.engines.torch.small import small_model, tokenizer_of
from forethought.errors import UserError
from forethought.recipe.schema import ModelSpec


@dataclass(frozen=True, slots=True)
class Loaded:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str  # path or hub name; "" for a model from scratch


def load(spec: ModelSpec, words: list[str], context: int, seed: int) -> Loaded:
    """`words` and `context` (tokens) size a model from scratch; `seed` draws its weights."""
    if not spec.path:
        tokenizer = tokenizer_of(words)
        return Loaded(small_model(spec, len(tokenizer), context, seed), tokenizer, "")
    return from_path(spec.path, spec.trust_remote_code)


def from_path(path: str, trust_remote_code: bool = False) -> Loaded:
    """UserError where the path holds no causal LM, its tokenizer lacks an end token, or its attention is not supported."""
    local = Path(path)
    if (local.exists() or path.startswith((".", "/", "~"))) and not (local.expanduser() / "config.json").is_file():
        raise UserError(f"{path} is not a model: it has no config.json; give a folder that `save_pretrained` wrote or a hub name")
    name = str(local.expanduser()) if local.expanduser().exists() else path
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        _supported(config, path)
        model = AutoModelForCausalLM.from_pretrained(name, config=config, attn_implementation=NAME,
                                                     trust_remote_code=trust_remote_code, dtype="auto")
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{path} cannot be loaded as a causal language model: {str(e).splitlines()[0]}") from e
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {path} has no end-of-text token (eos_token); set one and save it")
    if model.dtype == torch.float16 or not torch.cuda.is_available():
        model = model.float()  # fp16 has no place in training; CPUs train in fp32 under autocast
    return Loaded(model, tokenizer, name)


def _supported(config, path: str) -> None:
    """Packed forests need attention that sees exactly the tokens it is told to."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if kinds - {"full_attention"} or (window and window < text.max_position_embeddings and "sliding_attention" in kinds):
        raise UserError(f"{path} ({config.model_type}) mixes {', '.join(sorted(kinds))}; only full attention is supported")


def stop_tokens(tokenizer: PreTrainedTokenizerBase, words: tuple[str, ...]) -> tuple[set[int], list[str]]:
    """Stops that are one token, as ids, and the others, as text that has to be looked for."""
    ids, texts = set(), []
    for word in words:
        pieces = tokenizer.encode(word, add_special_tokens=False)
        if len(pieces) == 1:
            ids.add(pieces[0])
        else:
            texts.append(word)
    return ids, texts
