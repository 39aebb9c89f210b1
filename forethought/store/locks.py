"""One writer for a run directory: a lock on its file `.lock`, which the kernel takes back when the process
ends, however it ends."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from forethought.core.errors import Busy, UserError

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None

NAME = ".lock"
NO_LOCKS = "there are no locks on this file system: nothing keeps a second process from writing into {}"
_HELD_BY_OTHERS = (errno.EAGAIN, errno.EACCES)
_held: set[int] = set()


def _let_go_in_the_child() -> None:
    """A forked child has the file open too, and would hold the lock beyond the end of the run."""
    for fd in _held:
        os.close(fd)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_the_child)


@contextmanager
def writing(
    folder: Path, busy: str = "is being written by {}; wait for it to end, or stop it"
) -> Iterator[str]:
    """Hold the folder for writing. Yields "", or a sentence where the file system has no locks. `busy`: what
    the error (Busy) says of the folder where another process holds it."""
    if fcntl is None:
        yield NO_LOCKS.format(folder)
        return
    path = folder / NAME
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot write into {folder}: its {NAME} cannot be opened ({error.strerror})"
        ) from error
    _held.add(fd)
    try:
        note = _take(fd, path, folder, busy)
        yield note
    finally:
        if fd in _held:  # not in a child, which has closed it
            _held.discard(fd)
            with suppress(OSError):  # for a child too that was forked just now and has not closed it yet
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _take(fd: int, path: Path, folder: Path, busy: str) -> str:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_OTHERS:
            raise Busy(f"{folder} {busy.format(_holder(path))}") from None
        return NO_LOCKS.format(folder)
    os.ftruncate(fd, 0)
    here = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    os.pwrite(fd, json.dumps(here).encode(), 0)
    return ""


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_bytes())
        return f"process {int(said['process'])} on {str(said['host'])[:100]} since {str(said['since'])[:40]}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"


@contextmanager
def unwritten(folder: Path) -> Iterator[None]:
    """Keep others from writing into a folder while it is read; several may read at once. Busy where somebody
    writes."""
    path = folder / NAME
    if fcntl is None or not path.is_file():  # nobody has written here since there are locks
        yield
        return
    with open(path, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD_BY_OTHERS:
                raise Busy(f"{folder} is being written by {_holder(path)}; wait for it to end") from None
        yield


def mark_in_use(fd: int) -> None:
    """As long as the file is open, it counts as written by a living process; see `abandoned`."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def abandoned(path: Path) -> bool:
    """Whether no living process has the file in use. False if that cannot be known."""
    if fcntl is None or path.is_symlink():
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False
