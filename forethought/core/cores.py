"""How many cores this process may use, and how many threads its user lets it have."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable() -> int:
    """Cores that this process may be scheduled on, and no more than its control groups give it time for (a
    container's limit), at least one. Two and a half cores' worth of time are two: a third thread would wait
    for the other two to be let run."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota()
    return allowed if limit is None else max(1, min(allowed, math.floor(limit)))


def most_threads(environment: Mapping[str, str] = os.environ) -> int:
    """Threads that a computation may choose: one a usable core, and no more than OMP_NUM_THREADS says where
    it is set to a number (or a list of them, of which the first counts)."""
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(usable(), int(first)) if first.isdecimal() and int(first) > 0 else usable()


def quota(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Processor time a second, in cores, of the tightest control group around this process; None where
    nothing limits it.

    `own` says in which groups it is, `root` is where they are mounted: version 2 (`cpu.max`) or version 1
    (`cpu.cfs_quota_us`). Inside a container the path may be the host's, of which only the mount's root is
    there.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 1 has a mount a controller, or one for several, named in either order and with a link from
        # each of them.
        mounts = [root / controllers, root / "cpu"] if controllers else [root]
        limits += [
            limit
            for mount in mounts
            for folder in _upwards(mount, path)
            if (limit := _limit(folder)) is not None
        ]
    return min(limits, default=None)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and those of all groups around it; the mount's own where the path leads out of what
    is mounted."""
    parts = [part for part in path.split("/") if part]
    for n in range(0 if ".." in parts else len(parts), -1, -1):
        yield mount.joinpath(*parts[:n])


def _limit(folder: Path) -> float | None:
    """Of one control group, in cores. "max" and -1 are no limit."""
    if (folder / "cpu.max").is_file():
        allowed, period = ((_read(folder / "cpu.max") or "max") + " 100000").split()[:2]
    else:
        allowed, period = (
            _read(folder / "cpu.cfs_quota_us") or "-1",
            _read(folder / "cpu.cfs_period_us") or "100000",
        )
    return int(allowed) / int(period) if allowed.isdecimal() and period.isdecimal() and int(period) else None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
