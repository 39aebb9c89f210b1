"""Tokenizers of SentencePiece's kind (Llama 2, Mistral, Gemma) as llama.cpp reads them: pieces with scores.

A tokenizer.json of this kind lists merges, llama.cpp wants a score of each piece and joins the neighbours
whose piece has the best one. Both cut alike where every pair that makes a piece is a merge, and the merges of
a piece follow one another; else the tokenizer is refused by name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forethought.core.errors import UserError
from forethought.engines.torch.models.gguf import BYTE, CONTROL, DEFINED, NORMAL, UNKNOWN, UNUSED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPACE = "\u2581"  # how a piece writes a space
OF_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
WRITES_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPENDS = {"type": "Prepend", "prepend": SPACE}
CUTS_NOTHING = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}


def pieces_of(tokenizer: PreTrainedTokenizerBase, words: list[str], folder: Path) -> dict[str, Any]:
    """The fields of the file, none where the tokenizer is of another kind. `words`: the text of each id,
    "[PAD7]" where 7 has none. UserError where llama.cpp would cut text into other tokens."""
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    model = said["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        return {}
    kinds = _kinds(tokenizer, words, model)
    if kinds.count(BYTE) != 256:
        raise _refused(folder, f"it has tokens for {kinds.count(BYTE)} of the 256 bytes")
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        # what a user defined is looked for in the text as it is
        "tokenizer.ggml.tokens": [
            w.replace(SPACE, " ") if kind == DEFINED else w for w, kind in zip(words, kinds, strict=True)
        ],
        "tokenizer.ggml.scores": _scores(merges, words, kinds, folder),
        "tokenizer.ggml.token_type": kinds,
        # also after a special token
        "tokenizer.ggml.add_space_prefix": _prefix(said, tokenizer, folder),
        **({"tokenizer.ggml.unknown_token_id": kinds.index(UNKNOWN)} if UNKNOWN in kinds else {}),
    }


def _kinds(tokenizer: PreTrainedTokenizerBase, words: list[str], model: dict[str, Any]) -> list[int]:
    added = tokenizer.added_tokens_decoder

    def kind(i: int, word: str) -> int:
        if word == model.get("unk_token"):
            return UNKNOWN
        if i in added:
            return CONTROL if added[i].special else DEFINED
        return BYTE if OF_BYTE.fullmatch(word) else UNUSED if word == f"[PAD{i}]" else NORMAL

    return [kind(i, word) for i, word in enumerate(words)]


def _scores(merges: list[tuple[str, ...]], words: list[str], kinds: list[int], folder: Path) -> list[float]:
    """Minus the rank of a piece among those that merges make."""
    rank: dict[str, int] = {}
    before = ""
    for left, right in merges:
        piece = left + right
        if piece != before and piece in rank:
            raise _refused(folder, f"the merges that make {piece!r} do not follow one another")
        rank.setdefault(piece, len(rank))
        before = piece
    known, pairs = set(words), set(merges)
    for word, kind in zip(words, kinds, strict=True):
        if kind == NORMAL:
            for i in range(1, len(word)):
                pair = (word[:i], word[i:])
                if pair[0] in known and pair[1] in known and pair not in pairs:
                    raise _refused(folder, f"{pair[0]!r} and {pair[1]!r} make a token, and no merge says so")
    return [-float(rank.get(word, 0)) for word in words]


def _prefix(said: dict[str, Any], tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Whether a text begins with a space of its own."""
    rewritten, cut = said.get("normalizer"), said.get("pre_tokenizer")
    steps = (rewritten or {}).get("normalizers", [rewritten] if rewritten else [])
    scheme = "never"
    if cut and cut.get("type") == "Metaspace" and cut.get("replacement") == SPACE and not cut.get("split"):
        scheme, cut, steps = cut.get("prepend_scheme", "always"), None, [*steps, WRITES_SPACES]
    if cut not in (None, CUTS_NOTHING) or steps not in ([WRITES_SPACES], [PREPENDS, WRITES_SPACES]):
        how = json.dumps({"normalizer": rewritten, "pre_tokenizer": said.get("pre_tokenizer")})
        raise _refused(folder, f"how it rewrites and cuts text has no counterpart there ({how[:200]})")
    if steps == [PREPENDS, WRITES_SPACES]:
        return True
    # at the first word of all alone: after a special token, with which a chat begins, there is none
    return scheme == "always" or (scheme == "first" and not tokenizer.chat_template)


def _refused(folder: Path, why: str) -> UserError:
    return UserError(f"--gguf: llama.cpp would cut text otherwise than the tokenizer of {folder.name}: {why}")
