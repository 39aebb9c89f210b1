"""What was timed on this machine, once: which of several ways to compute the same takes least.

Answers are kept in the user's cache, under the question and under all that they depend on: processor, cores,
versions, build of the kernels. An answer of another machine (a home that several share, a container that
moved) is left where it is, and that is said.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from forethought.core import cores
from forethought.engines.torch.forest.native import cache
from forethought.engines.torch.forest.native import library as native

ROUNDS, SECONDS = 3, 0.25  # of timing: at least so many rounds, until so much time has passed


class Answer(NamedTuple):
    """`took`: seconds of each way, by its name. `when`: the day. `said`: what people should know of it."""

    took: Mapping[str, float]
    when: str
    said: str = ""


def least(
    work: Mapping[str, Callable[[], object]], clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    """Seconds of each, the least of some rounds that alternate between them. On one thread, in its own
    processor time: what else the machine does is not in it."""
    before, took = torch.get_num_threads(), dict.fromkeys(work, float("inf"))
    torch.set_num_threads(1)
    try:
        for do in work.values():  # buffers are made, code is compiled
            do()
        began, rounds = time.perf_counter(), 0
        while rounds < ROUNDS or time.perf_counter() - began < SECONDS:
            for name, do in work.items():
                start = clock()
                do()
                took[name] = min(took[name], clock() - start)
            rounds += 1
    finally:
        torch.set_num_threads(before)
    return took


def fingerprint() -> dict[str, object]:
    """All of a machine that an answer depends on."""
    return {
        "processor": native.processor(),
        "cores": cores.usable(),
        "torch": torch.__version__,
        "kernels": native.build(),
    }


def answer(
    question: Sequence[object], names: Sequence[str], measure: Callable[[], Mapping[str, float]]
) -> Answer:
    """What was measured under this question, of these ways, now or earlier. A file that cannot be read or
    written costs the time of measuring anew."""
    asked, here = _digest([question, list(names)]), fingerprint()
    key = f"ways-{asked}-{_digest(here)}"
    if key not in _known:
        found = _read(key, names)
        _known[key] = found or Answer(measure(), time.strftime("%Y-%m-%d"), _elsewhere(asked, here))
        if not found:
            _write(key, here, _known[key])
    return _known[key]


_known: dict[str, Answer] = {}


def _digest(of: object) -> str:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]


def _elsewhere(asked: str, here: Mapping[str, object]) -> str:
    """Whether the same was measured on another machine, in words. Other versions on this one are not told:
    every update is one."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        for path in sorted(_path("any").parent.glob(f"ways-{asked}-*.json")):
            machine = json.loads(path.read_text(encoding="utf-8"))["machine"]
            if differs := [name for name in ("processor", "cores") if machine.get(name) != here[name]]:
                return f"a choice that another machine measured is left aside (other {' and '.join(differs)})"
    return ""


def _read(key: str, names: Sequence[str]) -> Answer | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(_path(key).read_text(encoding="utf-8"))
        took = {str(name): float(seconds) for name, seconds in found["took"]}
        if set(took) == set(names) and all(0 < s < 1e9 for s in took.values()):
            return Answer({name: took[name] for name in names}, str(found["when"])[:10])
    return None


def _write(key: str, here: Mapping[str, object], found: Answer) -> None:
    with contextlib.suppress(OSError):
        path = _path(key)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        said = {"when": found.when, "machine": here, "took": list(found.took.items())}
        beside.write_text(json.dumps(said), encoding="utf-8")
        os.replace(beside, path)


def _path(key: str) -> Path:
    return cache.folder_of(f"{key}.json") / f"{key}.json"
