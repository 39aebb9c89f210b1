"""Images of a run as data URIs, so that a page needs no other file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

from forethought.store.files import digest

MOST = 4_000_000  # bytes of the images on a page


def uri(name: str, data: bytes) -> str:
    """`name` ends with the kind."""
    kind = name.rpartition(".")[2]
    return f"data:image/{'jpeg' if kind == 'jpg' else kind};base64,{b64encode(data).decode()}"


def of_run(run_dir: Path, names: Iterable[str], room: int | None = None) -> dict[str, str]:
    """Name -> URI, while there is room (None: what a page has). A file whose digest is not its name was not
    written by the run, and is left out."""
    found: dict[str, str] = {}
    room = MOST if room is None else room
    for name in names:
        path = run_dir / "images" / name
        if name in found or not path.is_file() or (room := room - path.stat().st_size) < 0:
            continue
        if digest(path) == name.partition(".")[0]:
            found[name] = uri(name, path.read_bytes())
    return found
