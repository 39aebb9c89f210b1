"""A million inputs that are almost right: each ends in a value, a refusal, or an error of ours with an
address, and soon.

A batch of inputs of one target is fed in a forked process. A shared counter says which input it is at, so one
that never comes back, or takes the process with it, is known, and the batch goes on after it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import os
import signal
import time
from pathlib import Path

from attacks_kit import children
from attacks_kit.records import Outcome, Try, failed, held, rng_of
from attacks_kit.targets import TARGETS

INPUTS = 1_000_000
BATCH = 4_000
SHOWN = 5  # failing inputs of a batch that are listed; all are counted


def tries(scale: float, seed: int) -> list[Try]:
    """Batches of every target, no target without an input."""
    whole, found = sum(t.share for t in TARGETS.values()), []
    for name, target in TARGETS.items():
        n = max(20, round(INPUTS * scale * target.share / whole))
        for first in range(0, n, BATCH):
            count = min(BATCH, n - first)
            found.append(
                Try(f"fuzz/{name}/{seed}.{first}+{count}", functools.partial(batch, name, seed, first, count))
            )
    return found


def again(id: str) -> Try:
    """One input: fuzz/TARGET/SEED.NUMBER, or the batch that +COUNT names."""
    _, name, place = id.split("/", 2)
    seed, _, rest = place.partition(".")
    first, _, count = rest.partition("+")
    return Try(id, functools.partial(batch, name, seed, int(first), int(count or 1)))


def batch(name: str, seed: object, first: int, count: int, folder: Path) -> Outcome:
    """Inputs `first` to `first + count - 1` of a target."""
    at, wrong = first, []
    while at < first + count:
        found, reached = _fed(name, seed, at, first + count, folder)
        wrong += found
        at = reached
    if not wrong:
        return held(count=count)
    shown = "; ".join(f"fuzz/{name}/{seed}.{number}: {why}" for number, why in wrong[:SHOWN])
    return failed(
        shown + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""),
        count=count,
        wrong=len(wrong),
    )


def _fed(name: str, seed: object, first: int, end: int, folder: Path) -> tuple[list[tuple[int, str]], int]:
    """([(input, what went wrong)], the first input that was not fed), by one child."""
    target, place = TARGETS[name], mmap.mmap(-1, 8)
    log = folder / f"{first}.log"
    place[:8] = first.to_bytes(8, "big")
    # The clock of one input ends it in Python; a little later the parent ends a process that does not listen.
    child = children.Child(lambda: _feed(name, seed, first, end, place, folder), log)
    seen, since = first, time.monotonic()
    patience = 60.0  # until the target is made; then that of an input
    while not child.over():
        now = int.from_bytes(place[:8], "big")
        if now != seen:
            seen, since, patience = now, time.monotonic(), target.seconds + 5
        if time.monotonic() - since > patience:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.end(1e9)
            return _said(folder / f"{first}.wrong") + [
                (seen, f"hangs: killed after {patience:.0f} s")
            ], seen + 1
        time.sleep(0.003)
    ended = child.end(1e9)
    wrong = _said(folder / f"{first}.wrong")
    if ended.code == 0:
        return wrong, end
    reached = int.from_bytes(place[:8], "big")
    how = f"signal {-ended.code}" if ended.code < 0 else f"exit {ended.code}"
    return [*wrong, (reached, f"ended the process: {how}: {ended.last}")], reached + 1


def _said(path: Path) -> list[tuple[int, str]]:
    return (
        [tuple(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.exists()
        else []
    )


PATIENCE = 12  # times the limit in seconds of processor time that a try may last


class Slow(BaseException):
    """An input took too long. Nothing that catches errors catches it."""


def _feed(name: str, seed: object, first: int, end: int, place: mmap.mmap, folder: Path) -> int:
    from forethought.core.errors import ForethoughtError

    def late(number: int, frame: object) -> None:
        raise Slow

    target = TARGETS[name]
    own = folder / f"of-{first}"
    own.mkdir(exist_ok=True)
    feed = target.make(own)
    signal.signal(signal.SIGPROF, late)
    signal.signal(signal.SIGALRM, late)
    with open(folder / f"{first}.wrong", "a", encoding="utf-8") as wrong:
        for number in range(first, end):
            place[:8] = number.to_bytes(8, "big")
            rng = rng_of("fuzz", name, seed, number)
            # processor time, which other work on the machine does not stretch; what waits ends later
            signal.setitimer(signal.ITIMER_PROF, target.seconds)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE * target.seconds)
            why = ""
            try:
                feed(rng)
            except ForethoughtError as error:
                why = address(error)
            except Slow:
                why = f"takes more than {target.seconds:g} s"
            except (KeyboardInterrupt, SystemExit, Exception) as error:
                why = f"{type(error).__name__}: {str(error)[:200]!r} at {_where(error)}"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
            if why:
                wrong.write(json.dumps([number, why]) + "\n")
                wrong.flush()
    return 0


def address(error: Exception) -> str:
    """Why an error of ours has no address: it says nothing, or says it was not expected."""
    said = str(error)
    return f"an error that says {said!r}" if len(said) < 8 or "This is a bug" in said else ""


def _where(error: BaseException) -> str:
    """The last line of the package in a traceback."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/forethought/" in f.filename] or frames
    return f"{own[-1].filename.rsplit('/forethought/', 1)[-1]}:{own[-1].lineno}"
