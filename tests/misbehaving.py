"""Ninety task families that misbehave, each in one way: `desk` with one method replaced.

A case names the method, what it does instead, and what must be said of it: the boundary, and a word of the
reason.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from typing import Any

from forethought.core.types import Outcome, Task, Turn, Verdict
from forethought.envs.base import Environment
from forethought.tasks.desk.taskset import Desk

LIMIT = 0.03  # seconds of a step, in the cases that hang


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class OwnBase(BaseException):
    """As a panic of a library in Rust is, or a cancelled task."""


class Odd(Outcome):
    @property
    def success(self):  # the field's own slot is hidden by it
        raise KeyError("success")


def raising(error: Callable[[], BaseException]) -> Callable[..., Any]:
    def method(*args, **named):
        raise error()

    return method


def giving(value: Any) -> Callable[..., Any]:
    return lambda *args, **named: value


def recursing(*args):
    return recursing(*args)


def looping(*args):
    while True:
        pass


def sleeping(*args):
    time.sleep(60)


def stubborn(*args):
    """Catches what it can: the limit is no Exception."""
    while True:
        try:
            time.sleep(60)
        except Exception:
            pass


def reading(*args):
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], check=True)


def locking(*args):
    threading.Event().wait()


async def dead(*args):
    await asyncio.Event().wait()


async def waiting(*args):
    return Outcome(done=True)


def cancelling(*args):
    async def cancelled():
        raise asyncio.CancelledError

    asyncio.run(cancelled())


def grouped(*args):
    raise ExceptionGroup("two", [ValueError("one"), OSError("other")])


def exiting(*args):
    sys.exit(0)


def generator(*args):
    yield Outcome(done=True)


def forged(**fields) -> Outcome:
    """An Outcome whose fields have other types: a dataclass does not look."""
    return Outcome(**({"done": True, "success": True} | fields))


TASK = Task(id="t", taskset="desk", level=1, context="", prompt="GOAL")


@dataclass(frozen=True)
class Case:
    method: str  # of the family; those of `OF_ENVIRONMENT` are the environment's
    does: Callable[..., Any]
    boundary: str
    said: str  # is in the reason
    is_async: bool = False  # the environment is asynchronous
    limits: Mapping[str, Any] = field(default_factory=dict)


OF_ENVIRONMENT = ("reset", "step", "close")
THREADS = {"threads": True, "at_once": 3}


CASES = {
    # ---- an episode's step
    "step raises": Case("step", raising(lambda: RuntimeError("boom")), "environment", "RuntimeError: boom"),
    "step raises without words": Case("step", raising(ValueError), "environment", "ValueError"),
    "step raises what cannot be printed": Case(
        "step", raising(Unprintable), "environment", "Unprintable: its message cannot be read"
    ),
    "step raises an escape sequence": Case(
        "step", raising(lambda: ValueError("\x1b[2J\x07title\nline")), "environment", "[2J title line"
    ),
    "step raises a megabyte": Case("step", raising(lambda: ValueError("x" * 10**6)), "environment", "xxx..."),
    "step exits with 0": Case("step", exiting, "environment", "SystemExit: 0"),
    "step exits with words": Case(
        "step", raising(lambda: SystemExit("bye")), "environment", "SystemExit: bye"
    ),
    "step runs out of memory": Case("step", raising(MemoryError), "environment", "MemoryError"),
    "step recurses": Case("step", recursing, "environment", "RecursionError"),
    "step asserts": Case(
        "step", raising(lambda: AssertionError("state")), "environment", "AssertionError: state"
    ),
    "step stops iterating": Case("step", raising(StopIteration), "environment", "StopIteration"),
    "step lacks a key": Case("step", raising(lambda: KeyError("w1")), "environment", "KeyError: 'w1'"),
    "step loses its server": Case(
        "step", raising(lambda: ConnectionResetError(104, "reset by peer")), "environment", "reset by peer"
    ),
    "step finds the disk full": Case(
        "step", raising(lambda: OSError(28, "No space left")), "environment", "OSError"
    ),
    "step loses its pipe": Case(
        "step", raising(lambda: BrokenPipeError(32, "gone")), "environment", "BrokenPipeError"
    ),
    "step runs out of time itself": Case("step", raising(TimeoutError), "environment", "TimeoutError"),
    "step raises a base of its own": Case(
        "step", raising(lambda: OwnBase("panic")), "environment", "OwnBase: panic"
    ),
    "step is cancelled": Case("step", cancelling, "environment", "CancelledError"),
    "step raises a group": Case("step", grouped, "environment", "ExceptionGroup: two"),
    "step gives None": Case("step", giving(None), "environment", "gave None, not an Outcome"),
    "step gives a table": Case("step", giving({"done": True}), "environment", "gave a dict, not an Outcome"),
    "step gives a verdict": Case(
        "step", giving(Verdict(score=1.0)), "environment", "gave a Verdict, not an Outcome"
    ),
    "step gives a pair": Case("step", giving((Outcome(done=True), {})), "environment", "gave a tuple"),
    "step is a coroutine": Case("step", waiting, "environment", "gave a coroutine"),
    "step is a generator": Case("step", generator, "environment", "gave a generator"),
    "success is text": Case(
        "step",
        giving(forged(success="yes")),
        "environment",
        "Outcome.success a str, 'yes', not True or False",
    ),
    "success is a number": Case(
        "step", giving(forged(success=0.5)), "environment", "Outcome.success a float, 0.5"
    ),
    "success raises": Case("step", lambda *args: Odd(done=True), "environment", "Error"),
    "done is None": Case("step", giving(forged(done=None)), "environment", "Outcome.done None"),
    "reason is a number": Case(
        "step", giving(forged(reason=5)), "environment", "Outcome.reason a int, 5, not text"
    ),
    "reason is None": Case("step", giving(forged(reason=None)), "environment", "Outcome.reason None"),
    "observation is a list": Case(
        "step", giving(forged(done=False, observation=["obs"])), "environment", "Outcome.observation a list"
    ),
    "observation is bytes": Case(
        "step", giving(forged(done=False, observation=b"x")), "environment", "Outcome.observation a bytes"
    ),
    "reason has half a character": Case(
        "step", giving(forged(reason="\ud800")), "environment", "written as UTF-8"
    ),
    "step loops": Case("step", looping, "environment", "Timeout: no end after"),
    "step sleeps": Case("step", sleeping, "environment", "Timeout"),
    "step catches every Exception": Case("step", stubborn, "environment", "Timeout"),
    "step waits for a process": Case("step", reading, "environment", "Timeout"),
    "step waits for a lock": Case("step", locking, "environment", "Timeout"),
    # ---- the start of an episode
    "environment raises": Case(
        "environment", raising(lambda: RuntimeError("no browser")), "environment", "RuntimeError: no browser"
    ),
    "environment is None": Case(
        "environment", giving(None), "environment", "gave None, not an environment with a step"
    ),
    "environment exits": Case("environment", exiting, "environment", "SystemExit"),
    "environment hangs": Case("environment", sleeping, "environment", "Timeout"),
    # ---- reset and close
    "reset raises": Case("reset", raising(lambda: OSError(98, "address in use")), "environment", "OSError"),
    "reset gives a number": Case("reset", giving(5), "environment", "gave a int, 5, not an Observation"),
    "reset hangs": Case("reset", sleeping, "environment", "Timeout"),
    "reset exits": Case("reset", exiting, "environment", "SystemExit"),
    "close raises": Case(
        "close", raising(lambda: RuntimeError("still open")), "environment", "RuntimeError: still open"
    ),
    "close hangs": Case("close", sleeping, "environment", "Timeout"),
    "close is a coroutine": Case("close", waiting, "environment", "gave a coroutine"),
    # ---- an asynchronous environment
    "an asynchronous step raises": Case(
        "step", raising(lambda: RuntimeError("boom")), "environment", "RuntimeError: boom", is_async=True
    ),
    "an asynchronous step exits": Case("step", exiting, "environment", "SystemExit", is_async=True),
    "an asynchronous step is cancelled": Case(
        "step", raising(asyncio.CancelledError), "environment", "CancelledError", is_async=True
    ),
    "an asynchronous step gives None": Case(
        "step", giving(None), "environment", "gave None, not an Outcome", is_async=True
    ),
    "an asynchronous step waits": Case("step", dead, "environment", "Timeout", is_async=True),
    "an asynchronous step blocks the loop": Case("step", looping, "environment", "Timeout", is_async=True),
    "an asynchronous reset raises": Case(
        "reset", raising(lambda: RuntimeError("no page")), "environment", "no page", is_async=True
    ),
    "an asynchronous reset waits": Case("reset", dead, "environment", "Timeout", is_async=True),
    "an asynchronous close raises": Case(
        "close", raising(lambda: RuntimeError("still open")), "environment", "still open", is_async=True
    ),
    # ---- an environment on a thread of its own
    "a step on a thread raises": Case(
        "step", raising(lambda: RuntimeError("boom")), "environment", "RuntimeError: boom", limits=THREADS
    ),
    "a step on a thread exits": Case("step", exiting, "environment", "SystemExit", limits=THREADS),
    "a step on a thread presses Ctrl-C": Case(
        "step", raising(KeyboardInterrupt), "environment", "KeyboardInterrupt", limits=THREADS
    ),
    "a step on a thread loops": Case("step", looping, "environment", "Timeout", limits=THREADS),
    "a reset on a thread raises": Case(
        "reset", raising(ValueError), "environment", "ValueError", limits=THREADS
    ),
    # ---- what an answer holds
    "a reward part is not a number": Case(
        "step", giving(forged(parts={"x": float("nan")})), "environment", "Outcome.parts['x'] a float, nan"
    ),
    "an image is none": Case(
        "step", giving(forged(images=(b"GIF",))), "environment", "begins no PNG or JPEG"
    ),
    "an observation is a book": Case(
        "step", giving(forged(done=False, observation="x" * 1_000_001)), "environment", "1,000,001 characters"
    ),
    # ---- parser and graders
    "the parser raises": Case(
        "parse_plan", raising(lambda: IndexError("list index out of range")), "parse", "IndexError"
    ),
    "the parser gives None": Case("parse_plan", giving(None), "parse", "gave None, not a Verdict"),
    "the parser gives a truth": Case("parse_plan", giving(True), "parse", "gave a bool, True, not a Verdict"),
    "the parser loops": Case("parse_plan", looping, "parse", "Timeout"),
    "a score is text": Case(
        "parse_plan",
        giving(Verdict(score="1")),
        "parse",
        "Verdict.score a str, '1', not a number from 0 to 1",
    ),
    "a score is not a number": Case(
        "judge_plan", giving(Verdict(score=float("nan"))), "reward", "Verdict.score a float, nan"
    ),
    "a score is infinite": Case(
        "judge_plan", giving(Verdict(score=float("inf"))), "reward", "Verdict.score a float, inf"
    ),
    "a score is far below": Case(
        "judge_plan", giving(Verdict(score=-1e308)), "reward", "Verdict.score a float, -1e+308"
    ),
    "a score is too large for a float": Case(
        "judge_plan", giving(Verdict(score=10**400)), "reward", "OverflowError"
    ),
    "a score is None": Case("judge_plan", giving(Verdict(score=None)), "reward", "Verdict.score None"),
    "a verdict's reason is a number": Case(
        "judge_plan", giving(Verdict(score=1.0, reason=5)), "reward", "Verdict.reason a int, 5"
    ),
    "the executor raises": Case(
        "judge_plan", raising(lambda: ZeroDivisionError("division by zero")), "reward", "ZeroDivisionError"
    ),
    "the executor hangs": Case("judge_plan", sleeping, "reward", "Timeout"),
    "following raises": Case(
        "follows", raising(lambda: ValueError("Invalid literal")), "reward", "ValueError: Invalid literal"
    ),
    "following gives a number": Case("follows", giving(1.0), "reward", "gave a float, 1.0, not a Verdict"),
    # ---- the task family
    "drawing raises": Case(
        "family", raising(lambda: RuntimeError("no tasks")), "task", "RuntimeError: no tasks"
    ),
    "drawing gives none": Case("family", giving([]), "task", "gave 0 tasks for"),
    "drawing gives text": Case("family", giving("abc"), "task", "gave a str, 'abc', not a list of tasks"),
    "drawing gives a nothing among tasks": Case("family", giving([None]), "task", "task 0 None, not a Task"),
    "a level is text": Case("family", giving([replace(TASK, level="1")]), "task", "Task.level a str"),
    "a prompt is None": Case("family", giving([replace(TASK, prompt=None)]), "task", "Task.prompt None"),
    "drawing exits": Case("family", exiting, "task", "SystemExit"),
    "the oracle raises": Case(
        "oracle_plan", raising(lambda: RuntimeError("no solution")), "task", "RuntimeError: no solution"
    ),
    "the oracle gives None": Case("oracle_plan", giving(None), "task", "gave None, not text"),
    "the oracle speaks unknown words": Case("oracle_plan", giving("zebra </plan>"), "task", "zebra"),
    "a demonstration raises": Case(
        "demonstrate", raising(lambda: RuntimeError("cannot show")), "task", "RuntimeError: cannot show"
    ),
    "a demonstration is empty": Case("demonstrate", giving([]), "task", "not a list of turns"),
    "a demonstration has no such role": Case(
        "demonstrate", giving([Turn(role="judge", text="x")]), "task", "Turn.role a str, 'judge'"
    ),
    "meaning raises": Case(
        "meaning", raising(lambda: RuntimeError("means nothing")), "parse", "RuntimeError: means nothing"
    ),
    "meaning is a list": Case("meaning", giving(["x"]), "parse", "gave a list, not text"),
}


def wrong(case: Case, now: Callable[[], bool], inner: Environment) -> Environment:
    """The environment with one method replaced, at the calls of it that `now` says."""

    def called(name: str, *args: Any) -> Any:
        return case.does(*args) if name == case.method and now() else getattr(inner, name)(*args)

    async def awaited(name: str, *args: Any) -> Any:
        found = called(name, *args)
        return await found if isawaitable(found) else found

    call = awaited if case.is_async else called
    methods = {name: (lambda self, *args, name=name: call(name, *args)) for name in OF_ENVIRONMENT}
    if case.is_async:

        async def reset(self, task, seed):
            return await awaited("reset", task, seed)

        methods["reset"] = reset  # this says that it is asynchronous; the others are awaited all the same
    return type("Wrong", (Environment,), methods)()


def family_of(case: Case, often: Callable[[int], bool]) -> type[Desk]:
    """A `desk` that misbehaves at the calls that `often` names (the number of the call of that method, from
    0)."""
    calls = {"n": 0}

    def now() -> bool:
        calls["n"] += 1
        return often(calls["n"] - 1)

    class Misbehaving(Desk):
        closed = 0

        def close(self) -> None:
            type(self).closed += 1

    right = getattr(Desk, "environment" if case.method in OF_ENVIRONMENT else case.method)

    def method(self, *args, **named):
        if case.method in OF_ENVIRONMENT:
            return wrong(case, now, right(self, *args, **named))
        return case.does(*args, **named) if now() else right(self, *args, **named)

    setattr(Misbehaving, right.__name__, method)
    return Misbehaving
