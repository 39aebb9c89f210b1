"""Runs jobs side by side, one process each: a run that crashes leaves the others alone, and its memory is
given back."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

from forethought.arms.jobs import Job
from forethought.arms.state import Outcome, forget, read_outcome, state_of, status_of, write_outcome
from forethought.arms.worker import How, work
from forethought.core.errors import UserError
from forethought.runs.interrupts import Interrupts

WRITER = "tensorboard.summary.writer.event_file_writer"
PRELOAD = (
    "forethought.engines.torch.engine",
    "forethought.engines.torch.models.loading",
    "forethought.arms.worker",
    "peft",
    WRITER,
)
"""Imported once by the fork server, by name: torch stays out of this process. None of them starts a thread or
computes."""
ONE_THREAD = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)

Tell = Callable[[Job, Outcome, Sequence[Job], float], None]
"""Called for each job that ended, with the jobs that are still to end and the seconds that those at work have
taken so far."""


@dataclass(slots=True)
class Pool:
    """`run` works off jobs. `options`: see `worker.work`. `preload`: modules that every job needs."""

    workers: int
    tell: Tell
    options: Mapping[str, Callable] = field(default_factory=dict)
    preload: Sequence[str] = PRELOAD
    changed_code: bool = False  # see `run.resume`
    caught: int = 0  # the signal that ended it early
    _waiting: list[Job] = field(default_factory=list)
    # by sentinel
    _at_work: dict[int, tuple[multiprocessing.process.BaseProcess, Job, float]] = field(default_factory=dict)
    _ended: dict[Path, Outcome] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> dict[Path, Outcome]:
        """Outcome by run directory. SIGINT and SIGTERM are passed on: the runs save and end, and `caught`
        says which it was."""
        self._waiting = by_urgency(jobs)
        pending = {job.out for job in jobs}
        context = self._context()
        with Interrupts() as interrupts:
            try:
                while self._at_work or (self._waiting and not self.caught):
                    if interrupts.caught and not self.caught:
                        self.caught = interrupts.caught
                        self._signal("terminate")
                    while (
                        not self.caught and len(self._at_work) < self.workers and (job := self._next(pending))
                    ):
                        self._start(job, context)
                    for sentinel in wait(list(self._at_work), timeout=0.5) if self._at_work else ():
                        self._collect(sentinel)
            except KeyboardInterrupt:  # a second Ctrl-C: no time to save
                self._signal("kill")
                raise
            except BaseException:
                self._signal("terminate")
                raise
        return dict(self._ended)

    def _context(self) -> multiprocessing.context.BaseContext:
        """A server that has loaded the engine once and forks from there, with one thread a process in every
        numerical library."""
        if "forkserver" not in multiprocessing.get_all_start_methods():
            return multiprocessing.get_context("spawn")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(self.preload))
        return context

    def _signal(self, how: Literal["terminate", "kill"]) -> None:
        for process, _, _ in self._at_work.values():
            getattr(process, how)()

    def _next(self, pending: set[Path]) -> Job | None:
        """The most urgent job whose shared stages are there. Those whose shared stages failed have failed
        with them."""
        for job in list(self._waiting):
            before = self._ended.get(job.after) if job.after else None
            if job.after in pending and before is None:
                continue
            self._waiting.remove(job)
            if before and before.bad:
                outcome = Outcome(
                    status="failed", reason=f"the stages that it shares failed: {before.reason}"
                )
                job.out.parent.mkdir(parents=True, exist_ok=True)
                write_outcome(job.out, outcome)
                self._end(job, outcome)
                continue
            return job
        return None

    def _start(self, job: Job, context: multiprocessing.context.BaseContext) -> None:
        state = state_of(job)
        if state != "begun" and not self._forgotten(job):
            return
        job.out.parent.mkdir(parents=True, exist_ok=True)
        # shared stages that a gate stopped are no start for anything: the run meets the same gate by itself
        extends = job.after is not None and status_of(job.after, job.shared) == "done"
        how: How = "resume" if state == "begun" else "extend" if extends else "train"
        job.out.with_name(f"{job.out.name}.outcome.json").unlink(missing_ok=True)
        process = context.Process(
            target=work, args=(job, how, self.options, self.changed_code), name=f"{job.name} seed {job.seed}"
        )
        with _one_thread():  # the server starts with the first process and keeps its environment
            process.start()
        self._at_work[process.sentinel] = (process, job, time.monotonic())

    def _forgotten(self, job: Job) -> bool:
        """Remove what is there; a run that another process writes is none of this command's, and its job has
        failed."""
        try:
            forget(job)
        except UserError as error:
            self._end(job, Outcome(status="failed", reason=str(error)))
            return False
        return True

    def _collect(self, sentinel: int) -> None:
        process, job, began = self._at_work.pop(sentinel)
        process.join()
        outcome = read_outcome(job.out)
        if outcome is None:  # it ended without a word
            code = process.exitcode or 0
            how = f"killed by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
            outcome = Outcome(
                status="interrupted" if self.caught else "killed",
                reason=how,
                seconds=round(time.monotonic() - began, 1),
            )
            write_outcome(job.out, outcome)
        process.close()
        self._end(job, outcome)

    def _end(self, job: Job, outcome: Outcome) -> None:
        self._ended[job.out] = outcome
        now = time.monotonic()
        left = [*self._waiting, *(job for _, job, _ in self._at_work.values())]
        self.tell(job, outcome, left, sum(now - began for _, _, began in self._at_work.values()))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def by_urgency(jobs: Sequence[Job]) -> list[Job]:
    """Shared stages first, since others wait for them; then the longest, so that none is left running alone
    at the end."""
    waits = {job.out: 0 for job in jobs}
    for job in jobs:
        if job.after in waits:
            waits[job.after] += job.work()
    return sorted(
        jobs,
        key=lambda job: (
            not job.is_prefix,
            len(job.recipe.stage) if job.is_prefix else 0,
            -waits[job.out] - job.work(),
        ),
    )
