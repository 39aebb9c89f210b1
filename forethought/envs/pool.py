"""Where episodes live: each is opened, reset, stepped and closed here, within the recipe's limits.

Environments whose methods are `async def` run on one event loop, at most `limits.at_once` calls at a time.
Others run on the main thread, one after another, where a call without an end is interrupted where it stands;
with `limits.threads` each has a thread of its own, so that they may wait (for a server, for a browser) at the
same time. Only the order of calls differs.

What breaks in an environment, or takes too long, is a `Fault` raised by the call that asked for it. It holds
nobody up, and the environment is closed all the same.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import cache
from inspect import iscoroutinefunction
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any

from forethought.core.types import Outcome, Task
from forethought.core.watchdog import TimeUp, next_of
from forethought.envs import values
from forethought.envs.base import Environment, Observation
from forethought.envs.elsewhere import Call, Loop, Thread
from forethought.envs.guard import Fault, Guard
from forethought.envs.images import Images
from forethought.recipe.schema import LimitSpec

METHODS = frozenset(("reset", "step", "close"))
LEAST = 1e-3  # seconds of a call where an episode's are over


class Pool:
    """The episodes of one task family. `with pool:` closes, at its end, whatever is still open.

    `opened` and `closed` count environments, `left` calls that were given up and have not ended since.
    """

    def __init__(self, guard: Guard):
        self.guard = guard
        self.open: dict[Episode, None] = {}  # in the order in which they were opened
        self.opened = self.closed = self.left = 0
        self.images = Images()
        # no SimpleQueue: where a signal comes in its wait and the time is over then, it waits without end
        self._ended: queue.Queue[Call] = queue.Queue()
        self._waiting: deque[Call] = deque()
        self._running: dict[Call, None] = {}
        self._threads: list[Thread] = []  # without an environment
        self._loop: Loop | None = None

    def episode(self, make: Callable[[], Environment], task: Task, seed: int) -> Episode:
        """An episode that is not begun yet: `make` is called by its `reset`."""
        return Episode(self, make, task, seed)

    def wait(self, least: int | None = None) -> None:
        """Until `least` of the calls that were asked for have ended (None: all of them; 0: look, and do not
        wait). Whoever waits for one may then go on."""
        ended = 0
        self._begin()
        while self._running or not self._ended.empty():
            ended += self._give_up(monotonic())
            enough = not self._running or (least is not None and ended >= least)
            due = min((call.due for call in self._running), default=-inf)
            ended += self._next(0.0 if enough else due - monotonic())
            self._begin()
            if enough and self._ended.empty():
                return

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting = deque(call for call in self._waiting if call.name == "close")
        for call in self._running:  # nobody waits for them any more
            if call.name != "close":
                call.due = -inf
        if self._running or self._waiting or self.open:
            self.wait()
            self.drive([episode.close() for episode in list(self.open)])

    def drive(self, coroutines: Iterable[Coroutine]) -> None:
        """Run coroutines that wait for nothing but this pool to their ends, together. A Fault ends its own
        coroutine alone."""
        going = list(coroutines)
        while going := [coroutine for coroutine in going if _goes_on(coroutine)]:
            self.wait(1)

    def stop(self) -> None:
        """No episode will come any more: the threads and the loop end."""
        for thread in self._threads:
            thread.stop()
        if self._loop is not None:
            self._loop.stop()
        self._threads, self._loop = [], None

    # ---- for the episodes

    def place(self, environment: Environment) -> Thread | Loop | None:
        """Where the calls of an environment run; None: on the main thread."""
        if _is_async(environment):
            if self._loop is None or self._loop.stuck:
                self._loop = Loop(self._ended)
            return self._loop
        limits = self.guard.limits
        if not limits.threads or limits.at_once == 1:
            return None
        return self._threads.pop() if self._threads else Thread(self._ended)

    def ask(self, call: Call) -> Call:
        """Queue a call; it begins as soon as the limit of calls at once allows."""
        self._waiting.append(call)
        self._begin()
        return call

    def give_back(self, place: Thread | Loop | None) -> None:
        """Keep a free thread for the next episode; one that still works is told to end."""
        self.closed += 1
        if isinstance(place, Thread):
            if place.busy or place.stuck:
                place.stop()
            else:
                self._threads.append(place)

    # ---- calls beside the main thread

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self.guard.limits.at_once:
            call = self._waiting.popleft()
            self._running[call] = None
            call.begin()

    def _give_up(self, now: float) -> int:
        """Tell the calls whose time is up; how many of them were told before, and are not waited for."""
        late = [call for call in self._running if call.due <= now]
        given_up = [call for call in late if call.late(now)]
        for call in given_up:
            blocked = isinstance(call.place, Loop) and call.place.stuck
            where = "its event loop is blocked" if blocked else "it is left behind"
            call.error = TimeUp(f"no end after {call.seconds:g} s ({where})")
            self._end(call)
        self.left += len(given_up)
        return len(given_up)

    def _next(self, seconds: float) -> int:
        """The next call that ends, within so many seconds; how many did."""
        try:
            call = next_of(self._ended, seconds)
        except queue.Empty:
            return 0
        if call.returned:
            return 0
        call.returned = True
        if call.given_up:
            self.left -= 1
            return 0
        self._end(call)
        return 1

    def _end(self, call: Call) -> None:
        del self._running[call]
        if call.told and call.error is not None and not isinstance(call.error, TimeUp):
            call.error = TimeUp().with_traceback(call.error.__traceback__)
        call.done, call.took = True, monotonic() - call.started


class Episode:
    """One execution in an environment: `reset` once, `step` until it is done, `close` at any time. All raise
    Fault, and may be awaited by a driver that gives the `Call` they yield to `Pool.wait`; where the
    environment runs on the main thread they yield nothing."""

    __slots__ = ("_pool", "_make", "_task", "_seed", "_environment", "_place", "_left", "over")

    def __init__(self, pool: Pool, make: Callable[[], Environment], task: Task, seed: int):
        self._pool, self._make, self._task, self._seed = pool, make, task, seed
        self._environment: Environment | None = None
        self._place: Thread | Loop | None = None
        self._left = pool.guard.limits.episode_seconds
        self.over = False  # done, closed, or broken

    async def reset(self) -> Observation:
        """Make the environment and begin: what it shows first."""
        pool = self._pool
        if self.over or self._environment is not None:
            raise RuntimeError("an episode is used once")
        self._environment = environment = self._make()
        self._place = pool.place(environment)
        pool.open[self] = None
        pool.opened += 1
        if not hasattr(environment, "reset"):
            return values.NOTHING
        return await self._last("reset", (self._task, self._seed), values.observation)

    async def step(self, action: str) -> Outcome:
        """What the environment answers. Where it is done, or broke, it is closed at once."""
        if self._place is None:
            return self.step_here(action)
        if self.over:
            raise RuntimeError("the episode is over")
        answer = await self._last("step", (action,), values.outcome)
        if answer.done:
            await self.close()
        return answer

    async def close(self) -> None:
        """Once; again it does nothing."""
        environment: Any = self._environment
        if self._place is None:
            self.close_here()
        elif self._ends():
            try:
                if self._closes():
                    if self._place.stuck:  # by a call that will not end
                        self._place.stop()
                        self._place = self._pool.place(environment)
                    await self._call("close", (), values.nothing)
            finally:
                self._pool.give_back(self._place)

    # ---- on the main thread, where nobody waits: no coroutine, which takes as long as a small step

    @property
    def here(self) -> bool:
        """Whether the calls of the environment run on the main thread, once `reset` has made it."""
        return self._place is None

    def step_here(self, action: str) -> Outcome:
        """`step`, of an environment that is `here`."""
        if self.over:
            raise RuntimeError("the episode is over")
        try:
            answer = self._here("step", (action,), values.outcome)
        except Fault:
            with suppress(Fault):
                self.close_here()
            raise
        if answer.done:
            self.close_here()
        return answer

    def close_here(self) -> None:
        """`close`, of an environment that is `here`."""
        if self._ends():
            try:
                if self._closes():
                    self._here("close", (), values.nothing)
            finally:
                self._pool.give_back(None)

    # ---- how it is done

    def _ends(self) -> bool:
        """It is over; False where it was not open."""
        self.over, still = True, self in self._pool.open
        if still:
            del self._pool.open[self]
        return still

    def _closes(self) -> bool:
        """Whether the environment has a `close` of its own."""
        own = getattr(type(self._environment), "close", None) is not Environment.close
        return own and bool(getattr(self._environment, "close", None))

    def _here(self, name: str, args: tuple, check: Callable[[Any], Any]) -> Any:
        guard, method = self._pool.guard, getattr(self._environment, name)
        limits = guard.limits
        if not limits.episode_seconds or name == "close":
            return guard.call("environment", name, method, args, None, check, limits.step_seconds)
        seconds, left, started = limits.step_seconds, self._left, monotonic()
        try:
            if not 0.0 < seconds < left:
                seconds = max(min(seconds or left, left), LEAST)
            return guard.call("environment", name, method, args, None, check, seconds)
        finally:
            self._left = left - (monotonic() - started)

    async def _last(self, name: str, args: tuple, check: Callable[[Any], Any]) -> Any:
        """A call after whose fault nothing follows."""
        try:
            return await self._call(name, args, check)
        except Fault:
            with suppress(Fault):
                await self.close()
            raise

    async def _call(self, name: str, args: tuple, check: Callable[[Any], Any]) -> Any:
        guard, place = self._pool.guard, self._place
        if place is None:
            return self._here(name, args, check)
        seconds = guard.limits.step_seconds
        if guard.limits.episode_seconds and name != "close":
            seconds = max(min(seconds or self._left, self._left), LEAST)
        guard.ask("environment", name)
        call = Call(place, name, getattr(self._environment, name), args, seconds)
        if place.stuck:
            call.error = TimeUp("its event loop is blocked by another episode")
        else:
            await self._pool.ask(call)
        self._left -= call.took
        if call.error is not None:
            raise guard.broke("environment", name, call.error, seconds, call.function, call.at)
        return guard.call("environment", name, check, (call.value,), seconds=0.0, of=call.function)


def _is_async(environment: Environment) -> bool:
    kind = type(environment)
    # a class is looked at once; an environment with methods of its own, each time
    if issubclass(kind, Environment) and METHODS.isdisjoint(vars(environment)):
        return _has_coroutines(kind)  # type: ignore[arg-type]
    return _has_coroutines.__wrapped__(environment)


@cache
def _has_coroutines(environment: Any) -> bool:
    return any(iscoroutinefunction(getattr(environment, name, None)) for name in METHODS)


def _goes_on(coroutine: Coroutine) -> bool:
    try:
        coroutine.send(None)
    except (StopIteration, Fault):
        return False
    return True


def play(
    environment: Environment,
    task: Task,
    actions: Iterable[str],
    seed: int = 0,
    limits: LimitSpec | None = None,
) -> list[Observation | Outcome]:
    """Try an environment without a model: what it shows first, and its answer to each action until it is
    done. Raises Fault where it breaks; it is closed in any case."""
    pool = Pool(Guard(type(environment).__name__, limits or LimitSpec()))
    seen: list[Observation | Outcome] = []
    faults: list[Fault] = []

    async def episode() -> None:
        try:
            pool.guard.call("environment", "environment", values.environment, (environment,))
            found = pool.episode(lambda: environment, task, seed)
            seen.append(await found.reset())
            for action in actions:
                if found.over:
                    break
                seen.append(await found.step(action))
            await found.close()
        except Fault as fault:
            faults.append(fault)

    with pool:
        pool.drive([episode()])
    pool.stop()
    if faults:
        raise faults[0]
    return seen
