"""Kills in chains: a run is stopped at any moment, resumed, stopped again, and in the end it is what nothing
stopped would have been.

Compared with the straight run: every file of the last checkpoint, metric rows without seconds, decisions
without those about stopping and resuming, trees, guided data, the summary, the names of all files, and that
there is a report. A chain tests the promise only where a gradient flowed after a resume; one in which none
did is counted apart.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attacks_kit import children, moments, runs
from attacks_kit.records import Outcome, Try, failed, held, idle, memory, rng_of
from attacks_kit.subjects import all_subjects

KILLS = 1000
LONGEST = 8  # kills of a chain
ENDS_EARLY = 1.42  # planned for one that happens: a moment may lie after the end of the run
# these once more with PyTorch in place of the kernels
KERNELS_OFF = ("shared-fp32", "adapters-bf16", "models-bf16")
FRESH = ("adapters-bf16", "distill-rules", "adaptive-adapter")  # these twice more, in processes of their own


@dataclass(frozen=True, slots=True)
class Straight:
    """What nothing stopped: what it left, how long it took, and its file operations by name."""

    left: dict
    seconds: float
    counts: dict[str, int]


def cases() -> dict[str, tuple[dict, bool]]:
    """Name -> (tables of a recipe, whether the kernels compute)."""
    found = {name: (tables, True) for name, tables in all_subjects().items()}
    return found | {f"{name}-torch": (found[name][0], False) for name in KERNELS_OFF}


def tries(scale: float, seed: int) -> list[Try]:
    wanted, planned, found = KILLS * scale * ENDS_EARLY, 0, []
    names = list(cases())
    rng_of("kills order", seed).shuffle(names)
    number = 0
    while planned < wanted:
        name = names[number % len(names)]
        id = f"kills/{name}/{seed}.{number}"
        kills = min(rng_of(id, "kills").randint(1, LONGEST), max(1, round(wanted - planned)))
        found.append(Try(id, functools.partial(chain, name, id, kills)))
        planned, number = planned + kills, number + 1
    for name in FRESH if scale >= 1 else ():
        found.append(Try(f"kills/fresh/{name}", functools.partial(fresh, name)))
    return found


def chain(name: str, id: str, kills: int, folder: Path) -> Outcome:
    """`kills` stops of one run, then its end."""
    rng, straight = rng_of(id), straight_of(name)
    recipe, out, before = _recipe(name, folder), folder / "run", _environment(name)
    said, done, resumed_from = [], 0, None
    for number in range(kills):
        moment = moments.draw(rng, straight.seconds, straight.counts)
        # a chain that goes on from no checkpoint would test nothing
        if number == kills - 1 and not runs.steps(out):
            moment = moments.under_way(rng, straight.counts)
        argv, resumed_from = _next(recipe, out, resumed_from)
        ended = _stopped(argv, folder, out, moment, before)
        if ended.code == 0:  # the moment lay after the end
            break
        if ended.code == 2 and (wrong := _refused(ended, out)) is not None:
            if wrong:
                return _failed(_also(wrong, straight, out), said, done)
            break
        if why := children.untyped(ended, fine=moment.codes()):
            return _failed(f"after {moment}: {why}", said, done + 1)
        said.append(str(moment))
        done += 1
    for _ in range(3):
        argv, resumed_from = _next(recipe, out, resumed_from)
        ended = children.run(argv, folder / "logs", before=before)
        if ended.code == 2 and (wrong := _refused(ended, out)) is not None:
            if wrong:
                return _failed(_also(wrong, straight, out), said, done)
            break
        if why := children.untyped(ended, fine=(0,)):
            return _failed(f"the run that goes on: {why}", said, done)
        break
    if different := runs.difference(straight.left, runs.left(out)):
        return _failed(different, said, done)
    flowed = 0 if resumed_from is None else runs.gradients_after(out, resumed_from)
    numbers = {"kills": done, "chains": 1, "chains with a gradient after a resume": int(flowed > 0)}
    if not done:
        return Outcome(id="", verdict="held", count=0, numbers=numbers)
    if not flowed:
        return idle(
            "no gradient flowed after a resume, so this is not a test of the promise", count=done, **numbers
        )
    return held(count=done, reason="; ".join(said), **numbers)


def _also(wrong: str, straight: Straight, out: Path) -> str:
    """A missing report must not hide that weights differ too."""
    other = {name: value for name, value in runs.left(out).items() if name not in ("report.html", "names")}
    different = runs.difference({name: straight.left[name] for name in other if name in straight.left}, other)
    return f"{wrong}; {different}" if different else wrong


def _failed(why: str, said: list[str], done: int) -> Outcome:
    return failed(f"{why} [{'; '.join(said) or 'no kill yet'}]", count=max(done, 1), kills=done, chains=1)


def _next(recipe: Path, out: Path, resumed_from: int | None) -> tuple[list, int | None]:
    """The command that goes on, and the step of the first checkpoint that a chain went on from."""
    if (out / "recipe.json").exists():
        steps = runs.steps(out)
        if resumed_from is None and steps:
            resumed_from = steps[-1]
        return ["train", "--resume", out, "--plain"], resumed_from
    # stopped before the run had said what it is: its own message says to take another folder
    shutil.rmtree(out, ignore_errors=True)
    return ["train", recipe, "--out", out, "--plain"], resumed_from


def _stopped(
    argv: list, folder: Path, out: Path, moment: moments.Moment, environment: Callable[[], None]
) -> children.Ended:
    """The command, with the signals of the moment."""
    (folder / "logs").mkdir(exist_ok=True)
    log = folder / "logs" / f"{len(list((folder / 'logs').iterdir())):03d}.log"

    def before() -> None:
        environment()
        if moment.name:
            moments.at(moment, out)()

    child = children.command(argv, log, before)
    if not moment.name:
        time.sleep(moment.after)
        for n, number in enumerate(moments.SIGNALS[moment.signals]):
            time.sleep(0.002 * n)
            child.send(number)
    return child.end()


def _refused(ended: children.Ended, out: Path) -> str | None:
    """A resume that says that the run is finished is an end, if its report is there or the command that it
    names writes it: "" then, else what is wrong; None for any other refusal."""
    if "nothing to resume" not in ended.text:
        return None
    if not (out / "report.html").exists():
        if "forethought report" not in ended.text:
            return f"the run is finished without a report, and resuming says only: {ended.last}"
        again = children.run(["report", out], out.parent / "logs")
        if why := children.untyped(again, fine=(0,)):
            return f"the report of a finished run: {why}"
    return ""


def _recipe(name: str, folder: Path) -> Path:
    path = folder / "recipe.json"
    path.write_text(json.dumps(cases()[name][0]), encoding="utf-8")
    return path


def _environment(name: str) -> Callable[[], None]:
    kernels = cases()[name][1]
    return lambda: None if kernels else os.environ.__setitem__("FORETHOUGHT_KERNELS", "0")


_STRAIGHT: dict[str, Straight] = {}


def straight_of(name: str) -> Straight:
    """The straight run of a case, made once in a process. RuntimeError where it does not end well: nothing
    can be compared then."""
    if name not in _STRAIGHT:
        with tempfile.TemporaryDirectory(dir=memory()) as folder:
            out, environment = Path(folder) / "run", _environment(name)
            counting = moments.count(out)
            ended = children.run(
                ["train", _recipe(name, Path(folder)), "--out", out, "--plain"],
                Path(folder) / "logs",
                before=lambda: (environment(), counting()),
            )
            if why := children.untyped(ended, fine=(0,)):
                raise RuntimeError(f"the straight run of {name}: {why}")
            _STRAIGHT[name] = Straight(runs.left(out), ended.seconds, moments.counted(out))
    return _STRAIGHT[name]


def fresh(name: str, folder: Path) -> Outcome:
    """Two runs in processes that share nothing, with another order of hashes: equal files."""
    recipe, found = _recipe(name, folder), []
    for n in ("1", "2"):
        out = folder / f"run-{n}" / "run"
        ended = subprocess.run(
            [sys.executable, "-m", "forethought.cli", "train", str(recipe), "--out", str(out), "--plain"],
            env={**os.environ, "PYTHONHASHSEED": n},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if ended.returncode:
            return failed(f"exit {ended.returncode}: {ended.stderr[-300:]}")
        found.append(runs.left(out))
    different = runs.difference(*found)
    return failed(f"two runs of one recipe: {different}") if different else held()
