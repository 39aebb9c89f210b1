"""A model that begins as a GGUF file: its weights as plain numbers under the names of `transformers`, and the
tokenizer that its fields describe.

`transformers` reads such files too, and is not asked: it takes words to be cut as GPT-2's where it does not
know how, and positions to be unstretched, without a word. Here what is not known is refused by name. Plain
types are read without any library; quantised ones by llama.cpp's own (the extra `gguf`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from forethought.core.errors import UserError
from forethought.engines.gguf_families import ends_of, family_of, names_of
from forethought.engines.gguf_header import PLAIN, Header, Stored
from forethought.engines.torch.models.tokenizer import begin_of

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
DIGITS = "digits"  # each one apart, then as GPT-2
# llama.cpp's name for how text is cut into words -> how
CUTS = {
    "gpt-2": GPT2,
    "olmo": GPT2,
    "smollm": DIGITS,
    "starcoder": DIGITS,
    "qwen2": QWEN,
    "deepseek-r1-qwen": QWEN,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
}
COMPOSED = ("qwen2", "deepseek-r1-qwen")  # whose own tokenizers write letters and accents as one (NFC) first
WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3")  # a word that is a token is not put together from merges
NORMAL, UNKNOWN, CONTROL, DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of tokens
SPACE = "\u2581"
MOST_PIECE = 256  # characters of a token that is put together from others


def digest(path: Path) -> str:
    """SHA-256 of the file, as hubs show it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(header: Header) -> str:
    """The architecture, and the types of its numbers with their shares."""
    kinds, total = header.kinds, sum(header.kinds.values())
    return f"{header.architecture}, " + ", ".join(f"{kind} {n / total:.0%}" for kind, n in kinds.items())


# ---- weights


def weights_of(header: Header, heads: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Every weight by its name in transformers; float32 where the file has it quantised, else as it stands
    there. `heads`: how many heads queries ("q") and keys ("k") have."""
    family, names = family_of(header), names_of(header)
    data, found = np.memmap(header.path, mode="r", dtype=np.uint8), {}
    for name, ours in names.items():
        tensor = _plain(data, header.tensors[name])
        if family.turned and (which := next((q for q in "qk" if f".attn_{q}." in name), "")):
            tensor = unturned(tensor, heads[which])
        if family.shifted and name.endswith("norm.weight"):
            tensor = (tensor.float() - 1).to(tensor.dtype)
        found[ours] = tensor.contiguous()
    for name in [n for n in found if n.endswith("self_attn.q_proj.bias")]:
        # llama.cpp's converters leave a bias of zeros out
        output = name.replace("q_proj", "o_proj")
        if family.kind == "llama" and output not in found:
            found[output] = torch.zeros(found[output.replace(".bias", ".weight")].shape[0])
    return found


def turned(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in the order of llama.cpp, which rotates neighbours where
    transformers rotates halves."""
    size = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, size, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def unturned(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows as transformers has them."""
    size = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, size, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def need_extra(what: str) -> None:
    """UserError where llama.cpp's library is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UserError(f'{what}, which needs the extra `gguf`: pip install "forethought[gguf]"') from None


def _plain(data: np.ndarray, stored: Stored) -> torch.Tensor:
    raw = np.array(data[stored.start : stored.start + stored.size])
    if stored.kind in PLAIN:
        kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[stored.kind]
        return torch.from_numpy(raw).view(kind).reshape(stored.shape)
    import gguf

    rows = raw.reshape(*stored.shape[:-1], -1)
    return torch.from_numpy(gguf.dequantize(rows, gguf.GGMLQuantizationType[stored.kind]))


# ---- the tokenizer


def tokenizer_of(header: Header) -> PreTrainedTokenizerFast:
    """The tokenizer that the fields describe, with its chat template. ValueError for an unknown one."""
    fields = header.fields
    words, kinds = fields.get("tokenizer.ggml.tokens"), fields.get("tokenizer.ggml.token_type")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError("it has no tokens (tokenizer.ggml.tokens)")
    kinds = kinds if isinstance(kinds, list) else [1] * len(words)
    if len(kinds) != len(words):
        raise ValueError(f"it has {len(words):,} tokens and {len(kinds):,} kinds of them (token_type)")
    named = fields.get("tokenizer.ggml.model")
    if named not in ("gpt2", "llama"):
        raise ValueError(
            f"its tokenizer is {named!r}; gpt2 (byte-level BPE) and llama (SentencePiece) are read"
        )
    make = _byte_level if named == "gpt2" else _pieces
    tokenizer = make(fields, {word: i for i, word in enumerate(words) if kinds[i] != UNUSED}, kinds)
    added = [(word, kind) for word, kind in zip(words, kinds, strict=True) if kind in (CONTROL, DEFINED)]
    tokenizer.add_tokens([AddedToken(w, normalized=False, special=k == CONTROL) for w, k in added])
    special = {
        f"{ours}_token": words[i]
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if isinstance(i := fields.get(f"tokenizer.ggml.{theirs}_token_id"), int) and 0 <= i < len(words)
    }
    template = fields.get("tokenizer.chat_template")
    if (eos := fields.get("tokenizer.ggml.eos_token_id")) is not None and "eos_token" not in special:
        raise ValueError(f"it ends a text with the token {eos}, and has {len(words):,} tokens")
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=template if isinstance(template, str) else None,
        clean_up_tokenization_spaces=False,
        **special,
    )
    if fields.get("tokenizer.ggml.add_bos_token", named == "llama") and found.bos_token_id is not None:
        found.add_bos_token = True
        if not begin_of(found):
            raise ValueError("its tokenizer begins a text with a token that cannot be put there")
    return found


def generation_of(header: Header) -> dict[str, object]:
    """What ends a turn, as a generation_config.json says it."""
    return {"eos_token_id": ends_of(header) or None}


def _byte_level(fields: Mapping, vocabulary: dict[str, int], kinds: list[int]) -> Tokenizer:
    cut = fields.get("tokenizer.ggml.pre")
    if cut not in CUTS:
        raise ValueError(
            f"its tokenizer cuts text into words as {cut!r} does (tokenizer.ggml.pre), which is not known "
            f"here (known: {', '.join(CUTS)}); give the model as safetensors"
        )
    pairs = [tuple(pair.split(" ")) for pair in fields.get("tokenizer.ggml.merges") or ()]
    if wrong := next((pair for pair in pairs if len(pair) != 2), None):
        raise ValueError(f"its tokenizer has a merge of {len(wrong)} parts ({' '.join(wrong)[:40]!r})")
    tokenizer = Tokenizer(_bpe(vocab=vocabulary, merges=pairs, ignore_merges=cut in WHOLE_WORDS))
    tokenizer.pre_tokenizer = pre_tokenizer(CUTS[cut])
    tokenizer.normalizer = normalizers.NFC() if cut in COMPOSED else None
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def pre_tokenizer(cut: str) -> pre_tokenizers.PreTokenizer:
    """How text is cut into words before BPE."""
    if cut == GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if cut == DIGITS:
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(cut), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _pieces(fields: Mapping, vocabulary: dict[str, int], kinds: list[int]) -> Tokenizer:
    """SentencePiece's BPE: the pair that makes the token with the best score is put together first."""
    scores = fields.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(kinds):
        raise ValueError("its tokenizer has no score for each token (tokenizer.ggml.scores)")
    joined = {word: i for word, i in vocabulary.items() if kinds[i] not in (UNKNOWN, CONTROL, BYTE)}
    pairs = sorted(
        (
            (-scores[i], len(word[:at]), len(word[at:]), joined[word[:at]], joined[word[at:]], word, at)
            for word, i in joined.items()
            if len(word) <= MOST_PIECE and kinds[i] != DEFINED
            for at in range(1, len(word))
            if word[:at] in joined and word[at:] in joined
        ),
    )
    unknown = fields.get("tokenizer.ggml.unknown_token_id")
    words = {i: word for word, i in vocabulary.items()}
    tokenizer = Tokenizer(
        _bpe(
            vocab=vocabulary,
            merges=[(word[:at], word[at:]) for *_, word, at in pairs],
            byte_fallback=True,
            fuse_unk=True,
            unk_token=words.get(unknown),
        )
    )
    prefix = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    return tokenizer


def _bpe(**said: object) -> models.BPE:
    try:
        return models.BPE(**said)
    except Exception as e:  # the library raises no other type
        raise ValueError(f"its tokenizer cannot be made ({str(e).splitlines()[0]})") from e
