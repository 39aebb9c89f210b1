"""The verb `new`: a small working file with a recipe beside it, to begin from."""

from __future__ import annotations

import argparse
import keyword
import re
from importlib.resources import files
from pathlib import Path

from forethought.cli.arguments import Verbs, verb
from forethought.core.errors import UserError, quoted
from forethought.core.printable import printable

KINDS = ("task", "environment", "workflow", "reward", "recipe")


def add_new(verbs: Verbs) -> None:
    """Declare `new KIND NAME`."""
    parser = verb(verbs, "new", _new, "write a small file of your own that trains, with a recipe beside it")
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help=" | ".join(KINDS))
    parser.add_argument(
        "name", metavar="NAME", help="of the files NAME.py and NAME.toml, and of what is in them"
    )
    parser.add_argument(
        "--to", metavar="DIR", type=Path, default=Path(), help="the folder (default: the working directory)"
    )


def _new(args: argparse.Namespace) -> int:
    written = write(args.kind, args.name, args.to)
    print(*(printable(path) for path in written), sep="\n")
    print(f"next: forethought train {quoted(written[-1])}")
    return 0


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the files of a kind into `folder`, which is made; their paths, the recipe last. UserError for a
    name that no Python file can have, and where one of the files is there: nothing is written then."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} names a Python file and what is in it: use a lower-case word such as my_{kind}"
        )
    templates = [
        one
        for one in files("forethought.cli").joinpath("templates").iterdir()
        if one.name.startswith(f"{kind}.")
    ]
    texts = {
        folder / one.name.replace(kind, name, 1).removesuffix(".txt"): one.read_text(encoding="utf-8")
        for one in sorted(templates, key=lambda one: one.name)
    }
    if there := [path for path in texts if path.exists()]:
        raise UserError(f"{there[0]} is there already; choose another name, or another folder with --to DIR")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to: {folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    title = "".join(part.capitalize() for part in name.split("_"))
    for path, text in texts.items():
        with open(path, "x", encoding="utf-8") as file:
            file.write(text.replace("CLASS", title).replace("NAME", name))
    return list(texts)
