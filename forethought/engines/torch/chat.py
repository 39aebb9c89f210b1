"""A conversation as tokens, by the tokenizer's own chat template, and the tokens with which the model ends its turn in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forethought.errors import UserError

DAY = ("{%- macro strftime_now(form) -%}{{- {'%d %b %Y': '26 Jul 2024', '%Y-%m-%d': '2024-07-26'}.get(form, '26 July 2024') -}}"
       "{%- endmacro -%}")
# What a template that tells the model the date (Llama 3's do) takes for today: by the clock, a run resumed tomorrow would read other
# prompts.
SAID = "forethought"  # what the assistant says where only the end of its turn is looked for


def text_of(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], source: str) -> str:
    """The conversation up to where the assistant speaks. UserError where the template refuses it (some know no system message)."""
    try:
        return tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=True,
                                             chat_template=_dated(tokenizer))
    except TemplateError as e:
        raise UserError(f"the chat template of {source or 'the model'} refuses the conversation ({e}); where it takes no system message, "
                        'leave it out: --set task.system=""') from e


def _dated(tokenizer: PreTrainedTokenizerBase) -> str:
    template = tokenizer.get_chat_template()
    return DAY + template if "strftime_now" in template else template


def ends_of(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> tuple[int, frozenset[int]]:
    """(the token that ends a turn, every token that ends one).

    They are not always the tokenizer's end of text: a base model may carry a chat template whose turns end otherwise (Qwen2.5:
    <|im_end|>, while its eos is <|endoftext|>), and instruction-tuned models name several in their generation config (Llama 3.2:
    <|eot_id|>, <|eom_id|> and <|end_of_text|>). What the template writes behind an answer is what the model has learned to say.
    """
    told = model.generation_config.eos_token_id if model.generation_config else None
    every = {tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])} - {None}
    turn = _end_of_turn(tokenizer)
    end = tokenizer.eos_token_id if turn is None else turn
    return end, frozenset(every | {end})


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template writes behind an answer; None without a template, or where it writes none."""
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SAID}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=_dated(tokenizer))
    except TemplateError:
        return None
    after = tokenizer.encode(text.rpartition(SAID)[2].lstrip(), add_special_tokens=False)
    special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    return after[0] if after and after[0] in special else None
