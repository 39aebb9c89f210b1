"""A limit in seconds on calls into code that is not ours: environments, task families, graders.

On the main thread a call is interrupted where it stands: SIGALRM raises `TimeUp` in it, which ends Python
loops, sleeps, and waits for sockets, locks and processes. Elsewhere (and on systems without the signal) each
call runs on a thread of its own: when the time is up, `TimeUp` is raised on that thread, which ends Python
loops; what blocks is left behind on it and ends with the process.

Two kinds of call cannot be ended from inside a process: C code that never returns to the interpreter, and
code that swallows `TimeUp` every time. When the latter has done so `PATIENCE` times on the main thread,
`last_resort` is called, which is to end the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import queue
import signal
import threading

# the public one makes an enum of what it finds, which takes longer than the call that is watched
from _signal import getsignal
from collections.abc import Callable, Iterator, Mapping
from math import inf
from time import monotonic, sleep
from typing import Any

PATIENCE = 5
AGAIN = 1.0  # seconds between two times that a call is told to end
LOOK = 0.002  # most seconds between two looks at answers
_ALARM = int(getattr(signal, "SIGALRM", 0))  # there is none on Windows, where nothing asks for it
LEAVE = 0.2  # seconds that a call on a thread of its own has to end when it is told to


class TimeUp(BaseException):
    """The call has taken too long. Not an `Exception`, so that an `except Exception` inside the call lets it
    through."""


class Watchdog:
    """One timer for a batch of calls. A call only notes when it must end, which costs one look at the clock
    and no system call; a timer that rings too early is set again."""

    def __init__(self, last_resort: Callable[[], object] = lambda: None):
        self.last_resort = last_resort
        self._handler = self._alarm
        self._watching = False
        self._rings = 0.0  # when the timer goes off; 0: it is not set
        self._due = 0.0  # when the running call must end; 0: none runs
        self._told = 0  # how often the running call was told to end
        self.turns = 0  # counted up by a driver before and after each turn of what it drives: odd within one
        self._seen = 0  # `turns` when the timer went off last
        self._turn = 0.0  # seconds of a turn without a call that may pass; 0: any
        self._worker: _Worker | None = None

    @contextlib.contextmanager
    def watch(self, turn: float = 0.0) -> Iterator[None]:
        """Calls inside share one timer. An alarm of somebody else is put off, and goes on afterwards. A turn
        of a driver (`turns`) that is still the same after `turn` seconds is told to end, as a call is."""
        if self._watching or not _can_interrupt():
            yield
            return
        started, before = monotonic(), signal.signal(signal.SIGALRM, self._handler)
        left, every = signal.setitimer(signal.ITIMER_REAL, 0)
        self._watching, self._rings, self._due, self._turn = True, 0.0, 0.0, turn
        try:
            if turn:
                self._set(turn)
            yield
        finally:
            self._watching, self._due = False, 0.0
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
            if left:
                signal.setitimer(signal.ITIMER_REAL, max(left - (monotonic() - started), 1e-3), every)

    def call(
        self, seconds: float, function: Callable[..., Any], args: tuple, named: Mapping[str, Any]
    ) -> Any:
        """`function(*args, **named)`; raises TimeUp after `seconds` (0: no limit)."""
        if not seconds:
            return function(*args, **named)
        if not self._watching:
            if not _can_interrupt():
                return self._elsewhere(seconds, function, args, dict(named))
            with self.watch():
                return self.call(seconds, function, args, named)
        outer, now = self._due, monotonic()
        due = min(now + seconds, outer) if outer else now + seconds
        try:
            self._due = due  # first: a timer that rings from here on is set again by its alarm, and not lost
            if not now < self._rings <= due:
                self._set(max(due - now, 1e-6))
            return function(*args, **named)
        except TimeUp:  # which may also come when the call has ended, before the next line
            self._due, self._told = outer, 0
            raise
        finally:
            self._due, self._told = outer, 0
            if getsignal(_ALARM) != self._handler:  # the call has used the alarm for itself
                signal.signal(signal.SIGALRM, self._handler)
                self._rings = 0.0

    def _set(self, seconds: float) -> None:
        """And again and again from then on: a signal that comes just before the process begins to wait (for a
        lock) does not end the waiting, since Python runs handlers between its instructions alone. The next
        one does."""
        self._rings = monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)

    def _alarm(self, number: int, frame: object) -> None:
        self._rings, now = 0.0, monotonic()
        if not self._due:  # between two calls; the next one sets the timer
            if not self._turn:
                signal.setitimer(signal.ITIMER_REAL, 0)
                return
            if not self.turns % 2 or self.turns != self._seen:
                self._seen, self._told = self.turns, 0
                self._set(self._turn)
                return
        elif now < self._due:
            self._set(self._due - now)
            return
        if self._told == PATIENCE:
            self.last_resort()
        self._told += 1
        self._set(AGAIN)
        raise TimeUp

    def _elsewhere(self, seconds: float, function: Callable[..., Any], args: tuple, named: dict) -> Any:
        worker = self._worker = self._worker or _Worker()
        try:
            return worker.call(seconds, function, args, named)
        except TimeUp:
            if worker.busy:  # left behind: the next call has a new thread
                self._worker = None
            raise


def next_of(answers: queue.SimpleQueue | queue.Queue, seconds: float) -> Any:
    """The next of the answers, within so many seconds (inf: however long it takes); else raises queue.Empty.

    `SimpleQueue.get` with a timeout may wait for ever where a signal, such as the timer's, interrupts it just
    before its end: what is left is then negative (CPython 3.11). So it is looked at again and again.
    """
    if seconds == inf:
        return answers.get()
    until, pause = monotonic() + seconds, 5e-5
    while True:
        try:
            return answers.get_nowait()
        except queue.Empty:
            if (left := until - monotonic()) <= 0:
                raise
        sleep(min(left, pause))
        pause = min(2 * pause, LOOK)


def _can_interrupt() -> bool:
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


class _Worker:
    """A thread that makes one call after another, until one of them does not end."""

    def __init__(self) -> None:
        self.busy = False
        self._asked: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="environment", daemon=True)
        self._thread.start()

    def call(self, seconds: float, function: Callable[..., Any], args: tuple, named: dict) -> Any:
        self.busy = True
        self._asked.put((function, args, named))
        try:
            value, error = next_of(self._answers, seconds)
        except queue.Empty:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(TimeUp)
            )
            with contextlib.suppress(queue.Empty):
                next_of(self._answers, LEAVE)
                self.busy = False
            raise TimeUp from None
        self.busy = False
        if error is not None:
            raise error
        return value

    def _work(self) -> None:
        with contextlib.suppress(TimeUp):  # told to end just when the call had ended by itself
            while True:
                function, args, named = self._asked.get()
                try:
                    answer: tuple[Any, BaseException | None] = function(*args, **named), None
                except BaseException as error:
                    answer = None, error
                self._answers.put(answer)
