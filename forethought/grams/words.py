"""Text as words with their places, so that case, spacing, markup and the kind of apostrophe make no
difference.

A word is a run of letters and digits, with apostrophes inside it; `let's` and `Let\u2019s` are the same word.
Two words are neighbours if only spaces, one line break, commas, hyphens, quotation marks, brackets and
Markdown's marks stand between them; any other sign (the end of a sentence, a colon, mathematics) and an empty
line separate them. A language written without spaces has no words in this sense.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

_ACCENTS = "\u0300-\u036f"  # combining: they belong to the letter before
_APOSTROPHES = "'\u2019\u2018\u02bc\uff07"
_WORD = re.compile(rf"[^\W_][{_ACCENTS}]*(?:[{_APOSTROPHES}]?[^\W_][{_ACCENTS}]*)*")
_BETWEEN_NEIGHBOURS = re.compile(r"[\s,()*_`\"\u201c\u201d\u2010-\u2014-]+")
_PLAIN = str.maketrans(dict.fromkeys(_APOSTROPHES, "'"))


class Word(NamedTuple):
    form: str  # lower case, plain apostrophes: what is compared
    start: int  # characters of the text
    end: int
    joined: bool  # a neighbour of the word before it


def words(text: str) -> list[Word]:
    """The words of `text`, in order."""
    found: list[Word] = []
    last = None
    for match in _WORD.finditer(text):
        joined = last is not None and _neighbours(text[last : match.start()])
        found.append(Word(_form(match.group()), match.start(), match.end(), joined))
        last = match.end()
    return found


def normal(text: str) -> str:
    """How a gram is written in a list: its words, one space between them."""
    return " ".join(word.form for word in words(text))


def _neighbours(between: str) -> bool:
    return _BETWEEN_NEIGHBOURS.fullmatch(between) is not None and between.count("\n") < 2


@lru_cache(maxsize=1 << 16)
def _form(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold().translate(_PLAIN)
