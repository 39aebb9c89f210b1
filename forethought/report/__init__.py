"""The report of a run, and the comparison of several: one self-contained HTML page each, from run directories
alone.

Nothing here needs torch, a network or a plotting library. Python reads, checks and puts into words; the page
draws itself. What writes it is imported when it is asked for: a run needs it at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forethought.report.page import compare, sweep, write

__all__ = ["compare", "sweep", "write"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from forethought.report import page

    return getattr(page, name)
