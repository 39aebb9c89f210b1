"""A conversation as tokens, by the tokenizer's own chat template, and the tokens with which the model ends
its turn in it.

A template may lose what it is given: some leave the system message out, some read only contents that come in
parts. What is said must stand in what the model reads, or the conversation is refused by name.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forethought.core.errors import UserError
from forethought.core.watchdog import TimeUp, Watchdog

DAY = (
    "{%- macro strftime_now(form) -%}{{- {'%d %b %Y': '26 Jul 2024', '%Y-%m-%d': '2024-07-26'}.get(form, '26 "
    "July 2024') -}}{%- endmacro -%}"
)
# What a template that tells the model the date (Llama 3's do) takes for today: by the clock, a run resumed
# tomorrow would read other prompts.
SAID = "forethought"  # what is said where only what the template writes around it is looked for
SECONDS = 5.0  # that a template may take over a conversation; they take less than a thousandth of that
Form = Callable[[str], object]
FORMS: tuple[Form, ...] = (lambda text: text, lambda text: [{"type": "text", "text": text}])
"""How a content is given to a template: as text, or as parts."""
# where thinking begins
OPENED = re.compile(r"<([\w:]*(?:think|thought|reason)[\w:]*)>|\[((?:THINK|REASON)\w*)\]", re.IGNORECASE)

Messages = Sequence[Mapping[str, str]]
_OWN = threading.local()  # a watchdog for each thread


class Endless(UserError):
    """A template that does not end, which is looked for before anything else it does."""


def text_of(tokenizer: PreTrainedTokenizerBase, messages: Messages, source: str, opens: str = "") -> str:
    """The conversation up to where the assistant speaks, outside of any thinking. `opens`: what the turn
    begins with; where that is the mark with which the template itself begins thinking, it stands there once.
    UserError where the template refuses it, fails on it, or loses a message; contents are tried as text, then
    as parts."""
    error: Exception | None = None
    missing: Mapping[str, str] | None = None
    for form in FORMS:
        try:
            text = rendered(tokenizer, [{**m, "content": form(m["content"])} for m in messages])
        except Endless:
            raise
        except Exception as e:  # a template is a program of its own
            error = error or e
            continue
        if (found := lost(text, messages)) is None:
            return outside(text, text.rpartition(messages[-1]["content"].strip())[2], opens)
        missing = missing or found
    raise UserError(f"the chat template of {source or 'the model'} {refusal(error, missing)}")


def opens_thinking(tokenizer: PreTrainedTokenizerBase) -> str:
    """The mark with which the template itself begins the assistant's thinking, such as <think>; "" where it
    begins none."""
    if not tokenizer.chat_template:
        return ""
    try:
        text = rendered(tokenizer, [{"role": "user", "content": SAID}])
    except Endless:
        raise
    except Exception:  # said by whoever reads a conversation
        return ""
    found = _open(text.rpartition(SAID)[2])
    return found.group() if found else ""


def ends_of(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> tuple[int, frozenset[int]]:
    """(the token that ends a turn, every token that ends one).

    They are not always the tokenizer's end of text: a base model may carry a chat template whose turns end
    otherwise (Qwen2.5: <|im_end|>, while its eos is <|endoftext|>), and instruction-tuned models name several
    in their generation config (Llama 3.2: <|eot_id|>, <|eom_id|> and <|end_of_text|>). What the template
    writes behind an answer is what the model has learned to say.
    """
    known, _ = told_ends(model)
    turn = _end_of_turn(tokenizer)
    end = tokenizer.eos_token_id if turn is None else turn
    return end, frozenset({*known, end, tokenizer.eos_token_id})


def told_ends(model: PreTrainedModel) -> tuple[list[int], list[object]]:
    """(the end tokens of the generation config that the model embeds, those that it does not)"""
    told = model.generation_config.eos_token_id if model.generation_config else None
    rows = model.get_input_embeddings().weight.shape[0]
    every = [i for i in (told if isinstance(told, list) else [told]) if i is not None]
    known = [i for i in every if isinstance(i, int) and 0 <= i < rows]
    return known, [i for i in every if i not in known]


def rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping], add_generation_prompt: bool = True
) -> str:
    """What the template makes of the messages; raises what it raises, and Endless where it does not end."""
    template = tokenizer.get_chat_template()  # of several by name the one called default
    said = {
        "tokenize": False,
        "add_generation_prompt": add_generation_prompt,
        "chat_template": DAY + template if "strftime_now" in template else template,
    }
    watchdog = _OWN.__dict__.setdefault("watchdog", Watchdog())
    try:
        return watchdog.call(SECONDS, tokenizer.apply_chat_template, (list(messages),), said)
    except TimeUp:
        pass
    raise Endless(
        f"the chat template of {tokenizer.name_or_path or 'the model'} does not end within {SECONDS:g} s; "
        "give the model another chat_template"
    )


def lost(text: str, messages: Messages) -> Mapping[str, str] | None:
    """The first message that the text does not hold, as it is or quoted in JSON. Parts that are written as a
    list are none of the model's language."""
    for m in messages:
        said = m["content"].strip()
        quoted = json.dumps(said, ensure_ascii=False)[1:-1]
        if (said not in text and quoted not in text) or re.search(
            r"""['"]type['"]: ['"]text['"]""", text.replace(m["content"], "")
        ):
            return m
    return None


WITHOUT = 'where it takes no system message, leave it out: --set task.system=""'


def refusal(error: Exception | None, lost: Mapping[str, str] | None, hint: str = WITHOUT) -> str:
    """Why a conversation cannot be told: the template loses a message, or has raised an error over it.
    `hint`: what to do where it refuses one by its own words."""
    if lost is not None:
        said = lost["content"].strip()
        hint = WITHOUT if lost["role"] == "system" else "use a template that writes it"
        return (
            f"loses what the {lost['role']} says ({said[:60] + ('...' if len(said) > 60 else '')!r}); {hint}"
        )
    if isinstance(error, TemplateError):
        return f"refuses the conversation ({error}); {hint}"
    return (
        f"fails on the conversation ({type(error).__name__}: {next(iter(str(error).splitlines()), '')}); it "
        "may need tools, or a name (several templates and none called default), which nothing here gives it"
    )


def outside(text: str, tail: str, opens: str = "") -> str:
    """The text, with thinking that the template has begun in its `tail` ended again: as models write it that
    are told not to think. Without its beginning where the turn `opens` with the same mark."""
    found = _open(tail)
    if not found:
        return text
    if found.group() == opens and not tail[found.end() :].strip():
        return text[: len(text) - len(tail) + found.start()]
    close = f"</{found[1]}>" if found[1] else f"[/{found[2]}]"
    return f"{text.rstrip()}\n\n{close}\n\n"


def _open(tail: str) -> re.Match[str] | None:
    """The last mark behind the last message that begins thinking, unless the thinking ends again."""
    found = None
    for mark in OPENED.finditer(tail):
        found = mark
    if found and (f"</{found[1]}>" if found[1] else f"[/{found[2]}]") in tail[found.end() :]:
        return None
    return found


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template writes behind an answer; None without a template, or where it
    writes none or not the answer."""
    if not tokenizer.chat_template:
        return None
    special = special_of(tokenizer)
    for form in FORMS:
        asked = {"role": "user", "content": form("?")}
        try:
            text = rendered(tokenizer, [asked, {"role": "assistant", "content": form(SAID)}], False)
        except Endless:
            raise
        except Exception:  # said by whoever reads a conversation
            continue
        if (at := text.lower().rfind(SAID)) < 0:  # some change the case
            continue
        after = tokenizer.encode(text[at + len(SAID) :].lstrip(), add_special_tokens=False)
        return after[0] if after and after[0] in special else None
    return None


def special_of(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids of the tokens that the tokenizer calls special: none of them is a word of anybody's."""
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added if token.special}
