"""Graders: (gold answer, model's answer) -> Verdict. One row each in GRADERS.

    exact         numbers and text in one spelling (math_answers.canonical); needs nothing
    math-verify   also what needs algebra, by Hugging Face's math-verify in a process of its own (the extra `math`)
    auto          math-verify where it is installed, else exact

math-verify limits its own time by signals, which only the main thread of a process gets, and some of what it does (a power of
powers) hears no signal. So it runs in a worker process that the parent ends when an answer takes too long: the answer counts as not
equal, and the next one gets a new worker. What was compared once is not compared again.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path

from forethought.errors import ForethoughtError, UserError
from forethought.tasks.math_answers import LONGEST, same
from forethought.types import Verdict

Grader = Callable[[str, str], Verdict]
WORKER = Path(__file__).with_name("math_worker.py")
SECONDS = 5.0  # most time for one comparison
START_SECONDS = 120.0  # most time until a worker is ready: importing sympy on a busy machine
BYTES = 4 << 30  # most memory of the worker
CACHED = 1 << 16  # pairs


def exact(gold: str, answer: str) -> Verdict:
    if same(gold, answer):
        return Verdict(score=1.0)
    return Verdict(score=0.0, reason=f"expected {_short(gold)}, found {_short(answer)}")


class MathVerify:
    """The grader "math-verify", safe to call from any thread: its calls wait for each other.

    `seconds` limits one comparison. `command` is the worker's (see math_worker.py for what it reads and writes). UserError where
    math-verify is not installed; ForethoughtError where the worker does not start.
    """

    def __init__(self, seconds: float = SECONDS, command: Sequence[str] = ()):
        if not command and not installed():
            raise UserError('the grader "math-verify" needs math-verify: pip install "forethought[math]", or take grader = "exact"')
        self.seconds = seconds
        # -P: the worker's folder, which holds a module `math`, stays off its path
        self._command = list(command) or [sys.executable, "-P", str(WORKER), str(2 * seconds + 1), str(BYTES)]
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._remembered = lru_cache(maxsize=CACHED)(self._compare)

    def __call__(self, gold: str, answer: str) -> Verdict:
        if same(gold, answer):
            return Verdict(score=1.0)
        if len(answer) > LONGEST:
            return Verdict(score=0.0, reason=f"an answer of {len(answer)} characters; at most {LONGEST} are read")
        return self._remembered(gold, answer)

    def close(self) -> None:
        """End the worker; the next comparison starts another. (It also ends with this process.)"""
        with self._lock:
            self._end()

    def _compare(self, gold: str, answer: str) -> Verdict:
        with self._lock:
            for _ in range(2):  # a worker can die of something else than the answer; one that dies twice died of it
                self._worker = self._worker or _Worker(self._command)
                try:
                    said = self._worker.ask([gold, answer], self.seconds)
                except TimeoutError:
                    self._end()
                    return Verdict(score=0.0, reason=f"timed out: comparing with {_short(answer)} took more than {self.seconds:g} s")
                except EOFError:
                    self._end()
                    continue
                reason = said["reason"] or f"expected {_short(gold)}, found {_short(answer)}"
                return Verdict(score=1.0) if said["same"] else Verdict(score=0.0, reason=reason)
        return Verdict(score=0.0, reason=f"comparing with {_short(answer)} ended its process twice")

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()


class _Worker:
    """One process and a thread that reads its lines: a pipe has no time limit of its own on every system, a queue has."""

    def __init__(self, command: Sequence[str]):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                         text=True, encoding="utf-8", start_new_session=True)  # Ctrl-C is the parent's to handle
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._next(START_SECONDS)
        except (TimeoutError, EOFError) as error:
            self.end()
            raise ForethoughtError(f"the process that compares answers did not start; by hand it says why: {' '.join(command)}") from error

    def ask(self, pair: list[str], seconds: float) -> dict:
        """TimeoutError after `seconds`; EOFError where the process has ended."""
        try:
            self._process.stdin.write(json.dumps(pair) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise EOFError from error
        return json.loads(self._next(seconds))

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()

    def _listen(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _next(self, seconds: float) -> str:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if not line:
            raise EOFError
        return line


def installed() -> bool:
    return importlib.util.find_spec("math_verify") is not None


@cache
def shared() -> MathVerify:
    """One worker for every task family of this process."""
    return MathVerify()


GRADERS: dict[str, Callable[[], Grader]] = {
    "auto": lambda: shared() if installed() else exact,
    "exact": lambda: exact,
    "math-verify": shared,
}


def _short(answer: str) -> str:
    return repr(answer if len(answer) <= 60 else answer[:57] + "...")
