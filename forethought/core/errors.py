"""Errors with an address: what went wrong, which value, what to do.

Exit codes of the command line: 0 done, 2 the user's mistake (`UserError`), 3 a gate stopped the run
(`GateStop`), 1 our fault (anything else).
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable

from forethought.core.printable import cut

_MACHINES = re.compile("memory|CUDA|CUBLAS", re.IGNORECASE)


class ForethoughtError(Exception):
    """Base of the errors that are raised on purpose."""

    exit_code = 1


class UserError(ForethoughtError):
    """Something the user can mend: a recipe, a path, a data file, a setting."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe that cannot run. `where` is the dotted address of the value, such as `stage.1.tree.plan`."""

    def __init__(self, where: str, message: str):
        self.where, self.message = where, message
        super().__init__(f"{cut(where, MOST_NAMED)}: {message}" if where else message)


class GateStop(ForethoughtError):
    """A gate with `on_fail = "stop"` failed: the run ended as its recipe asked."""

    exit_code = 3


class FaultStop(UserError):
    """Too much of what is not ours broke (environment, task family, grader, parser): the run has saved, and
    goes on when it is mended."""


class CodeFault(UserError):
    """Code of the user's (a credit row, a loss, a kind of stage, a workflow) did what no count can stand for:
    it ends the run. `key`: the key that names it, of the stage or of the recipe."""

    def __init__(self, key: str, message: str):
        self.key = key
        super().__init__(message)


class CheckpointError(UserError):
    """A checkpoint that is incomplete or damaged; the message names it and the one before it."""


class Busy(UserError):
    """Another process writes where this one was to write; nothing is wrong with what is there."""


class Diverged(UserError):
    """The weights of a policy, or what it computes, are no longer finite numbers."""


class Interrupted(ForethoughtError):
    """Ctrl-C, SIGTERM or a terminal that was closed: the run has written a checkpoint and can be resumed."""

    def __init__(self, message: str, signal_number: int):
        self.exit_code = 128 + signal_number
        super().__init__(message)


class Asked(ForethoughtError):
    """Who watches the run asked it to stop: it has written a checkpoint and can be resumed."""


def is_machines(error: BaseException) -> bool:
    """Whether the machine or the engine raised it (memory, disk, GPU), and not the code that was called."""
    if isinstance(error, RuntimeError):
        return bool(_MACHINES.search(str(error)))
    return isinstance(error, MemoryError | OSError)


def quoted(path: object) -> str:
    """A path as a shell takes it, for a command that a message offers."""
    return shlex.quote(str(path))


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One sentence for a name that is not known: the name, the nearest known one, and the list, as far as a
    reader would read it."""
    known = sorted(str(k) for k in known)
    said = str(name)
    near = difflib.get_close_matches(said[:MOST_LISTED], known, n=1, cutoff=0.5) if len(known) <= 500 else ()
    hint = f"; did you mean {near[0]!r}?" if near else ""
    more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
    listed = ", ".join(cut(k, MOST_NAMED) for k in known[:MOST_LISTED]) or "none"
    return f"unknown {kind} {cut(said, MOST_NAMED)!r}{hint} (known: {listed}{more})"


MOST_LISTED, MOST_NAMED = 60, 120  # names that an error lists; characters of one
