"""The driver of workflows: it runs their coroutines, and brings their requests to the sampler.

lockstep  every coroutine runs until all of them wait; then one call of the sampler answers all. No event loop
          runs, so an environment may have one of its own.
free      a request leaves when it is asked, on an event loop: for samplers and environments that answer in
          their own time (servers, browsers), and for workflows that await something else.

Both give the same trees where the sampler gives the same answers: nothing is drawn by the order of answers.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import coroutine as by_generator
from typing import Any

from forethought.core.errors import ForethoughtError, UserError
from forethought.core.types import Completion, Request
from forethought.core.watchdog import Watchdog
from forethought.envs.elsewhere import Call
from forethought.envs.guard import Fault
from forethought.envs.pool import Pool

Sample = Callable[[Sequence[Request]], Any]  # -> list[list[Completion]], or a coroutine that gives it
Watch = Callable[[], AbstractContextManager[None]]
Lost = Callable[[int, BaseException], None]
"""(number of the workflow, what it raised)"""

LOOK = 0.002  # seconds between two looks at the pool of episodes, in free mode
GROUPS = 10_000  # most times that one coroutine waits for others
LEFT: list[Any] = []  # coroutines that ignore their end: Python would close them again, and wait
DRIVER: ContextVar[Any] = ContextVar("driver of the workflows")
WORK: ContextVar[_Work] = ContextVar("the coroutine in free mode, for it and for tasks that it starts itself")


async def together(*coroutines: Coroutine | Iterable[Coroutine]) -> list[Any]:
    """Runs coroutines side by side until all have ended; their results, in order. What one of them raises
    comes up when the others have ended."""
    flat: list[Coroutine] = []
    for some in coroutines:
        if isinstance(some, Coroutine):
            flat.append(some)
        else:
            flat += some
    driver = DRIVER.get(None)
    if driver is None:  # the coroutine has outlived its driver
        await _Wait("never")
    return await driver.together(flat) if flat else []


class Foreign(ForethoughtError):
    """A workflow awaits what only the free mode has."""

    def __init__(self) -> None:
        super().__init__(
            "awaits what only the free mode has; in a run a workflow awaits its trajectory (fork, generate, "
            "step, begin, finish) and together(...)"
        )


class NoEnd(ForethoughtError):
    """A coroutine goes on for ever and asks for nothing."""


class _Wait:
    """What a coroutine in lockstep yields: it goes on with what the driver sends."""

    __slots__ = ("what", "value")

    def __init__(self, what: str, value: Any = None):
        self.what, self.value = what, value

    def __await__(self) -> Generator[_Wait, Any, Any]:
        return (yield self)


@by_generator
def _sampled(request: Request) -> Generator[Request, list[Completion], list[Completion]]:
    """What a coroutine in lockstep yields most often is the request itself."""
    return (yield request)


class _Fiber:
    """A coroutine at work. `group`: those that run together with it."""

    __slots__ = ("coroutine", "group", "number", "groups")

    def __init__(self, coroutine: Coroutine, group: _Group | None, number: int):
        self.coroutine, self.group, self.number = coroutine, group, number
        self.groups = 0  # that it has waited for


class _Group:
    __slots__ = ("parent", "left", "results", "error")

    def __init__(self, parent: _Fiber, size: int):
        self.parent, self.left = parent, size
        self.error: BaseException | None = None
        self.results: list[Any] = [None] * size


class Lockstep:
    """`pool`: where the episodes live. `watch`: a context in which everything but the sampler runs. `lost`
    hears of workflows that raised."""

    def __init__(self, sample: Sample, pool: Pool, watch: Watch, lost: Lost):
        self.sample, self.pool, self.watch, self.lost = sample, pool, watch, lost
        self._calling: list[tuple[Call, _Fiber]] = []
        self._ready: deque[tuple[_Fiber, Any, BaseException | None]] = deque()
        self._asked: list[tuple[Request, _Fiber]] = []
        self._alive: dict[int, _Fiber] = {}
        self._watchdog = pool.guard.watchdog

    # ---- for trajectories

    def ask(self, request: Request) -> Awaitable[list[Completion]]:
        """Wait for `n` completions. They come when every workflow waits."""
        return _sampled(request)

    def together(self, coroutines: Sequence[Coroutine]) -> Awaitable[list[Any]]:
        """Wait for several coroutines; results in their order."""
        return _Wait("together", coroutines)

    def never(self) -> Awaitable[None]:
        """A coroutine that awaits this is never resumed."""
        return _Wait("never")

    def stop(self, error: UserError) -> Awaitable[None]:
        """Ends everything with the user's mistake."""
        return _Wait("stop", error)

    def call(self, coroutine: Coroutine) -> Coroutine:
        """What a call of the pool of episodes gives."""
        return coroutine

    # ---- the loop

    def run(self, workflows: Sequence[Coroutine]) -> None:
        """Run all workflows to their ends, with one call of `sample` each time that all of them wait."""
        token = DRIVER.set(self)
        try:
            for number, coroutine in enumerate(workflows):
                self._begin(coroutine, None, number)
            while True:
                with self.watch():
                    self._go_on_all()
                if not self._asked:
                    return
                asked, self._asked = self._asked, []
                answers = self.sample([request for request, _ in asked])
                for (_, fiber), outs in zip(asked, answers, strict=True):
                    self._ready.append((fiber, outs, None))
        finally:
            for fiber in list(self._alive.values()):
                try:
                    fiber.coroutine.close()
                except KeyboardInterrupt:
                    raise
                except BaseException:  # it ignores its end
                    LEFT.append(fiber.coroutine)
            DRIVER.reset(token)

    def _go_on_all(self) -> None:
        """Until all wait for the sampler. Those that wait for an episode go on as soon as it answers."""
        while self._ready or self._calling:
            while self._ready:
                self._go_on(*self._ready.popleft())
            if self._calling:
                self.pool.wait(1)
                self._ready.extend((fiber, None, None) for call, fiber in self._calling if call.done)
                self._calling = [(call, fiber) for call, fiber in self._calling if not call.done]

    def _begin(self, coroutine: Coroutine, group: _Group | None, number: int) -> None:
        fiber = _Fiber(coroutine, group, number)
        self._alive[id(fiber)] = fiber
        self._ready.append((fiber, None, None))

    def _go_on(self, fiber: _Fiber, value: Any, error: BaseException | None) -> None:
        self._watchdog.turns += 1
        try:
            wait = fiber.coroutine.throw(error) if error else fiber.coroutine.send(value)
        except StopIteration as end:
            self._end(fiber, end.value, None)
            return
        except KeyboardInterrupt:
            raise
        except UserError as mistake:
            if not isinstance(mistake, Fault):
                raise
            self._end(fiber, None, mistake)
            return
        except BaseException as broken:
            loopless = isinstance(broken, RuntimeError) and str(broken) == "no running event loop"
            self._end(fiber, None, Foreign().with_traceback(broken.__traceback__) if loopless else broken)
            return
        finally:
            self._watchdog.turns += 1
        if isinstance(wait, Request):
            self._asked.append((wait, fiber))
        elif isinstance(wait, Call):
            self._calling.append((wait, fiber))
        elif not isinstance(wait, _Wait):
            self._ready.append((fiber, None, Foreign()))
        elif wait.what == "together":
            fiber.groups += 1
            if fiber.groups > GROUPS:
                for coroutine in wait.value:
                    coroutine.close()
                self._end(fiber, None, NoEnd(f"waited {GROUPS:,} times for other coroutines"))
                LEFT.append(fiber.coroutine)
                return
            group = _Group(fiber, len(wait.value))
            for i, coroutine in enumerate(wait.value):
                self._begin(coroutine, group, i)
        elif wait.what == "stop":
            raise wait.value

    def _end(self, fiber: _Fiber, value: Any, error: BaseException | None) -> None:
        del self._alive[id(fiber)]
        if not (group := fiber.group):
            if error:
                self.lost(fiber.number, error)
            return
        group.results[fiber.number] = value
        group.error = group.error or error
        group.left -= 1
        if not group.left:
            self._ready.append((group.parent, group.results, group.error))


@by_generator
def _in_turns(watchdog: Watchdog, coroutine: Coroutine) -> Generator[Any, Any, Any]:
    """What the coroutine gives; the watchdog knows when it runs."""
    value, error = None, None
    while True:
        watchdog.turns += 1
        try:
            wait = coroutine.throw(error) if error else coroutine.send(value)
        except StopIteration as end:
            return end.value
        finally:
            watchdog.turns += 1
        value, error = None, None
        try:
            value = yield wait
        except BaseException as thrown:
            error = thrown


class _Work:
    """A coroutine in free mode. `ended` hears once how it ended. `groups`: as those of a fiber."""

    __slots__ = ("number", "ended", "over", "groups")

    def __init__(self, number: int, ended: Callable[[int, Any, BaseException | None], None]):
        self.number, self.ended = number, ended
        self.over, self.groups = False, 0


class Free:
    """The same on an event loop."""

    def __init__(self, sample: Sample, pool: Pool, watch: Watch, lost: Lost):
        self.sample, self.pool, self.watch, self.lost = sample, pool, watch, lost
        self._watchdog = pool.guard.watchdog
        self._busy = 0  # coroutines that have not ended and do not wait for ever
        self._error: UserError | None = None
        self._ending = False  # all coroutines are cancelled
        self._tasks: set[asyncio.Task] = set()  # the loop itself forgets those that wait

    # ---- for trajectories

    async def ask(self, request: Request) -> list[Completion]:
        """Ask the sampler at once, and wait for its completions."""
        within = self._watchdog.turns % 2  # not of a task that the workflow has started itself
        self._watchdog.turns += within  # however long it takes, it is not the workflow's time
        try:
            answers = self.sample([request])
        finally:
            self._watchdog.turns += within
        return (await answers if inspect.isawaitable(answers) else answers)[0]

    async def together(self, coroutines: Sequence[Coroutine]) -> list[Any]:
        """Run coroutines concurrently; results in their order, the first error after all have ended. Who
        waits for others without end is not resumed."""
        if work := WORK.get(None):
            work.groups += 1
            if work.groups > GROUPS:
                for coroutine in coroutines:
                    coroutine.close()
                self._finished(work, None, NoEnd(f"waited {GROUPS:,} times for other coroutines"))
                await self._loop.create_future()
        results: list[Any] = [None] * len(coroutines)
        errors: list[BaseException] = []
        done, left = asyncio.get_running_loop().create_future(), len(coroutines)

        def ended(i: int, value: Any, error: BaseException | None) -> None:
            nonlocal left
            results[i], left = value, left - 1
            errors.extend([error] if error else [])
            if not left:
                self._busy += 1  # the one that waits
                done.set_result(None)

        for i, coroutine in enumerate(coroutines):
            self._begin(coroutine, i, ended)
        self._rest()
        await done
        if errors:
            raise errors[0]
        return results

    async def never(self) -> None:
        """Never returns: the tree is over, the coroutine is cancelled with the loop."""
        self._rest()
        await self._loop.create_future()

    async def stop(self, error: UserError) -> None:
        """End the whole run with a user's error; never returns."""
        self._error = self._error or error
        self._idle.set()
        await self._loop.create_future()

    async def call(self, coroutine: Coroutine) -> Any:
        """What a call of the pool of episodes gives. The pool is looked at again and again: its calls end on
        threads of their own."""
        while True:
            try:
                call = coroutine.send(None)
            except StopIteration as end:
                return end.value
            while not call.done:
                self.pool.wait(0)
                if not call.done:
                    await asyncio.sleep(LOOK)

    # ---- the loop

    def run(self, workflows: Sequence[Coroutine]) -> None:
        """Run all workflows to their ends on an event loop of its own."""
        # kept: a workflow that outlives it may still ask
        loop = self._loop = asyncio.new_event_loop()
        try:
            with self.watch():
                loop.run_until_complete(self._run(workflows))
        finally:
            self._ending, left = True, asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            for _ in range(3):  # time to close what they hold; a task that ignores its end is left behind
                loop.run_until_complete(asyncio.sleep(0))
            for task in left:
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # no warning for them
            LEFT.extend(task for task in left if not task.done())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _run(self, workflows: Sequence[Coroutine]) -> None:
        self._idle = asyncio.Event()
        token = DRIVER.set(self)
        try:
            for number, coroutine in enumerate(workflows):
                self._begin(coroutine, number, self._over)
            if workflows:
                await self._idle.wait()
        finally:
            DRIVER.reset(token)
        if self._error:
            raise self._error

    def _begin(
        self, coroutine: Coroutine, number: int, ended: Callable[[int, Any, BaseException | None], None]
    ) -> None:
        self._busy += 1
        work = _Work(number, ended)

        async def go() -> None:
            WORK.set(work)
            value: Any = None
            error: BaseException | None = None
            try:
                value = await _in_turns(self._watchdog, coroutine)
            except KeyboardInterrupt:
                raise
            except UserError as mistake:
                error = mistake
                if not isinstance(mistake, Fault):
                    self._error = self._error or mistake
                    self._idle.set()
            except BaseException as broken:
                if self._ending:
                    raise
                error = broken  # its own, CancelledError and GeneratorExit too
            self._finished(work, value, error)

        self._tasks.add(task := asyncio.get_running_loop().create_task(go()))
        task.add_done_callback(self._tasks.discard)

    def _finished(self, work: _Work, value: Any, error: BaseException | None) -> None:
        if not work.over:
            work.over = True
            work.ended(work.number, value, error)
            self._rest()

    def _over(self, number: int, value: Any, error: BaseException | None) -> None:
        if error:
            self.lost(number, error)

    def _rest(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()
