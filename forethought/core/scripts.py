"""Command lines of single modules (`python -m forethought.NAME`), which end as `forethought` does: a mistake
of the user's is one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from forethought.core.errors import UserError


def ended(work: Callable[[], object], out: Path | None = None) -> int:
    """The exit code of `work`: 0, or that of a UserError, which is said. `out`: the file that it writes, if
    it writes one."""
    try:
        work()
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if out is None:
            raise
        print(f"--out: {out} cannot be written: {error.strerror}", file=sys.stderr)
        return UserError.exit_code
    return 0
