"""How many cores a process may use: its affinity, and what its control groups give it, from files as the
kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forethought.core import cores


def groups(folder: Path, own: str, **files: str) -> dict[str, Path]:
    """The arguments of `quota`: a mount with these files ("a/b/cpu.max"), and what /proc/self/cgroup says."""
    root = folder / "mount"
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    (folder / "own").write_text(own)
    return {"root": root, "own": folder / "own"}


@pytest.mark.parametrize(
    ("own", "files", "cores_of_time"),
    [
        # version 2
        ("0::/\n", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {}, None),
        # the group around it is tighter
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 50000"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000", "a/cpu.max": "800000 100000"}, 1.0),
        # in a container: the host's path, the mount is its own group
        ("0::/kubepods/pod1/c2\n", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/../c2\n", {"cpu.max": "400000 100000", "c2/cpu.max": "100000 100000"}, 4.0),
        # outside of what is mounted
        # version 1
        (
            "3:cpu,cpuacct:/c\n1:memory:/c\n",
            {"cpu,cpuacct/c/cpu.cfs_quota_us": "600000", "cpu,cpuacct/c/cpu.cfs_period_us": "200000"},
            3.0,
        ),
        (
            "3:cpuacct,cpu:/c\n",
            {"cpu/c/cpu.cfs_quota_us": "100000", "cpu/c/cpu.cfs_period_us": "100000"},
            1.0,
        ),
        ("3:cpu:/c\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "200000"}, 2.0),  # the usual period
        ("4:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "100000"}, None),
        # another controller's mount says nothing of time
        # both
        (
            "3:cpu:/c\n0::/c\n",
            {
                "cpu/c/cpu.cfs_quota_us": "300000",
                "cpu/c/cpu.cfs_period_us": "100000",
                "c/cpu.max": "200000 100000",
            },
            2.0,
        ),
        # what no kernel writes
        ("0::/\n", {"cpu.max": "many of them"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
        ("0::/\n", {"cpu.max": ""}, None),
    ],
)
def test_what_control_groups_allow(tmp_path, own, files, cores_of_time):
    assert cores.quota(**groups(tmp_path, own, **files)) == cores_of_time


def test_a_system_without_control_groups_has_no_limit(tmp_path):
    assert cores.quota(tmp_path, tmp_path / "absent") is None


@pytest.mark.parametrize(("limit", "usable"), [(None, 6), (2.5, 2), (0.3, 1), (6.0, 6), (64.0, 6)])
def test_the_tighter_of_affinity_and_quota_rounded_down(monkeypatch, limit, usable):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(cores, "quota", lambda: limit)
    assert cores.usable() == usable


@pytest.mark.parametrize(
    ("said", "most"),
    [
        (None, 6),
        ("4", 4),
        ("64", 6),
        (" 2 ", 2),
        ("3,1", 3),
        ("0", 6),
        ("-1", 6),
        ("", 6),
        ("all", 6),
    ],
)
def test_omp_num_threads_is_the_most_that_is_chosen(monkeypatch, said, most):
    monkeypatch.setattr(cores, "usable", lambda: 6)
    assert cores.most_threads({} if said is None else {"OMP_NUM_THREADS": said}) == most
