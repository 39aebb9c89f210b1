"""How much memory a process can still have."""

from __future__ import annotations

import ctypes
import re
from math import inf
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory(proc: Path = PROC, cgroup: Path = CGROUP) -> float:
    """Bytes that this process can still have: what the kernel says is available, and no more than its control
    group has left. 0 where nobody can say."""
    try:
        said = re.search(r"^MemAvailable:\s*(\d+) kB", (proc / "meminfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        return 0
    return max(0.0, min(int(said[1]) * 1024 if said else 0, allowed(cgroup) - _in_use(cgroup)))


def _in_use(cgroup: Path) -> int:
    """Bytes that the control group of a container holds and cannot let go: all but copies of files."""
    try:
        held = int((cgroup / "memory.current").read_text(encoding="utf-8"))
        parts = (cgroup / "memory.stat").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return 0
    files = re.findall(r"^(?:in)?active_file (\d+)$", parts, re.M)
    return max(0, held - sum(map(int, files)))


def allowed(cgroup: Path = CGROUP) -> float:
    """Bytes that the control group (version 2) of a container allows in all; infinity where it says
    nothing."""
    try:
        limit = (cgroup / "memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        return inf
    return int(limit) if limit.isdecimal() else inf


class _Heap(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def held_back() -> int:
    """Bytes that the C library has taken from the system and gives out again; 0 where it does not say."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):
        return 0
    ask.restype = _Heap
    return ask().fordblks
