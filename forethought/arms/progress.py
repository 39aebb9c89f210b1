"""One line for each job that ends: what it reached, how long it took, and about how long the rest will
take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from forethought.arms.declare import Declared
from forethought.arms.jobs import Job
from forethought.arms.state import Outcome, log_of
from forethought.core.jsonl import number
from forethought.display.pace import clock_text


class Progress:
    """`tell` is what a Pool calls."""

    def __init__(self, stream: IO[str], declared: Declared, jobs: Sequence[Job], workers: int):
        self.stream, self.declared, self.total, self.workers = stream, declared, len(jobs), workers
        self.ended = 0
        self.work = self.seconds = 0.0  # of jobs that went through: the pace of the others

    def tell(self, job: Job, outcome: Outcome, left: Sequence[Job], under_way: float) -> None:
        """Print one line for a job that has ended. `left`: jobs not yet ended; `under_way`: seconds that the
        running ones have already taken, for the estimate of the rest."""
        self.ended += 1
        if outcome.status == "done":
            self.work += job.work()
            self.seconds += outcome.seconds
        parts = [
            f"[{self.ended:>{len(str(self.total))}}/{self.total}] {job.name} seed {job.seed}  "
            f"{clock(outcome.seconds)}"
        ]
        parts += (
            [outcome.status.upper() if outcome.bad else outcome.status] if outcome.status != "done" else []
        )
        parts += [outcome.reason] if outcome.reason else []
        parts += [f"see {log_of(job.out)}"] if outcome.bad and log_of(job.out).exists() else []
        if not outcome.bad and not job.is_prefix:
            group = self.declared.group[job.name.split("/")[0]]
            parts += [
                f"{name.removeprefix('eval/')} {value:.3f}"
                for name, value in last_values(job.out, group.metrics).items()
            ]
        rest = None if outcome.status == "interrupted" else self.left(left, under_way)
        parts += [f"about {clock(rest)} left"] if rest is not None else []
        print("  ".join(parts), file=self.stream, flush=True)

    def left(self, jobs: Sequence[Job], under_way: float) -> float | None:
        """Seconds until the last of `jobs` ends, at the pace so far. None: nobody knows yet, or nothing is
        left."""
        if not self.work or not jobs:
            return None
        pace = self.seconds / self.work
        longest = max(job.work() for job in jobs) * pace
        shared_out = max(sum(job.work() for job in jobs) * pace - under_way, 0.0) / min(
            self.workers, len(jobs)
        )
        return max(shared_out, longest - under_way)


def last_values(run: Path, metrics: Sequence[str]) -> Mapping[str, float]:
    """The last value of each metric in the run's log, as far as it has one."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for text in reversed(lines):
        if len(found) == len(metrics):
            break
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):  # a last line that was cut off
            continue
        found |= {name: number(line[name]) for name in metrics if name in line and name not in found}
    return {name: found[name] for name in metrics if name in found}


def clock(seconds: float) -> str:
    """Seconds as "41 s", "3:20" or "1:02:05"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return clock_text(round(seconds))
