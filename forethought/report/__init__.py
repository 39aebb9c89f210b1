"""The report of a run, and the comparison of several: one self-contained HTML page each, from run directories
alone.

Nothing here needs torch, a network or a plotting library. Python reads, checks and puts into words; the page
draws itself.
"""

from forethought.report.page import compare, sweep, write

__all__ = ["compare", "sweep", "write"]
