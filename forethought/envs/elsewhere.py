"""Calls that run beside the main thread: on a thread of an environment's own, or on one event loop.

Such a call cannot be interrupted where it stands, as one on the main thread can. When its time is up it is
told to end: Python code on a thread gets `TimeUp`, what waits on the loop is cancelled. What does not end
within `LEAVE` is given up: it stays behind, and whoever waits for it goes on.
"""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
from collections.abc import Callable, Generator
from inspect import isawaitable
from math import inf
from time import monotonic
from typing import Any

from forethought.core.places import runs_at, waits_at
from forethought.core.watchdog import TimeUp

LEAVE = 0.2  # seconds that a call has to end when it is told to


class Call:
    """One call, awaited by whoever drives the workflow: it yields itself until it is `done`. `value` and
    `error` are what came of it."""

    __slots__ = (
        "args",
        "at",
        "done",
        "due",
        "error",
        "function",
        "given_up",
        "heard",
        "name",
        "place",
        "renewed",
        "returned",
        "seconds",
        "started",
        "task",
        "told",
        "took",
        "value",
    )

    def __init__(
        self, place: Thread | Loop, name: str, function: Callable[..., Any], args: tuple, seconds: float
    ):
        self.place, self.name, self.function, self.args = place, name, function, args
        self.seconds = seconds
        self.at = ""  # file:line where it stood when its time was up, of a call on a loop
        self.value: Any = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self.done = self.returned = self.given_up = self.heard = self.renewed = False
        self.told = 0  # how often it was told to end
        self.started = self.took = 0.0
        self.due = inf

    def __await__(self) -> Generator[Call, None, Call]:
        while not self.done:
            yield self
        return self

    def begin(self) -> None:
        """Start the clock and the call; its time limit is counted from here."""
        self.started = monotonic()
        self.due = self.started + self.seconds if self.seconds else inf
        self.place.start(self)

    def run(self) -> Any:
        """The value of the function; what it raises goes on to whoever asked."""
        return self.function(*self.args)

    def late(self, now: float) -> bool:
        """Its time is up: it is told to end. True where it was told already, and is given up."""
        self.given_up = self.place.late(self, now)
        return self.given_up


class Thread:
    """A thread that makes one call after another, for one environment at a time."""

    def __init__(self, ended: queue.Queue[Call]):
        self._asked: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._ended, self._lock = ended, threading.Lock()
        self._now: Call | None = None
        self.busy = self.stuck = self._told = False
        self._thread = threading.Thread(target=self._work, name="environment", daemon=True)
        self._thread.start()

    def start(self, call: Call) -> None:
        """Make the call on this thread. An interrupt meant for an earlier call is withdrawn first."""
        self.busy = True
        if self._told:  # an exception that came too late for its call must not meet the next one
            _raise_in(self._thread, None)
            self._told = False
        self._asked.put(call)

    def late(self, call: Call, now: float) -> bool:
        """First interrupt the call, and wait a little; True on the second time, when the thread is given
        up."""
        call.told += 1
        if call.told > 1:
            self.stuck = True
            return True
        with self._lock:
            if self._now is call:
                _raise_in(self._thread)
                self._told = True
        call.due = now + LEAVE
        return False

    def stop(self) -> None:
        """End the thread after the calls it already has."""
        self._asked.put(None)

    def _work(self) -> None:
        call = None
        while True:
            try:
                call = self._asked.get()
                if call is None:
                    return
                with self._lock:
                    self._now = call
                try:
                    call.value = call.run()
                except BaseException as error:
                    call.error = error
                with self._lock:
                    self._now = None
            except TimeUp as up:  # the call was told to end when it just had
                self._now = None
                if call is None or call.returned:
                    continue
                call.error = up
            self.busy = False
            self._ended.put(call)


class Loop:
    """An event loop on a thread of its own, for all asynchronous environments."""

    def __init__(self, ended: queue.Queue[Call]):
        self._ended, self._lock = ended, threading.Lock()
        self.stuck, self._interrupted = False, -inf
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="environments", daemon=True)
        self._thread.start()

    def start(self, call: Call) -> None:
        """Make the call on the event loop."""
        self._loop.call_soon_threadsafe(self._begin, call)

    def late(self, call: Call, now: float) -> bool:
        """First the loop is asked to cancel the call. A loop that does not hear it is blocked by one of its
        calls, whichever it is, and that one is interrupted; if that does not help either, all are given
        up."""
        with self._lock:
            if self.stuck or call.heard:
                return True
            call.told += 1
            if call.told > 1:  # the loop does not hear: this is where it is blocked
                call.at = runs_at(self._thread) or call.at
            if call.told > 2:
                self._abandon()
                return True
            if call.told == 1:
                self._loop.call_soon_threadsafe(self._hear, call, now)
            elif now - self._interrupted > LEAVE:
                self._interrupted = now
                _raise_in(self._thread)
            call.due = now + LEAVE
        return False

    def stop(self) -> None:
        """End the loop's thread; a loop that is blocked is left behind."""
        if not self.stuck:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LEAVE)

    def _begin(self, call: Call) -> None:
        if self.stuck:  # what it was asked for before it was given up is not begun
            return
        call.task = self._loop.create_task(self._run(call))

    async def _run(self, call: Call) -> None:
        if self.stuck:
            return
        try:
            value = call.run()
            call.value = await value if isawaitable(value) else value
        except BaseException as error:
            call.error = error
        self._ended.put(call)

    def _hear(self, call: Call, told: float) -> None:
        """On the loop. What waited for another call to give the loop free has its time again, once."""
        with self._lock:
            now = monotonic()
            if now - told > LEAVE / 2 and not call.renewed:
                call.renewed, call.told, call.at, call.due = True, 0, "", now + call.seconds
                return
            call.heard = True
            call.due = now + LEAVE
        if call.task is not None:
            call.at = waits_at(call.task)
            call.task.cancel()

    def _abandon(self) -> None:
        self.stuck = True
        self._loop.set_exception_handler(lambda loop, context: None)
        self._loop.call_soon_threadsafe(self._loop.stop)
        _raise_in(self._thread)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            try:
                self._loop.run_forever()
                break
            # an interruption that came too late, or what a task of an environment's own raised, which is
            # told to whoever waits for that task
            except BaseException:
                continue
        self._loop.set_exception_handler(lambda loop, context: None)
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left and not self.stuck:
            self._loop.run_until_complete(asyncio.wait(left, timeout=LEAVE))
        self._loop.close()


def _raise_in(thread: threading.Thread, error: type[BaseException] | None = TimeUp) -> None:
    """Have it raised on that thread as soon as it runs Python code; None takes back what was not raised
    yet."""
    what = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), what)
