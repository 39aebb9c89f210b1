"""What the command line says when something goes wrong: one line on stderr and an exit code.

1 our fault or the machine's, 2 the user's mistake, 3 a gate stopped the run, 128 + n stopped by signal n.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from forethought.core.errors import ForethoughtError, quoted
from forethought.core.printable import give_up, one_line, printable

MOST_SHOWN = 20_000  # characters of one message; a traceback has some thousands
_GONE = 141  # 128 + SIGPIPE: the reader of our output went away, as with `| head`
_WRAPPED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENOMEM)
# Python, PyTorch, C++ and the loader of shared libraries, who say it in their own words
_NO_MEMORY = (
    "can't start new thread",
    "can't allocate memory",
    "std::bad_alloc",
    "failed to map segment from shared object",
    "cannot map zero-fill pages",
    "cannot create shared object descriptor",
    "cannot allocate symbol search list",
)
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "choose a place that can be written",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENOMEM: "allow more memory, or take a smaller model or batch",
}


def explain(error: BaseException, run_dir: Path | None) -> int:
    """Say on stderr what went wrong and return the exit code. `run_dir`: the run that was being written, if
    any; a traceback is kept in it, and the reader is told how to resume it."""
    if (
        isinstance(error, OSError)
        and error.errno == errno.EIO
        and isinstance(error.__context__, ForethoughtError)
    ):
        error = error.__context__  # the terminal was closed: what was to be said there comes first
    if isinstance(error, BrokenPipeError):
        give_up(sys.stdout)
        return _GONE
    if isinstance(error, ForethoughtError):
        return _say(one_line(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _say(f"interrupted{_resume_hint(run_dir)}", 130)
    error = _of_machine(error) or error
    if isinstance(error, OSError):
        return _say(_about_machine(error) + _resume_hint(run_dir), 1)
    return _say(_about_fault(error, run_dir), 1)  # our fault: keep the traceback, spare the terminal


def _say(message: str, code: int) -> int:
    """Whatever the message quotes (a model, a file, an endpoint, a path), it does nothing to the terminal."""
    shown = printable(message, keep="\n\t")
    try:
        print(
            f"forethought: {shown if len(shown) <= MOST_SHOWN else shown[: MOST_SHOWN - 4] + ' ...'}",
            file=sys.stderr,
            flush=True,
        )
    except OSError:  # the terminal was closed, and nobody reads what is left
        give_up(sys.stderr)
        give_up(sys.stdout)
    return code


def _of_machine(error: BaseException) -> OSError | None:
    """The fault of the machine that a library has wrapped in an exception of its own and left in its text,
    None where there is none."""
    text = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError | OSError) and any(words in text for words in _NO_MEMORY)
    ):
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    found = next((number for number in _WRAPPED if os.strerror(number) in text), None)
    return None if found is None or isinstance(error, OSError) else OSError(found, os.strerror(found))


def _about_machine(error: OSError) -> str:
    reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    advice = _ADVICE.get(error.errno)
    return f"{reason}; {advice}" if advice else reason


def _resume_hint(run_dir: Path | None) -> str:
    if run_dir is None or not (run_dir / "checkpoints").is_dir():
        return ""
    return f"; continue with: forethought train --resume {quoted(run_dir)}"


def _about_fault(error: BaseException, run_dir: Path | None) -> str:
    import traceback

    first = f"unexpected {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    details = "".join(traceback.format_exception(error))
    if run_dir is not None and run_dir.is_dir():
        try:
            with open(run_dir / "error.txt", "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(details)
            return (
                f"{first}\nThis is a bug: please report it with "
                f"{run_dir / 'error.txt'}{_resume_hint(run_dir)}"
            )
        except OSError:
            pass  # the disk may be what failed; the terminal still works
    return f"{details}{first}\nThis is a bug: please report it with the lines above"
