"""Where a run's time and memory go: the seconds and the peak memory of each part of it.

    with parts.part("sampling"):
        ...

A part inside another belongs to the outer one: what an evaluation samples is evaluation.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PARTS = ("sampling", "training", "evaluation", "probes", "saving")
OTHER = "other"  # drawing tasks, credit, loading what is missing, waiting
SECONDS, MEMORY = "seconds_part/", "memory/"  # metrics of a line: since the one before it


class Parts:
    """`peak(True)` forgets the peak so far, `peak(False)` gives the bytes at the highest since then; by
    default the memory of this process."""

    def __init__(self, peak: Callable[[bool], int] | None = None):
        self.peak = peak or process_peak
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, int] = {}
        self._open, self._since = False, time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside belongs to the part `name`, unless a part is open already."""
        if self._open:
            yield
            return
        self._note(OTHER)
        self._open, began = True, time.perf_counter()
        try:
            yield
        finally:
            self._open = False
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began
            self._note(name)

    def taken(self) -> dict[str, float]:
        """The metrics of all that has happened since the last time, and begin anew."""
        if not self._open:
            self._note(OTHER)
        now = time.perf_counter()
        spent = sum(self._seconds.values())
        found = {f"{SECONDS}{name}": s for name, s in self._seconds.items()}
        found[f"{SECONDS}{OTHER}"] = max(0.0, now - self._since - spent)
        found |= {f"{MEMORY}{name}": float(n) for name, n in self._bytes.items() if n}
        self._seconds, self._bytes, self._since = {}, {}, now
        return found

    def _note(self, name: str) -> None:
        """The peak since the last call belongs to this part."""
        self._bytes[name] = max(self._bytes.get(name, 0), self.peak(False))
        self.peak(True)


def totals(lines: Iterable[Mapping[str, object]]) -> dict[str, dict[str, float]]:
    """Part -> {"seconds", "peak_bytes"} over the metric lines of a run, the longest first; parts that took
    nothing are not in it."""
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        for key, value in line.items():
            if not isinstance(value, int | float):
                continue
            if key.startswith(SECONDS):
                row = found.setdefault(key.removeprefix(SECONDS), {"seconds": 0.0, "peak_bytes": 0.0})
                row["seconds"] += value
            elif key.startswith(MEMORY):
                row = found.setdefault(key.removeprefix(MEMORY), {"seconds": 0.0, "peak_bytes": 0.0})
                row["peak_bytes"] = max(row["peak_bytes"], value)
    return dict(sorted(found.items(), key=lambda item: -item[1]["seconds"]))


def process_peak(forget: bool) -> int:
    """Bytes of memory that this process has held at most since the peak was last forgotten (Linux; elsewhere
    0). `forget`: the peak begins anew."""
    with suppress(OSError):
        if forget:
            Path("/proc/self/clear_refs").write_text("5")
            return 0
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        return int(found[1]) * 1024 if found else 0
    return 0
