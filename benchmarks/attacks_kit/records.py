"""What a try is, what came of it, and how tries are spread over processes."""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Verdict = Literal["held", "failed", "skipped", "idle"]
"""held: the promise held; failed: it did not; skipped: not possible here, with the reason; idle: what
happened says nothing about the promise (a resume after which no gradient flowed), so it counts neither
way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of one try. `count`: how many things it tried (kills of a chain, inputs of a batch); `wrong`: how many
    of them failed."""

    id: str
    verdict: Verdict
    reason: str = ""
    count: int = 1
    wrong: int = 0
    seconds: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)  # summed over a campaign


@dataclass(frozen=True, slots=True)
class Try:
    """`do(folder)` attacks in an empty folder of its own and returns an Outcome, whose id and seconds are
    filled in here."""

    id: str
    do: Callable[[Path], Outcome]


def held(count: int = 1, reason: str = "", **numbers: float) -> Outcome:
    return Outcome(id="", verdict="held", reason=reason, count=count, numbers=numbers)


def failed(reason: str, count: int = 1, wrong: int = 1, **numbers: float) -> Outcome:
    return Outcome(id="", verdict="failed", reason=reason, count=count, wrong=wrong, numbers=numbers)


def skipped(reason: str) -> Outcome:
    return Outcome(id="", verdict="skipped", reason=reason)


def idle(reason: str, count: int = 1, **numbers: float) -> Outcome:
    return Outcome(id="", verdict="idle", reason=reason, count=count, numbers=numbers)


def rng_of(*words: object) -> random.Random:
    """Its own stream of random numbers for everything that is named: one try can be made again without the
    others."""
    return random.Random(":".join(map(str, words)))


def attempt(one: Try, keep: Path | None = None) -> Outcome:
    """The try, made in a folder in memory that is gone afterwards (with `keep`: moved there). An error of the
    attack itself is a failure that says so: nothing that was not seen to hold counts as held."""
    folder, began = Path(tempfile.mkdtemp(prefix="try-", dir=memory())), time.monotonic()
    try:
        found = one.do(folder)
    except Exception as error:
        found = failed(
            f"the attack itself broke: {type(error).__name__}: {error} "
            f"({traceback.format_exc().splitlines()[-3].strip()})"
        )
    finally:
        if keep is not None:
            shutil.copytree(
                folder,
                keep / one.id.replace("/", "+"),
                symlinks=True,
                dirs_exist_ok=True,
                ignore_dangling_symlinks=True,
            )
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(**asdict(found) | {"id": one.id, "seconds": time.monotonic() - began})


def memory() -> Path:
    """A folder for everything that attacks write, gone with the process that asked first (forked ones share
    it). In memory where there is such a place: synced writes cost nothing there, and the attacks are about
    what is in the files, not about the disk."""
    if not _ROOM:
        where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        _ROOM.append((os.getpid(), Path(tempfile.mkdtemp(prefix="attacks-", dir=where))))
        atexit.register(_leave)
    return _ROOM[0][1]


_ROOM: list[tuple[int, Path]] = []


def _leave() -> None:
    if _ROOM and _ROOM[0][0] == os.getpid():
        shutil.rmtree(_ROOM.pop()[1], ignore_errors=True)


def attempt_all(
    tries: list[Try],
    workers: int = 1,
    tell: Callable[[Outcome], None] = lambda found: None,
    keep: Path | None = None,
) -> list[Outcome]:
    """The outcomes in the order of the tries. More than one worker: forked processes that take the next try
    when they are free."""
    if workers <= 1:
        found = []
        for one in tries:
            found.append(attempt(one, keep))
            tell(found[-1])
        return found
    return _spread(tries, workers, tell, keep)


def _spread(
    tries: list[Try], workers: int, tell: Callable[[Outcome], None], keep: Path | None
) -> list[Outcome]:
    """A pipe holds one byte pair for each try; a worker reads the next number, and writes its outcome as a
    line of its own file."""
    folder = Path(tempfile.mkdtemp(prefix="spread-", dir=memory()))
    queue, feed = os.pipe()
    children = {}
    for k in range(workers):
        if (child := os.fork()) == 0:
            code = 1
            try:
                os.close(feed)
                with open(folder / f"{k}.jsonl", "a", encoding="utf-8") as lines:
                    while number := os.read(queue, 4):
                        at = int.from_bytes(number, "big")
                        lines.write(json.dumps([at, asdict(attempt(tries[at], keep))]) + "\n")
                        lines.flush()
                code = 0
            finally:
                os._exit(code)
        children[child] = k
    os.close(queue)
    for at in range(len(tries)):
        os.write(feed, at.to_bytes(4, "big"))
    os.close(feed)
    for child in children:
        os.waitpid(child, 0)
    outcomes = {}
    for k in range(workers):
        for line in (folder / f"{k}.jsonl").read_text(encoding="utf-8").splitlines():
            at, said = json.loads(line)
            outcomes[at] = Outcome(**said)
            tell(outcomes[at])
    shutil.rmtree(folder, ignore_errors=True)
    missing = {
        at: Outcome(id=tries[at].id, verdict="failed", reason="the worker died in this try", wrong=1)
        for at in range(len(tries))
        if at not in outcomes
    }
    return [(outcomes | missing)[at] for at in range(len(tries))]


def total(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """tries, held, failed, skipped, idle (in things tried, not in chains or batches), seconds, and the
    numbers summed."""
    out: dict[str, float] = dict.fromkeys(("tries", "held", "failed", "skipped", "idle", "seconds"), 0)
    for one in outcomes:
        wrong = min(one.wrong or one.count, one.count) if one.verdict == "failed" else 0
        out["tries"] += one.count
        out["failed"] += wrong
        out["held" if one.verdict == "failed" else one.verdict] += one.count - wrong
        out["seconds"] += one.seconds
        for name, value in one.numbers.items():
            out[name] = out.get(name, 0) + value
    return out
