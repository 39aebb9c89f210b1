"""Where compiled kernels are kept, and whether what lies there may be loaded: code that a process maps runs
with all its rights, and a file that was cut short kills it without a word (SIGBUS), at every start.

So a file is loaded only if it belongs to the user, nobody else can write to it or to its folder, and it has
the size and the digest that were noted beside it when it was built. Everything else is built anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

OTHERS = 0o022  # bits of a mode with which others can write


def folder_of(name: str) -> Path:
    """Where the file is or can be kept: the user's cache folder, else one of the user's own among the
    temporary files. OSError where neither can be trusted."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(cache):  # as the XDG base directory specification has it
        folder = Path(cache) / "forethought"
        with contextlib.suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            _close(folder)
            if not _distrust(folder, stat.S_ISDIR) and (whole(folder / name) or os.access(folder, os.W_OK)):
                return folder
    folder = Path(tempfile.gettempdir()) / f"forethought-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if why := _distrust(folder, stat.S_ISDIR):
        raise OSError(f"{folder} {why}: code is not loaded from there; set XDG_CACHE_HOME")
    return folder


def whole(path: Path) -> bool:
    """Whether a file is there, can be trusted, and is what was noted when it was kept."""
    try:
        if _distrust(path, stat.S_ISREG) or _distrust(_note(path), stat.S_ISREG):
            return False
        return _note(path).read_text(encoding="ascii") == _said(path)
    except (OSError, ValueError):  # not there, or a note that is not a text
        return False


def keep(made: Path, path: Path) -> None:
    """`made` becomes the file at `path`, with its note. Another process may do the same at the same time:
    whoever reads one's file with the other's note builds once more. `made` is in a folder of its own on the
    same disk."""
    made.chmod(0o700)
    beside = made.with_name("note")
    beside.write_text(_said(made), encoding="ascii")
    beside.chmod(0o600)
    for written in (made, beside):
        with open(written, "r+b") as f:
            os.fsync(f.fileno())  # no half of it under its name after a crash
    os.replace(made, path)
    os.replace(beside, _note(path))


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sum")


def _said(path: Path) -> str:
    """Size and digest, as the note has them."""
    return f"{path.stat().st_size} {digest(path)}\n"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _close(folder: Path) -> None:
    """Take the right to write from others where the folder is the user's own: many systems give it to the
    user's group."""
    found = folder.lstat()
    if (
        hasattr(os, "getuid")
        and stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.getuid()
        and found.st_mode & OTHERS
    ):
        folder.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


def _distrust(path: Path, is_kind: Callable[[int], bool]) -> str:
    """Why nothing is loaded from a file or folder, in words, or "". Links are not followed."""
    if not hasattr(os, "getuid"):
        return ""
    found = path.lstat()
    if found.st_uid != os.getuid() or not is_kind(found.st_mode):
        return "belongs to somebody else"
    return "can be written by others" if found.st_mode & OTHERS else ""
