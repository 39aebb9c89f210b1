"""`forethought grams show`: what a list holds, and what it finds in a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from forethought.core.errors import UserError
from forethought.core.metrics import entropy
from forethought.grams.listing import Listing, read
from forethought.grams.match import Match, Matcher, merged_spans
from forethought.grams.planning import marked
from forethought.grams.sources import solutions
from forethought.grams.tokens import Spans, TokenSpans
from forethought.grams.words import words

OPEN, CLOSE = "\u00ab", "\u00bb"  # around a match in an excerpt
BEFORE, EXCERPT = 60, 300  # characters of an excerpt: before its first match, in all
OFTEN = 15  # grams that are listed by name


def show(path: Path, on: Path | None, tokenizer: str, examples: int, stream: IO[str]) -> int:
    """Says what the list holds and, with `on`, how often each gram occurs there, how much of the text they
    cover, and shows some."""
    listing = read(path)
    lengths = Counter(len(words(gram.text)) for gram in listing.grams)
    by_length = ", ".join(
        f"{count} of {n} word{'s' if n > 1 else ''}" for n, count in sorted(lengths.items())
    )
    print(*listing.header, f"{len(listing.grams)} grams: {by_length}", sep="\n", file=stream)
    if on is None:
        if tokenizer:
            raise UserError("--tokenizer counts the tokens of a source; name one with --on SOURCE")
        return 0
    found = solutions(on, correct=False)
    print(f"\non {found.summary()}", file=stream)
    matcher = Matcher([gram.text for gram in listing.grams])
    matches = [matcher.find(text) for text in found.texts]
    _occurrences(listing, matches, stream)
    _coverage(found.texts, matcher, tokenizer, stream)
    for text, own in [(t, m) for t, m in zip(found.texts, matches, strict=True) if m][:examples]:
        print(f"\n{excerpt(text, own)}", file=stream)
    return 0


def excerpt(text: str, matches: Sequence[Match]) -> str:
    """A piece of `text` from shortly before the first match, on one line, with the matches in guillemets."""
    begin = max(0, matches[0].start - BEFORE)
    end = min(len(text), max(begin + EXCERPT, matches[0].end))
    out, at = "", begin
    for start, stop in merged_spans(matches):
        if stop <= end:
            out += text[at:start] + OPEN + text[start:stop] + CLOSE
            at = stop
    return (
        ("... " if begin else "")
        + " ".join((out + text[at:end]).split())
        + (" ..." if end < len(text) else "")
    )


def _occurrences(listing: Listing, matches: Sequence[Sequence[Match]], stream: IO[str]) -> None:
    counts, holding = (
        Counter(m.gram for own in matches for m in own),
        Counter(g for own in matches for g in {m.gram for m in own}),
    )
    total, texts = sum(counts.values()), len(matches)
    some = sum(bool(own) for own in matches)
    print(
        f"{total} occurrences of {len(counts)} grams, in {some} of {texts} texts ({100 * some / texts:.1f} "
        f"%); semantic entropy {entropy(counts.values()):.2f} nats",
        file=stream,
    )
    for gram, count in counts.most_common(OFTEN):
        print(
            f"{count:8} times, in {100 * holding[gram] / texts:5.1f} % of the texts  "
            f"{listing.grams[gram].text}",
            file=stream,
        )
    if len(counts) > OFTEN:
        print(f"         and {len(counts) - OFTEN} more that occur", file=stream)
    if absent := [gram.text for i, gram in enumerate(listing.grams) if i not in counts]:
        print(
            f"{len(absent)} never occur: {' | '.join(absent[:8])}{' | ...' if len(absent) > 8 else ''}",
            file=stream,
        )


def _coverage(texts: Sequence[str], matcher: Matcher, tokenizer: str, stream: IO[str]) -> None:
    """The share of words, or of a model's tokens, that are planning."""
    spans_of, unit = (_by_token(tokenizer), "tokens") if tokenizer else (_by_word, "words")
    planning = whole = 0
    for text, spans in map(spans_of, texts):
        mask = marked(text, spans, merged_spans(matcher.find(text)))
        planning, whole = planning + sum(mask), whole + len(mask)
    share = f" ({100 * planning / whole:.1f} %)" if whole else ""
    print(f"{planning} of {whole} {unit}{share} are planning", file=stream)


def _by_word(text: str) -> tuple[str, Spans]:
    return text, [(word.start, word.end) for word in words(text)]


def _by_token(tokenizer: str) -> Callable[[str], tuple[str, Spans]]:
    from forethought.engines.torch.models.embed import codec

    encode, decode = codec(tokenizer)
    spans_of = TokenSpans(decode)
    return lambda text: spans_of(encode(text))
