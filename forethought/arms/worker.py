"""One job in its own process: trains, extends or resumes a run, with plain lines into the run's log, and
leaves word of how it ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal

from forethought import display
from forethought.arms.jobs import Job
from forethought.arms.state import Outcome, Status, log_of, write_outcome
from forethought.core.errors import Busy, FaultStop, ForethoughtError, GateStop, Interrupted
from forethought.runs import run

How = Literal["train", "extend", "resume"]


def work(job: Job, how: How, options: Mapping[str, Callable], changed_code: bool = False) -> None:
    """What the process does. `options`: more keywords for the functions of `run` (a test's own engine).
    `changed_code`: a run that is resumed accepts code that has changed."""
    _leave_the_terminal()
    _end_with_the_parent()
    began = time.monotonic()
    with open(
        log_of(job.out),
        "a" if how == "resume" else "w",
        encoding="utf-8",
        errors="backslashreplace",
        buffering=1,
    ) as log:
        for stream in (sys.stdout, sys.stderr):  # whatever a library prints belongs into the log as well
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
        more: dict[str, Any] = {"changed_code": True} if changed_code and how == "resume" else {}
        status, reason = attempt(job, how, display.plain(log), {**options, **more})
        if reason:
            print(f"{status}: {reason}", file=log)
    write_outcome(job.out, Outcome(status=status, reason=reason, seconds=round(time.monotonic() - began, 1)))


def attempt(job: Job, how: How, observe: Callable, options: Mapping[str, Any]) -> tuple[Status, str]:
    """(status, reason): whatever goes wrong in a run is told, never raised."""
    try:
        _do(job, how, observe, options)
    except GateStop as stop:
        return "stopped", str(stop)
    except Interrupted:
        return "interrupted", "saved"
    except Busy as error:
        return "killed", str(error)  # what is there is whole, and can be resumed
    except FaultStop as error:
        return "broken", " ".join(str(error).split())
    except ForethoughtError as error:
        return "failed", " ".join(str(error).split())
    except Exception as error:
        traceback.print_exc()
        return "failed", f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
    return "done", ""


def _do(job: Job, how: How, observe: Callable, options: Mapping[str, Any]) -> None:
    if how == "resume":
        run.resume(job.out, observe, **options)
    elif how == "extend":
        run.extend(job.recipe, job.after, job.out, observe, **options)
    else:
        run.train(job.recipe, job.out, observe, **options)


def _leave_the_terminal() -> None:
    """Ctrl-C reaches the terminal's whole process group; a run must hear of it once, from the command that
    started it."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def _end_with_the_parent() -> None:
    """Should the command be killed, its runs save and end as if they had been asked to."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
