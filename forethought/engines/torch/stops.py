"""Where a continuation ends. A stop is a word of text; how many tokens it takes, and which, is the tokenizer's affair."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class Stops:
    """The stop words of a request under one tokenizer.

    `ids`: tokens that are a whole stop word. `texts`: stop words that can also be spelled with several tokens, or as other ones,
    and have to be looked for in the text. A word-level tokenizer has one spelling for each word, so there `texts` is empty. No
    words need no tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, words: Sequence[str]):
        self.tokenizer = tokenizer
        self.ids: set[int] = set()
        self.texts: list[str] = []
        for word in words:
            bare, spaced = (tokenizer.encode(text, add_special_tokens=False) for text in (word, " " + word))
            if len(spaced) == 1:
                self.ids.add(spaced[0])
            if len(bare) == 1 and bare[0] in tokenizer.get_added_vocab().values():  # never a part of another word
                self.ids.add(bare[0])
            if len(spaced) > 1 or bare != spaced:
                self.texts.append(word)
        self._window = max((len(w.encode()) for w in self.texts), default=0) + 2  # a token holds a byte at least
        self._lasts = {w[-1] for w in self.texts}
        self._may_end: dict[int, bool] = {}

    def found(self, tokens: Sequence[int]) -> bool:
        """Whether the text of `tokens` ends with one of `texts` as a word of its own."""
        if not self.texts or not self._plausible(tokens[-1]):
            return False
        words = self._text(tokens[-self._window :]).split()
        return bool(words) and words[-1] in self.texts

    def _plausible(self, token: int) -> bool:
        """Whether a stop can end with this token; most cannot, and nothing has to be decoded for them."""
        if token not in self._may_end:
            text = self._text([token]).rstrip()
            self._may_end[token] = not text or text[-1] in self._lasts or "\ufffd" in text  # spaces, and halves of letters
        return self._may_end[token]

    def _text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
