"""Which characters of a text each token wrote, by decoding alone, so that any tokenizer will do.

A token of a byte-level tokenizer may hold part of a character; decoded without the rest it reads as U+FFFD.
Such tokens share the character that they make up together, and nothing after them is shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
# of each token, the characters [start, end) of the text that it wrote or had a part in
Spans = list[tuple[int, int]]

_BROKEN = "\ufffd"


class TokenSpans:
    """Remembers what each token is alone: where the pieces make up the whole, which is nearly always, that is
    the answer."""

    def __init__(self, decode: Decode):
        self.decode = decode
        self._alone: dict[int, str] = {}

    def __call__(self, ids: Sequence[int]) -> tuple[str, Spans]:
        """(text, spans), one span per token."""
        pieces = [self._piece(i) for i in ids]
        whole = self.decode(ids) if ids else ""
        if "".join(pieces) != whole:
            return incremental(ids, self.decode)
        spans, at = [], 0
        for piece in pieces:
            spans.append((at, at + len(piece)))
            at += len(piece)
        return whole, spans

    def _piece(self, id: int) -> str:
        if id not in self._alone:
            self._alone[id] = self.decode([id])
        return self._alone[id]


def incremental(ids: Sequence[int], decode: Decode) -> tuple[str, Spans]:
    """(text, spans) for tokens whose text depends on what stands before them.

    Each token is decoded after the last few whole ones, so that the time grows with the number of tokens. The
    text is what these pieces add up to: a decoder that treats the first token of a text in its own way does
    so once.
    """
    text, spans = "", []
    # ids[first:settled] are the window's context: whole characters, their text is part of `text`
    first = settled = 0
    context = before = ""  # the window's text: of its context, and up to the token at hand
    for k in range(1, len(ids) + 1):
        now = decode(ids[first:k])
        base = len(text) - len(context)
        start, whole = len(before.rstrip(_BROKEN)), len(now.rstrip(_BROKEN))
        spans.append((base + start, base + max(start, whole + (whole < len(now)))))
        if whole < len(now):  # a character has begun and not ended
            before = now
            continue
        text += now[len(context) :]
        context = before = decode(ids[settled:k])
        first, settled = settled, k
    return text + before[len(context) :], spans
