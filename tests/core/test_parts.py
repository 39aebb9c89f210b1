"""Where a run's time and memory go: the outer part counts, and nothing is counted twice."""

from __future__ import annotations

import mmap

import pytest

from forethought.core import parts
from forethought.core.parts import Parts, process_peak, totals


class Clock:
    """A clock and a memory that the test moves."""

    def __init__(self, monkeypatch):
        self.now, self.held, self.most = 0.0, 0, 0
        monkeypatch.setattr(parts.time, "perf_counter", lambda: self.now)

    def work(self, seconds: float, size: int = 0) -> None:
        self.now += seconds
        self.most = max(self.most, self.held + size)

    def peak(self, forget: bool) -> int:
        self.most = self.held if forget else self.most
        return self.most


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def test_each_part_has_its_seconds_and_its_peak(clock):
    watch = Parts(clock.peak)
    clock.work(1, size=1)
    with watch.part("sampling"):
        clock.work(2, size=20)
    clock.work(4, size=4)
    with watch.part("training"):
        clock.work(8, size=30)
        with watch.part("sampling"):  # inside of training: training's
            clock.work(16, size=3)
    assert watch.taken() == {
        "seconds_part/sampling": 2,
        "seconds_part/training": 24,
        "seconds_part/other": 5,
        "memory/other": 4,
        "memory/sampling": 20,
        "memory/training": 30,
    }
    clock.work(3)
    assert watch.taken() == {"seconds_part/other": 3}


def test_a_part_that_ends_in_an_error_is_closed(clock):
    watch = Parts(clock.peak)
    with pytest.raises(ValueError, match="no"), watch.part("training"):
        clock.work(2)
        raise ValueError("no")
    with watch.part("sampling"):
        clock.work(1)
    found = watch.taken()
    assert (found["seconds_part/training"], found["seconds_part/sampling"]) == (2, 1)


def test_the_totals_of_a_run_add_seconds_and_keep_the_highest_peak():
    lines = [
        {"step": 1, "seconds_part/sampling": 1.0, "seconds_part/other": 0.5, "memory/sampling": 2e9},
        {"step": 2, "seconds_part/sampling": 2.0, "seconds_part/other": 0.5, "memory/sampling": 1e9},
    ]
    found = totals(lines)
    assert found == {
        "sampling": {"seconds": 3.0, "peak_bytes": 2e9},
        "other": {"seconds": 1.0, "peak_bytes": 0.0},
    }


def test_the_peak_of_a_process_falls_when_it_is_forgotten():
    process_peak(True)
    low = process_peak(False)
    if not low:
        pytest.skip("this system does not tell the peak of a process")
    block = mmap.mmap(-1, 64 << 20)  # given back when it is closed, whatever the allocator keeps
    block[::4096] = bytes(len(block) // 4096)  # touched page by page: no copy that the allocator would keep
    assert process_peak(False) >= low + (32 << 20)
    block.close()
    process_peak(True)
    assert process_peak(False) < low + (32 << 20)
