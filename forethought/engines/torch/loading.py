"""From a recipe's `model` table to a model with its tokenizer: a small one from scratch, or any Hugging Face causal LM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from forethought.engines.torch.architecture import INSTEAD, check_config
from forethought.engines.torch.attention import NAME
from forethought.engines.torch.exact import check_model
from forethought.engines.torch.small import small_model, tokenizer_of
from forethought.engines.torch.small_text import tokenizer_of_texts
from forethought.errors import UserError
from forethought.recipe.schema import ModelSpec

Weights = Literal["auto", "fp32", "bf16"]
DTYPES: dict[Weights, torch.dtype | str] = {"auto": "auto", "fp32": torch.float32, "bf16": torch.bfloat16}
TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken*")  # what holds a tokenizer's words


@dataclass(frozen=True, slots=True)
class Loaded:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str  # path or hub name; "" for a model from scratch


def load(spec: ModelSpec, words: Sequence[str], context: int, seed: int, weights: Weights = "auto", texts: Sequence[str] = ()) -> Loaded:
    """`words` and `context` (tokens) size a model from scratch; `seed` draws its weights. Where the task is free text its tokenizer is
    trained on `texts`, and `words` are the marks that are tokens of their own. `weights`: see `from_path`."""
    if not spec.path:
        tokenizer = tokenizer_of_texts(texts, spec.vocabulary, words) if texts else tokenizer_of(list(words))
        return Loaded(small_model(spec, len(tokenizer), context, seed), tokenizer, "")
    return from_path(spec.path, spec.trust_remote_code, weights)


def from_path(path: str, trust_remote_code: bool = False, weights: Weights = "auto") -> Loaded:
    """UserError where the path holds no causal LM with its tokenizer, or one that packed forests would compute wrongly.

    `weights`: fp32 or bf16, whatever the files hold; auto: as they say, but fp32 for fp16 and on a machine without a GPU.
    """
    local = Path(path).expanduser()
    if (local.exists() or path.startswith((".", "/", "~"))) and not (local / "config.json").is_file():
        raise UserError(f"{path} is not a model: it has no config.json; give a folder that `save_pretrained` wrote or a hub name")
    name = str(local) if local.exists() else path
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        check_config(config, path)
        tokenizer = read_tokenizer(name, trust_remote_code)
        model, found = AutoModelForCausalLM.from_pretrained(name, config=config, attn_implementation=NAME, dtype=DTYPES[weights],
                                                            trust_remote_code=trust_remote_code, output_loading_info=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as e:
        if isinstance(e, KeyError) and e.args == (NAME,):
            raise UserError(f"{path} ({config.model_type}) has an attention that does not go through the attention interface of "
                            f"transformers, and so cannot take packed forests; {INSTEAD}") from e
        raise UserError(f"{path} cannot be loaded as a causal language model: {sentence(e)}") from e
    _check_files(path, model, tokenizer, found)
    if weights == "auto" and (model.dtype == torch.float16 or not torch.cuda.is_available()):
        model = model.float()  # fp16 has no place in training; CPUs train in fp32 under autocast
    check_model(model.eval(), path)
    return Loaded(model, tokenizer, name)


def read_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """What its files say. For some kinds of models (qwen2 and phi3 are among them) `AutoTokenizer` builds the kind's own tokenizer
    from any other's vocabulary, even where the files ask for no kind: a word-level one then finds no words at all."""
    local = Path(name)
    if local.is_dir() and not any(next(local.glob(pattern), None) for pattern in TOKENIZERS):
        # Some kinds of models would make one up.
        raise ValueError("it has no tokenizer; save the model's own beside it (tokenizer.save_pretrained)")
    said = get_tokenizer_config(name).get("tokenizer_class")
    reader = PreTrainedTokenizerFast if said in ("TokenizersBackend", "PreTrainedTokenizerFast") else AutoTokenizer
    return reader.from_pretrained(name, trust_remote_code=trust_remote_code)


def _check_files(path: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, found: dict) -> None:
    """Weights that are there, and a tokenizer that fits them."""
    if absent := sorted(found["missing_keys"]):
        raise UserError(f"{path} lacks weights of {type(model).__name__}: {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}; "
                        "they would be drawn at random")
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {path} has no end-of-text token (eos_token); set one and save it")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(f"the tokenizer of {path} has {len(tokenizer)} tokens, its model embeds {rows}; they do not belong together "
                        "(resize_token_embeddings and save the model)")


def sentence(e: Exception) -> str:
    """Why a model could not be loaded, for people."""
    if "trust_remote_code" in str(e):
        return "it comes with code of its own, which runs only with model.trust_remote_code = true"
    return next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__)
