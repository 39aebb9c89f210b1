"""The list of grams as a text file that people read and edit: one gram per line, `#` begins a comment.

    # Strategic grams ...
    # source: runs/math (trees of steps 25 to 350)
    #
    # ---- cluster 1: in 388 of 412 solutions (94.2 %), 2 grams
    let's check our          # 120
    check our work           # 97

What is mined stands under its cluster, the most widespread first, so that a reader can cut a whole one. The
reader needs none of the comments: a list written by hand, of phrases of any length, is as good.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forethought.core.errors import UserError
from forethought.core.textfile import lines
from forethought.grams.words import normal, words

TITLE = "Strategic grams (arXiv 2509.03646): phrases by which text is recognised as planning."
HELP = (
    "One a line; # begins a comment. Take out what is no planning, a line or a whole cluster, and add your "
    "own."
)
MOST_WORDS = 20  # a line with more is a text, not a gram


@dataclass(frozen=True, slots=True, kw_only=True)
class Gram:
    text: str  # as it was written
    line: int  # of the file, from 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    header: tuple[str, ...]  # the comments above the first cluster or gram, without their #
    grams: tuple[Gram, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """N-grams that mean the same, as far as the embedder knows."""

    documents: int  # solutions that hold at least one of them: the cluster document frequency
    grams: tuple[tuple[str, int], ...]  # (n-gram, solutions that hold it), the most widespread first


def write(path: Path, clusters: Sequence[Cluster], documents: int, provenance: Mapping[str, object]) -> None:
    """`documents`: how many solutions were read. UserError where the file cannot be written."""
    said = [
        f"# {TITLE}",
        f"# {HELP}",
        "#",
        *(f"# {key}: {' '.join(str(value).split())}" for key, value in provenance.items()),
    ]
    for number, cluster in enumerate(clusters, 1):
        share = f"{100 * cluster.documents / documents:.1f} %"
        many = f"{len(cluster.grams)} gram{'s' if len(cluster.grams) != 1 else ''}"
        said += [
            "",
            f"# ---- cluster {number}: in {cluster.documents} of {documents} solutions ({share}), {many}",
        ]
        said += [f"{text:32} # {count}" for text, count in cluster.grams]
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("\n".join(said) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read(path: Path) -> Listing:
    """UserError, with file and line, for a file that is missing, no UTF-8, or without grams, and for a line
    that is not a gram: without words, too long, never to be matched because a sign separates its words, or
    the words of an earlier line once more."""
    header: list[str] = []
    grams: list[Gram] = []
    first: dict[str, int] = {}
    above = True  # of the first cluster and the first gram
    for number, raw in lines(path, "give a list of grams, as forethought grams mine writes it"):
        said, hash, comment = (part.strip() for part in raw.partition("#"))
        above = above and not said and not comment.startswith("----")
        if above and comment:
            header.append(comment)
        if said:
            where = f"{path}:{number}"
            _check(said, where)
            if (same := first.setdefault(normal(said), number)) != number:
                raise UserError(f"{where}: {said!r} is the gram of line {same} again; take one of them out")
            grams.append(Gram(text=said, line=number))
    if not grams:
        raise UserError(f"{path}: no grams in it, one per line; find some with: forethought grams mine")
    return Listing(header=tuple(header), grams=tuple(grams))


def _check(said: str, where: str) -> None:
    found = words(said)
    if not found:
        raise UserError(f"{where}: {said!r} has no words; write one gram per line, and # before a comment")
    if len(found) > MOST_WORDS:
        raise UserError(
            f"{where}: {len(found)} words; a gram has at most {MOST_WORDS}, and each stands on its own line"
        )
    if apart := next((b for a, b in zip(found, found[1:], strict=False) if not b.joined), None):
        raise UserError(
            f"{where}: {said!r} can match nothing: no gram reaches over the sign before "
            f"{said[apart.start : apart.end]!r}"
        )
