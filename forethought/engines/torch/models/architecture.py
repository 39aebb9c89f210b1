"""What a model's configuration says before a weight is read: whether packed forests compute it, and paths of
how many tokens.

Attention over a forest is full attention. A model that attends to a window, or in chunks, attends fully up to
their size; one whose rotary frequencies change with the longest row (LongRoPE, arXiv 2402.13753) has one set
of them up to a length. Paths up to the smallest such number are computed exactly, so that number is the
model's context here.
"""

from __future__ import annotations

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)

from forethought.core.errors import UserError
from forethought.core.sight import SEEING
from forethought.engines.torch.forest.attention import NAME

INSTEAD = (
    "use a decoder with plain full attention (Llama, Qwen, Mistral, Gemma, Phi, OLMo and their "
    "mixtures of experts are such)"
)
# of layers; the last two up to their size
KINDS = {"full_attention", "attention", "sliding_attention", "chunked_attention"}
SHORTEST = 16  # tokens of a context that is worth anything, and that `exact.py` needs
SENSES = {"vision_config": "pictures", "audio_config": "sound"}  # key of a configuration -> what it is for
PROPERTIES = {  # what some kinds of models have without a field of their configuration that says so
    "is recurrent": ("falcon_mamba", "mamba", "mamba2", "recurrent_gemma", "rwkv", "xlstm"),
    "adds position biases to its attention (ALiBi)": ("bloom", "mpt"),
    "has attention sinks": ("gpt_oss", "granite_swa", "granitemoe_swa", "mimo_v2_flash"),
}


def auto_class(config: PretrainedConfig) -> type:
    """What opens a model of this kind in `transformers`."""
    return AutoModelForImageTextToText if config.model_type in SEEING else AutoModelForCausalLM


def check_config(config: PretrainedConfig, path: str, pictures: bool = False) -> None:
    """UserError that names the property which packed forests do not compute. `pictures`: whether the task
    shows some."""
    if pictures and config.model_type not in SEEING:
        raise UserError(
            f"{path} ({config.model_type}) is none of the models whose pictures are read here "
            f"({', '.join(SEEING)}), and the task shows some; leave model.path out to train a small one"
        )
    if found := _unfit(config):
        raise UserError(
            f"{path} ({config.model_type}) {found}, which packed forests do not compute; {INSTEAD}"
        )
    if not isinstance(getattr(config.get_text_config(), "max_position_embeddings", None), int):
        raise UserError(
            f"{path} ({config.model_type}) does not say how long its context is (max_position_embeddings); "
            "only decoders with full attention over a known context are supported"
        )
    if context_of(config) < SHORTEST:
        raise UserError(
            f"{path} ({config.model_type}) attends fully over {describe_context(config)} tokens only; "
            f"{INSTEAD}"
        )


def _unfit(config: PretrainedConfig) -> str:
    text = config.get_text_config()
    if senses := [what for key, what in SENSES.items() if getattr(config, key, None) is not None]:
        # the others can be used for text alone
        own = getattr(config, "auto_map", None) or type(config) in AutoModelForCausalLM._model_mapping
        if not own and config.model_type not in SEEING:
            known = f" (of those that read pictures, {' and '.join(SEEING)} can be used)"
            what = f"reads {' and '.join(senses)} beside text, and has no model of text alone"
            return what + known * (SENSES["vision_config"] in senses)
    if getattr(config, "forethought_sight", None) is not None:
        return "was trained on pictures, and opens with its run alone (its projector is not a part of it)"
    if getattr(config, "is_encoder_decoder", False):
        return "has an encoder beside its decoder"
    if kinds := set(getattr(text, "layer_types", None) or ()) - KINDS:
        return f"has layers of kind {', '.join(sorted(kinds))}"
    if named := next((what for what, models in PROPERTIES.items() if config.model_type in models), ""):
        return named
    if getattr(text, "alibi", False):
        return "adds position biases to its attention (alibi)"
    if (cap := getattr(text, "attn_logit_softcapping", None)) is not None:
        return f"caps its attention scores (attn_logit_softcapping = {cap})"
    if getattr(text, "attn_temperature_tuning", False):
        return "scales its attention by a token's place in the row (attn_temperature_tuning)"
    return ""


def check_attention(model: PreTrainedModel) -> None:
    """UserError where the model was loaded with an attention that would take a packed row for one long
    text."""
    used = model.config.get_text_config()._attn_implementation
    if used != NAME:
        raise UserError(
            f"the model attends by {used!r}, which cannot take packed forests; load it with "
            f"attn_implementation={NAME!r}, or by `loading.from_path`"
        )


def context_of(config: PretrainedConfig) -> int:
    """Most tokens of a path that full attention computes exactly."""
    return min(limits(config).values())


def limits(config: PretrainedConfig) -> dict[str, int]:
    """What bounds the tokens of a path -> to how many."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    found = {"max_position_embeddings": text.max_position_embeddings}
    window, chunk = getattr(text, "sliding_window", None), getattr(text, "attention_chunk_size", None)
    if window and ("sliding_attention" in kinds if kinds else getattr(text, "use_sliding_window", True)):
        found["sliding_window"] = window
    if chunk and "chunked_attention" in kinds:
        found["attention_chunk_size"] = chunk
    rope = getattr(text, "rope_parameters", None) or {}
    # one for each kind of layer
    for part in [rope] if "rope_type" in rope else [r for r in rope.values() if isinstance(r, dict)]:
        original = part.get("original_max_position_embeddings") or getattr(
            text, "original_max_position_embeddings", None
        )
        if part.get("rope_type") == "longrope" and original:
            found["original_max_position_embeddings"] = original
    return found


def describe_context(config: PretrainedConfig) -> str:
    """The context, and why it is shorter than the model's positions where it is."""
    found = limits(config)
    most = min(found, key=found.get)
    return f"{found[most]}" + (
        "" if most == "max_position_embeddings" else f" of {found['max_position_embeddings']} ({most})"
    )
