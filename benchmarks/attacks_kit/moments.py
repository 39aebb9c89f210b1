"""When a run is killed: after some time, or at a named moment, which is a file operation of the run that
Python tells of before it happens.

Every open, rename, mkdir and remove below the run directory is such an operation (`sys.addaudithook`), so a
kill can fall before each of them, and a little after, while it is done; what a crash between two operations
leaves behind is met on purpose, not by luck.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EVENTS = {
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "shutil.rmtree",
    "os.truncate",
    "os.link",
    "os.symlink",
}
# a named moment -> which operations it is; the first that fits, "event path" or "os.rename from -> to"
NAMES = {
    "recipe.json": r".* recipe\.json",
    "a temporary checkpoint": r"(open|os\.mkdir) checkpoints/\.step-",
    "a checkpoint's rename": r"os\.rename checkpoints/\.step-",
    "an old checkpoint's removal": r"(shutil\.rmtree|os\.remove|os\.rmdir) checkpoints/",
    "guided/": r".* guided/",
    "a log's line": r"open (metrics|decisions)\.jsonl",
    "a tree file": r".* \.?trees",
    "summary.json": r".* \.?summary\.json",
    "the report": r".* \.?report\.html",
    "an event file": r".* tensorboard",
    "another file": r".*",
}
_NAMES = [(name, re.compile(pattern)) for name, pattern in NAMES.items()]
SIGNALS = {
    "KILL": (signal.SIGKILL,),
    "TERM": (signal.SIGTERM,),
    "INT": (signal.SIGINT,),
    "HUP": (signal.SIGHUP,),
    "INT INT": (signal.SIGINT, signal.SIGINT),
    "TERM KILL": (signal.SIGTERM, signal.SIGKILL),
}
STOPS = {
    signal.SIGKILL: (-9,),
    signal.SIGTERM: (143, -15),
    signal.SIGINT: (130, -2),
    signal.SIGHUP: (129, -1),
    signal.SIGALRM: (-14,),
}
"""The exit codes that a signal may lead to: the run's own where it was under way, the system's where it had
not begun."""


@dataclass(frozen=True, slots=True)
class Moment:
    """`name` "" : `after` seconds. Else: at the `number`th operation of this name (from 1), `after` seconds
    later; "after a rename": before whatever follows the `number`th rename."""

    name: str
    number: int
    after: float
    signals: str  # of SIGNALS

    def __str__(self) -> str:
        at = f"{self.name} {self.number}" if self.name else "time"
        return f"{self.signals} at {at}{f' + {1000 * self.after:.1f} ms' if self.after else ''}"

    def codes(self) -> set[int]:
        own = {code for number in SIGNALS[self.signals] for code in STOPS[number]}
        return own | ({-14} if self.name and self.after else set())


AFTER_RENAME = "after a rename"


def draw(rng: random.Random, seconds: float, counts: dict[str, int]) -> Moment:
    """A moment of a run that takes `seconds` and does `counts` operations of each name. Each name is as
    likely as another one; named ones together are as likely as those at a time."""
    signals = "KILL" if rng.random() < 0.75 else rng.choice([s for s in SIGNALS if s != "KILL"])
    if rng.random() < 0.4:
        return Moment("", 0, rng.uniform(0.01, 0.6 * seconds), signals)
    name = rng.choice([*counts, AFTER_RENAME])
    most = counts.get(name, counts.get("a checkpoint's rename", 1))
    number = 1 + min(int(rng.expovariate(0.35)), max(0, most - 1))
    after = (
        rng.choice((0.0, 0.0, rng.uniform(0, 0.0008), rng.uniform(0, 0.004))) if signals == "KILL" else 0.0
    )
    return Moment(name, number, after, signals)


def under_way(rng: random.Random, counts: dict[str, int]) -> Moment:
    """Before a checkpoint gets its name, neither the first one, so that there is one to go on from, nor one
    of the last two, so that there is something left to train."""
    return Moment(
        "a checkpoint's rename",
        rng.randint(2, max(2, counts.get("a checkpoint's rename", 2) - 2)),
        0.0,
        "KILL",
    )


def name_of(event: str, arguments: tuple, out: str) -> str:
    """The name of an operation below `out`, or ""."""
    if event not in EVENTS:
        return ""
    paths = [
        os.fsdecode(p)
        for p in arguments[: 2 if event == "os.rename" else 1]
        if isinstance(p, str | bytes | os.PathLike)
    ]
    inside = [p[len(out) + 1 :] for p in paths if p.startswith(f"{out}/")]
    if not inside:
        return ""
    said = f"{event} {inside[0]}"
    return next(name for name, pattern in _NAMES if pattern.match(said))


def count(out: Path) -> Callable[[], None]:
    """For a child's `before`: the name of every operation goes to the file `out`.counts, one a line."""

    def begin() -> None:
        at = os.open(f"{out}.counts", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def hook(event: str, arguments: tuple) -> None:
            if event in EVENTS and (name := name_of(event, arguments, str(out))):
                os.write(at, f"{name}\n".encode())

        sys.addaudithook(hook)

    return begin


def counted(out: Path) -> dict[str, int]:
    """What `count` wrote."""
    names = Path(f"{out}.counts").read_text(encoding="utf-8").splitlines()
    return {name: names.count(name) for name in dict.fromkeys(names)}


def at(moment: Moment, out: Path) -> Callable[[], None]:
    """For a child's `before`: it sends the signals to itself at the named moment."""

    def begin() -> None:
        state = {"seen": 0, "done": False}
        # ends the process as SIGKILL does: no handler, no clean-up (here: threads may not)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

        def hook(event: str, arguments: tuple) -> None:
            if event not in EVENTS or state["done"]:
                return
            name = name_of(event, arguments, str(out))
            if moment.name == AFTER_RENAME:
                hit = bool(name) and state["seen"] >= moment.number
                state["seen"] += bool(name) and event == "os.rename"
            else:
                state["seen"] += name == moment.name
                hit = name == moment.name and state["seen"] == moment.number
            if hit:
                state["done"] = True
                _strike(moment)

        sys.addaudithook(hook)

    return begin


def _strike(moment: Moment) -> None:
    if moment.after and moment.signals == "KILL":
        signal.setitimer(signal.ITIMER_REAL, max(moment.after, 1e-6))
        return
    for number in SIGNALS[moment.signals]:
        os.kill(os.getpid(), number)
