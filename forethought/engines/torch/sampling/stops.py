"""Where a continuation ends. A stop is a word of text; how many tokens it takes, and which, is the
tokenizer's affair."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class Stops:
    """The stop words of a request under one tokenizer.

    `ids`: tokens that are a whole stop word. `texts`: stop words that can also be spelled with several
    tokens, or as other ones, and have to be looked for in the text. A word-level tokenizer has one spelling
    for each word, so there `texts` is empty. No words need no tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, words: Sequence[str]):
        self.tokenizer = tokenizer
        self.ids: set[int] = set()
        self.texts: list[str] = []
        for word in words:
            bare, spaced = (tokenizer.encode(text, add_special_tokens=False) for text in (word, " " + word))
            if len(spaced) == 1:
                self.ids.add(spaced[0])
            # never a part of another word
            if len(bare) == 1 and bare[0] in tokenizer.get_added_vocab().values():
                self.ids.add(bare[0])
            if len(spaced) > 1 or bare != spaced:
                self.texts.append(word)
        self._pattern = re.compile("|".join(map(_standing, self.texts)))
        # a token holds a byte at least
        self._window = max((len(w.encode()) for w in self.texts), default=0) + 2
        self._lasts = {w[-1] for w in self.texts}
        self._may_end: dict[int, bool] = {}

    def found(self, tokens: Sequence[int]) -> bool:
        """Whether one of `texts` ends inside the last token. Letters do not end in the middle of another
        word; a tag ends wherever it stands (`done.</plan>`), also in a token that goes on behind it (`><` in
        `</plan><think>`)."""
        if not self.texts or not self._plausible(tokens[-1]):
            return False
        return self._pattern.search(self._text(tokens[-self._window :])) is not None

    def _plausible(self, token: int) -> bool:
        """Whether a stop can end in this token; in most none can, and nothing has to be decoded for them."""
        if token not in self._may_end:
            text = self._text([token])
            self._may_end[token] = bool(self._lasts & set(text)) or "\ufffd" in text  # halves of letters
        return self._may_end[token]

    def _text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def _standing(word: str) -> str:
    """A pattern of the word where it stands by itself: letters may not touch other letters."""
    before, after = (r"(?<!\w)" if word[0].isalnum() else "", r"(?!\w)" if word[-1].isalnum() else "")
    return f"{before}{re.escape(word)}{after}"
