"""The tokenizer that a model's files describe, and what it puts before a text.

Where there is a tokenizer.json, that is the tokenizer: the class that tokenizer_config.json names, or that
`transformers` has for the kind of model, may build another one from the same words (another way to cut text
into pieces), silently.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from forethought.engines.torch.models.folder import TOKENIZER, find

TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken*")  # what holds a tokenizer's words
MOST_IDS = 1 << 24
PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")  # classes that build nothing of their own
SPECIAL = ("eos_token", "bos_token", "pad_token", "unk_token")
PROBES = (
    "<think>\nOkay, 650841823 and 2023 eggs.\n</think>\n\\boxed{13}",
    "  two  spaces,\ta tab\r\n\n\n and lines   ",
    "don't I'LL we've",
    "CamelCase snake_case x3=y[7]*-2.5e-10;",
    "na\u00efve caf\u00e9 \u6771\u4eac\u90fd \u041f\u0440\u0438\u0432\u0435\u0442 \U0001f600",
    "12345 67 8",
    "Plan: 1. Open <b>. 2. Close!?",
    "e\u0301 \ufb01 \u00bd",
    " w0 w6 w1 ",
)


def read_tokenizer(name: str, trust_remote_code: bool, rows: int = MOST_IDS) -> PreTrainedTokenizerBase:
    """What the files of a folder or hub name say. ValueError where they hold none, or do not agree about it,
    or where an id of tokenizer.json is none of the model's `rows`: what lies between two ids may be taken for
    tokens, one by one."""
    local = Path(name)
    if local.is_dir() and not any(next(local.glob(pattern), None) for pattern in TOKENIZERS):
        # Some kinds of models would make one up.
        raise ValueError("it has no tokenizer; save the model's own beside it (tokenizer.save_pretrained)")
    said = get_tokenizer_config(name)
    path = find(name, TOKENIZER)
    if path is None or (trust_remote_code and "auto_map" in said):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    written = _written(path, rows)
    # whatever file tokenizer_config.json names
    tokenizer = PreTrainedTokenizerFast.from_pretrained(name, tokenizer_file=str(path))
    if said.get("tokenizer_class") not in PLAIN and tokenizer.eos_token is None:
        _take_special(tokenizer, name)
    _check(tokenizer, written, said)
    if said.get("add_bos_token") is True and tokenizer.bos_token_id is not None and not begin_of(tokenizer):
        tokenizer.add_bos_token = True
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of `text` without special tokens. See `decode`."""
    if _is_plain(tokenizer, "encode", "_encode_plus"):
        below = tokenizer.backend_tokenizer
        cuts = below.truncation is not None or below.padding is not None
        if not cuts and below.encode_special_tokens == tokenizer.split_special_tokens:
            return tuple(below.encode(text, add_special_tokens=False).ids)
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], special: bool = True) -> str:
    """The text of `ids`, with or without special tokens, exactly as the tokenizer joins them (no clean-up of
    spaces). Where a tokenizer has no way of its own, `transformers` asks the library below, and takes longer
    than it."""
    if _is_plain(tokenizer, "decode", "_decode"):
        return tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=not special)
    return tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)


def _is_plain(tokenizer: PreTrainedTokenizerBase, outer: str, inner: str) -> bool:
    """Whether a method, and the one that it calls, are those of `transformers` itself."""
    kind, usual = type(tokenizer), PreTrainedTokenizerFast
    return (
        getattr(kind, outer) is getattr(PreTrainedTokenizerBase, outer)
        and hasattr(usual, inner)
        and getattr(kind, inner, None) is getattr(usual, inner)
    )


def begin_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer puts before a text (a BOS, or nothing), where no chat template says how a text
    begins."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    places = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
    return tuple(whole[: places[0]]) if bare and places else ()


def _written(path: Path, rows: int) -> Tokenizer:
    text = path.read_text(encoding="utf-8")
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as e:  # the library raises no other type
        raise ValueError(f"{TOKENIZER} cannot be read ({str(e).splitlines()[0]})") from e
    if dropout := (json.loads(text).get("model") or {}).get("dropout"):
        raise ValueError(
            f"{TOKENIZER} cuts words at random (dropout = {dropout}): one text would have many "
            f"token ids; set it to null"
        )
    if (most := max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)) >= rows:
        raise ValueError(
            f"its tokenizer has a token with the id {most}, its model embeds {rows}; they do "
            f"not belong together"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _take_special(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Special tokens that only the class of the kind knows, where they are tokens of this one."""
    try:
        usual = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception:  # a class that cannot be built tells nothing; the check for an end of text follows
        return
    known = tokenizer.get_vocab()
    for key in SPECIAL:
        if getattr(tokenizer, key) is None and getattr(usual, key, None) in known:
            setattr(tokenizer, key, getattr(usual, key))


def _check(tokenizer: PreTrainedTokenizerFast, written: Tokenizer, said: dict[str, Any]) -> None:
    for number, token in (said.get("added_tokens_decoder") or {}).items():
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and (own := tokenizer.get_vocab().get(text)) != int(number):
            raise ValueError(
                f"tokenizer_config.json gives {text!r} the id {number}, {TOKENIZER} makes it "
                f"{own}; they do not belong together"
            )
    added = tokenizer.get_added_vocab().keys() - written.get_vocab(with_added_tokens=True).keys()
    for text in PROBES:
        if any(token in text for token in added):
            continue
        own, wanted = (
            tokenizer.encode(text, add_special_tokens=False),
            written.encode(text, add_special_tokens=False).ids,
        )
        if own != wanted:
            raise ValueError(
                f"its tokenizer is not the one in {TOKENIZER}: {text!r} is {len(own)} tokens for one and "
                f"{len(wanted)} for the other; the class in tokenizer_config.json "
                f"({said.get('tokenizer_class')!r}) builds another one"
            )
