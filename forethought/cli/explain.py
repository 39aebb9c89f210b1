"""The verb `explain`: what a key of a recipe means."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.cli.arguments import Verbs, verb
from forethought.core.errors import UserError

if TYPE_CHECKING:
    from forethought.recipe.about import Key

KINDS = {
    "imitate": "Learns what the task demonstrates, token by token (docs/stages.md).",
    "reinforce": "Samples a tree of turns, rewards it and learns from the rewards (docs/stages.md).",
    "webrl": "In phases, on tasks that evolve from those that failed, with a critic (docs/webrl.md).",
    "distill": "Worked solutions become plans; nothing trains (docs/stages.md).",
}
WIDTH, MOST = 100, 12  # columns; keys of one name that are told in full


def add_explain(verbs: Verbs) -> None:
    """Declare `explain KEY`."""
    parser = verb(
        verbs, "explain", _explain, "say what a key of a recipe means, its default and legal values"
    )
    parser.add_argument(
        "key",
        metavar="KEY",
        nargs="?",
        help="such as stage.1.optim.lr or lr, or a value such as reinforce or gspo; without: the tables",
    )
    parser.add_argument(
        "--json-schema", action="store_true", help="print a JSON schema of recipes for editors"
    )
    parser.add_argument(
        "--write", metavar="DIR", type=Path, help="write the reference page and the JSON schema into DIR"
    )


def _explain(args: argparse.Namespace) -> int:
    from forethought.recipe import about, reference

    if args.write:
        if not args.write.is_dir():
            raise UserError(f"--write: {args.write} is not a folder; make it first")
        print(*reference.write(args.write), sep="\n")
        return 0
    if args.json_schema:
        print(reference.schema_text(), end="")
        return 0
    if args.key is None:
        print(*(_line(key) for key in about.keys() if "." not in key.where), sep="\n")
        return 0
    found, named = about.matching(args.key), [*_kind(args.key), *_named(args.key)]
    if not found and not named:
        hint = f"; did you mean {' or '.join(near)}?" if (near := about.nearest(args.key)) else ""
        raise UserError(f"unknown key {args.key!r}{hint}; forethought explain lists the tables")
    several = len(found) > MOST
    told = ["\n".join(map(_line, found))] if several else [*map(_told, found)]
    print("\n\n".join([*told, *named]))
    return 0


def _kind(word: str) -> list[str]:
    """What a stage of that kind does, and its keys."""
    from forethought.recipe import about

    rows = [f"    {_line(key)}" for key in about.of_kind(word)]
    return ["\n".join([f'stage.N.kind = "{word}"', f"  {KINDS[word]}", *rows])] if rows else []


def _named(word: str) -> list[str]:
    """What a word means as the value of a key, and the options that it has there."""
    from forethought.recipe import about

    texts = [f"{where} = {word!r}\n  {text}" for where, text in about.rows(word).items()]
    options = [f"    {_line(key)}" for key in about.read_by(word)] if word else []
    if options and not texts:
        texts = [f"options of {about.read_by(word)[0].reader}"]
    return ["\n".join([*texts, *options])] if texts else []


def _told(key: Key) -> str:
    from forethought.recipe import about

    default = about.shown(key.default)
    lines = [key.where, f"  {key.type}" + (f"; default {default}" if default else "")]
    if key.reader:
        lines[1] += "; must be given" if key.needed else ""
        lines.append(f"  an option of {key.reader}")
    if key.kinds:
        lines.append(f"  stages of kind {' and '.join(key.kinds)}")
    lines += textwrap.wrap(key.about, WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    if text := about.example(key):
        lines.append(f"  example: {text}")
    words = {} if key.choices else about.NAMED_ROWS.get(key.where, {})  # choices stand in its type
    rows = [f"    {_row(word, text)}" for word, text in words.items()]
    return "\n".join([*lines, *rows, *(f"    {_line(one)}" for one in about.below(key))])


def _line(key: Key) -> str:
    return _row(key.where, key.about)


def _row(name: str, about: str) -> str:
    width = max(WIDTH - max(len(name), 24), 40)
    return f"{name:24} {textwrap.shorten(about, width, placeholder=' ...')}"
