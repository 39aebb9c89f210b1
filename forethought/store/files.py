"""Files that are whole or not there, and how they are read back: as what they are, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Written to a temporary name, synced, renamed, and the folder synced: after a power cut either the old
    or the new file is there. A failure leaves no trace."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_bytes(data)
        sync(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def read_object(path: Path) -> dict:
    """The JSON object in a file. ValueError, a clause that follows the file's name: "is missing", "is not
    JSON"."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    # bytes that are no text, a number of too many digits, and brackets without end are among these
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def whole_number(value: object) -> bool:
    """Whether a value from JSON is a count: a whole number from 0, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def hasher() -> hashlib.blake2b:
    """The digest of this package's files: BLAKE2b."""
    return hashlib.blake2b()


def hex_of(state: hashlib.blake2b) -> str:
    """A digest as the run's files say it: 128 bits, in hex."""
    return state.hexdigest()[:32]


def digest(path: Path) -> str:
    """Digest of a file: BLAKE2b, 128 bits in hex."""
    with open(path, "rb") as f:
        return hex_of(hashlib.file_digest(f, hasher))


def digest_of(value: object) -> str:
    """Of a JSON value, however a file spells it."""
    state = hasher()
    state.update(json.dumps(value, sort_keys=True).encode())
    return hex_of(state)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a power cut does not undo a rename."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """A file, a folder with its contents, or a symbolic link (only the link, never its target). Opens one
    file at a time, where `shutil.rmtree` opens two per level: a process that is short of file descriptors
    would leave checkpoints behind without noticing."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    for folder, inner, names in os.walk(path, topdown=False):
        for name in (*names, *inner):
            _discard(Path(folder, name))
    _discard(path)


def _discard(path: Path) -> None:
    """A file, a link or an empty folder. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
