"""Inputs that are almost right: a valid text or structure, changed in a few places, or repeated until it is a
bomb."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

SIGNS = [
    "",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\x00",
    "\x1b[31m",
    "\x07",
    "\ufeff",
    "\u2028",
    "\u00a0",
    "\u200b",
    "\u202e",
    "\u2066",
    "\ud800",
    "\udfff",
    "\u2212",
    "é",
    "漢",
    "😀",
    "Ω",
    "٣",
    "½",
    "²",
    "ﬀ",
    "İ",
    "ß",
    "-",
    "+",
    "0",
    "9",
    "1e999",
    "-0",
    "NaN",
    "Infinity",
    "null",
    "true",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    '"',
    "'",
    "\\",
    "\\\\",
    "/",
    "<",
    ">",
    "</",
    "#",
    "%",
    "$",
    "^",
    "_",
    "=",
    ",",
    ".",
    ":",
    ";",
    "|",
    "&",
    "@",
    "~",
    "`",
    "*",
    "?",
    "!",
    "\\frac",
    "\\boxed{",
    "\\u0000",
    "\\ud800",
    "</plan>",
    "<plan>",
    "</act>",
    "<think>",
    "do(",
    "9" * 40,
    "\x85",
    "\x0b",
    "\x0c",
    "\x1f",
]
BOMBS = [
    "[",
    "{",
    "(",
    '{"a":',
    "\\frac{",
    "\\boxed{",
    "<plan>",
    "a ",
    "\n",
    "9",
    "x=",
    '"',
    "\\",
    "^{",
    "((",
    "a.b",
    "[[x]]\n",
    "- ",
    "#",
    "\u0301",
]
ODD = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**400,
    -(10**30),
    0.0,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\x00",
    "\ud800",
    "1",
    "nan",
    "\x1b]0;x\x07",
    "v" * 5000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"b": []}},
    [1, "x"],
    ["plan"],
    b"x",
]


def text(rng: random.Random, seeds: Sequence[str], most: int = 20_000) -> str:
    """One of the seeds after one to six changes; one in fifty is a bomb."""
    said = rng.choice(seeds)
    if rng.random() < 0.02:
        bomb = rng.choice(BOMBS) * rng.choice((30, 300, 3000))
        at = rng.randrange(len(said) + 1)
        return (said[:at] + bomb + said[at:])[:most]
    if rng.random() < 0.05:
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))
            for _ in range(rng.randrange(60))
        )
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        said = _change(rng, said, seeds)
    return said[:most]


def _change(rng: random.Random, said: str, seeds: Sequence[str]) -> str:
    i = rng.randrange(len(said) + 1)
    j = min(len(said), i + rng.choice((1, 1, 2, 5, 20)))
    what = rng.randrange(9)
    if what == 0:
        return said[:i] + said[j:]
    if what == 1:
        return said[:i] + said[i:j] * rng.choice((2, 3, 10)) + said[j:]
    if what in (2, 3):
        return said[:i] + rng.choice(SIGNS) + said[i if what == 2 else j :]
    if what == 4:
        other = rng.choice(seeds)
        k = rng.randrange(len(other) + 1)
        return said[:i] + other[k : k + rng.choice((3, 10, 50))] + said[j:]
    if what == 5:
        return said[:i]
    if what == 6:
        return said[:i] + said[i:j].swapcase() + said[j:]
    if what == 7:
        words = said.split(" ")
        a, b = rng.randrange(len(words)), rng.randrange(len(words))
        words[a], words[b] = words[b], words[a]
        return " ".join(words)
    return said[:i] + chr(rng.randrange(0x110000)) + said[j:]


def data(rng: random.Random, seeds: Sequence[str], most: int = 20_000) -> bytes:
    """The same as bytes: sometimes no UTF-8, sometimes with a BOM or with Windows' line ends."""
    said = text(rng, seeds, most).encode("utf-8", "surrogatepass" if rng.random() < 0.3 else "replace")
    what = rng.random()
    if what < 0.03:
        return b"\xef\xbb\xbf" + said
    if what < 0.06:
        return said.replace(b"\n", b"\r\n")
    if what < 0.09:
        at = rng.randrange(len(said) + 1)
        return said[:at] + rng.randbytes(3) + said[at:]
    return said.decode("utf-8", "replace").encode("utf-16") if what < 0.1 else said


def structure(rng: random.Random, seeds: Sequence[object]) -> object:
    """A table or list with one to four values, keys or branches changed, dropped, or moved elsewhere; one in
    a hundred is nested deeply."""
    found = copy.deepcopy(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder, key = _place(rng, found)
        if holder is None:
            continue
        what = rng.randrange(6)
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[
                rng.choice(("", "x", "\x1b[1m", "stage", "name", "id", "parent", "id ", str(key).upper()))
            ] = holder.pop(key)
        elif what == 2:
            other, at = _place(rng, found)
            holder[key] = _copy(other[at]) if other is not None else None
        elif what == 3 and isinstance(holder[key], str):
            holder[key] = text(rng, [holder[key]], 500)
        else:
            holder[key] = _deep(rng) if rng.random() < 0.01 else copy.deepcopy(rng.choice(ODD[:-1]))
    return found


def _copy(value: object) -> object:
    """None for what is nested too deeply to be copied: it stands where it stands."""
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return None


def _deep(rng: random.Random) -> object:
    found: object = "x"
    for _ in range(rng.choice((50, 500, 900))):
        found = [found] if rng.random() < 0.5 else {"a": found}
    return found


def _place(rng: random.Random, value: object) -> tuple[object, object]:
    """(what holds it, its key) of a value somewhere inside; (None, None) where there is nothing to choose."""
    holder, key = None, None
    while isinstance(value, dict | list) and value:
        holder, key = value, rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = holder[key]
        if rng.random() < 0.3:
            break
    return holder, key
