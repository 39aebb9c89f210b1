"""Where episodes live: limits, what breaks, and that nothing stays open. No test looks at a clock: what runs
at the same time is counted, and what would wait for ever is ended by a limit."""

from __future__ import annotations

import asyncio
import gc
import signal
import sqlite3
import sys
import threading
import time
from dataclasses import replace

import pytest

from forethought.core.types import Outcome, Task
from forethought.envs import elsewhere
from forethought.envs.base import Environment, Observation
from forethought.envs.guard import Fault, Guard
from forethought.envs.pool import Pool, play
from forethought.recipe.schema import LimitSpec

TASK = Task(id="t", taskset="made", level=1, context="", prompt="GOAL")
SHORT = 0.03  # seconds, of what hangs
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 8


def pool_of(**limits) -> Pool:
    return Pool(Guard("Made", LimitSpec(**({"step_seconds": 20.0} | limits))))


def limit(pool, seconds: float) -> None:
    """From now on."""
    pool.guard.limits = replace(pool.guard.limits, step_seconds=seconds)


WAYS = {"main": {}, "threads": {"threads": True, "at_once": 4}}


@pytest.fixture(params=["main", "threads"])
def pool(request):
    found = pool_of(**WAYS[request.param])
    yield found
    found.stop()


def answer(pool, coroutine):
    """What a coroutine of an episode gives, or the Fault that it raises."""
    found = []

    async def asked():
        try:
            found.append(await coroutine)
        except Fault as fault:
            found.append(fault)

    pool.drive([asked()])
    return found[0]


def answers(pool, coroutines) -> list:
    found = {}

    async def asked(i, coroutine):
        try:
            found[i] = await coroutine
        except Fault as fault:
            found[i] = fault

    pool.drive([asked(i, coroutine) for i, coroutine in enumerate(coroutines)])
    return [found[i] for i in sorted(found)]


def begun(pool, environment, task=TASK, seed=0):
    episode = pool.episode(lambda: environment, task, seed)
    return episode, answer(pool, episode.reset())


class Counting(Environment):
    """Counts what is called; done after `turns` steps."""

    def __init__(self, turns=2):
        self.turns, self.calls, self.threads = turns, [], set()

    def _note(self, *what):
        self.calls.append(what)
        self.threads.add(threading.get_ident())

    def reset(self, task, seed):
        self._note("reset", task.id, seed)
        return "a page"

    def step(self, action):
        self._note("step", action)
        return Outcome(done=len(self.calls) > self.turns, success=True, observation="next")

    def close(self):
        self._note("close")


class AsyncCounting(Counting):
    async def reset(self, task, seed):
        await asyncio.sleep(0)
        return super().reset(task, seed)

    async def step(self, action):
        await asyncio.sleep(0)
        return super().step(action)

    async def close(self):
        await asyncio.sleep(0)
        super().close()


@pytest.mark.parametrize("kind", [Counting, AsyncCounting])
def test_an_episode_is_reset_stepped_and_closed_once(pool, kind):
    made = kind()
    episode, first = begun(pool, made, seed=7)
    assert first == Observation(text="a page")
    assert not answer(pool, episode.step("a")).done
    assert answer(pool, episode.step("b")) == Outcome(done=True, success=True, observation="next")
    for _ in range(2):
        answer(pool, episode.close())
    assert made.calls == [("reset", "t", 7), ("step", "a"), ("step", "b"), ("close",)]
    assert len(made.threads) == 1  # a database or a browser may belong to its thread
    assert (threading.get_ident() in made.threads) == (kind is Counting and not pool.guard.limits.threads)
    assert (pool.opened, pool.closed, len(pool.open), pool.left) == (1, 1, 0, 0)
    with pytest.raises(RuntimeError, match="over"):
        pool.drive([episode.step("c")])
    with pytest.raises(RuntimeError, match="used once"):
        pool.drive([episode.reset()])


def test_a_class_with_a_step_alone_is_an_environment(pool):
    class Echo:
        def step(self, action):
            return Outcome(done=True, success=action == "hello")

    episode, first = begun(pool, Echo())
    assert first == Observation() and answer(pool, episode.step("hello")).success
    assert (pool.opened, pool.closed) == (1, 1)


def test_a_thread_that_belongs_to_an_environment_makes_all_of_its_calls():
    class Database(Environment):
        def reset(self, task, seed):
            self.rows = sqlite3.connect(":memory:")
            self.rows.execute("create table clicks (name)")

        def step(self, action):
            self.rows.execute("insert into clicks values (?)", (action,))
            [(n,)] = self.rows.execute("select count(*) from clicks")
            return Outcome(done=n == 3, success=True)

        def close(self):
            self.rows.close()

    pool = pool_of(threads=True, at_once=3)
    with pool:
        episodes = [begun(pool, Database())[0] for _ in range(8)]
        for turn in range(3):
            outcomes = answers(pool, [episode.step("x") for episode in episodes])
            assert [o.done for o in outcomes] == [turn == 2] * 8
    assert pool.guard.total == 0 and pool.closed == 8
    pool.stop()


class Meeting:
    """Counts who is inside at the same time; nobody leaves before `together` have come, or will not."""

    def __init__(self, together):
        self.together, self.inside, self.most, self.lock = together, 0, 0, threading.Lock()
        self.full = threading.Event()

    def enter(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == self.together:
                self.full.set()

    def leave(self):
        with self.lock:
            self.inside -= 1


@pytest.mark.parametrize("limits", [{"threads": True, "at_once": 16}, {"threads": True, "at_once": 3}])
def test_environments_that_wait_do_so_at_the_same_time(limits):
    meeting = Meeting(limits["at_once"])

    class Server(Environment):
        def step(self, action):
            meeting.enter()
            met = meeting.full.wait(10)  # nobody would ever come, were they asked one after the other
            meeting.leave()
            return Outcome(done=True, success=met)

    pool = pool_of(**limits)
    with pool:
        episodes = [begun(pool, Server())[0] for _ in range(64)]
        outcomes = answers(pool, [episode.step("x") for episode in episodes])
    assert all(outcome.success for outcome in outcomes) and meeting.most == limits["at_once"]
    assert (pool.opened, pool.closed) == (64, 64)
    pool.stop()


@pytest.mark.parametrize("at_once", [1, 5, 16])
def test_asynchronous_environments_share_one_loop(at_once):
    meeting, loops = Meeting(at_once), set()

    class Page(Environment):
        async def step(self, action):
            loops.add(id(asyncio.get_running_loop()))
            meeting.enter()
            while not meeting.full.is_set():
                await asyncio.sleep(0.001)
            meeting.leave()
            return Outcome(done=True, success=True)

    pool = pool_of(at_once=at_once)
    with pool:
        episodes = [begun(pool, Page())[0] for _ in range(64)]
        outcomes = answers(pool, [episode.step("x") for episode in episodes])
    assert all(outcome.success for outcome in outcomes) and meeting.most == at_once and len(loops) == 1
    pool.stop()


def test_one_at_a_time_runs_on_the_main_thread():
    made = Counting()
    pool = pool_of(threads=True, at_once=1)
    begun(pool, made)
    assert made.threads == {threading.get_ident()}


# ---- what breaks


class Own(BaseException):
    pass


def raising(error):
    def method(self, *args):
        raise error

    return method


def giving(value):
    return lambda self, *args: value


def recursing(self, *args):
    return recursing(self, *args)


def looping(self, *args):
    while True:
        pass


def sleeping(self, *args):
    time.sleep(60 if threading.current_thread() is threading.main_thread() else 1)


def generating(self, *args):
    yield Outcome(done=True)


def coroutine(self, *args):
    async def never():
        return Outcome(done=True)

    return never()


BROKEN = {
    "raises": (raising(ValueError("boom")), "ValueError: boom"),
    "exits": (raising(SystemExit(3)), "SystemExit: 3"),
    "runs out of memory": (raising(MemoryError()), "MemoryError"),
    "recurses": (recursing, "RecursionError"),
    "raises a base of its own": (raising(Own("panic")), "Own: panic"),
    "is cancelled": (raising(asyncio.CancelledError()), "CancelledError"),
    "ends a generator": (raising(GeneratorExit("end")), "GeneratorExit: end"),
    "ends an iteration": (raising(StopIteration(1)), "StopIteration"),
    "ends an asynchronous one": (raising(StopAsyncIteration(1)), "StopAsyncIteration"),
    "loops": (looping, "Timeout: no end after"),
    "sleeps": (sleeping, "Timeout: no end after"),
}
METHODS = ("reset", "step", "close")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_is_a_fault_and_the_environment_is_closed(pool, name, method):
    does, said = BROKEN[name]
    pool.guard.limits = LimitSpec(
        step_seconds=SHORT if "Timeout" in said else 20.0,
        **{k: getattr(pool.guard.limits, k) for k in ("threads", "at_once")},
    )
    made = Counting(turns=1)
    kind = type("Broken", (Counting,), {method: does})
    made.__class__ = kind
    other = Counting(turns=1)
    with pool:
        episode, first = begun(pool, made)
        if method == "reset":
            assert isinstance(first, Fault)
        else:
            first = answer(pool, episode.step("a"))
        fault = first
        assert isinstance(fault, Fault) and fault.boundary == "environment" and said in fault.reason, fault
        assert f"in {method} of Broken" in str(fault) or "TypeError" in fault.reason
        limit(pool, 20.0)
        neighbour, _ = begun(pool, other)
        assert answer(pool, neighbour.step("b")).done  # nobody else noticed
    assert method == "close" or made.calls[-1] == ("close",)
    assert (pool.opened, pool.closed, len(pool.open)) == (2, 2, 0)
    assert pool.guard.total == 1 and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [n for n in BROKEN if n != "sleeps"])
def test_what_breaks_on_the_loop_is_a_fault_and_the_loop_goes_on(name, method):
    does, said = BROKEN[name]

    async def broken(self, *args):
        await asyncio.sleep(0)
        return does(self, *args)

    kind = type("Broken", (AsyncCounting,), {method: broken})
    pool = pool_of(step_seconds=SHORT if "Timeout" in said else 20.0)
    with pool:
        made, other = kind(turns=1), AsyncCounting(turns=1)
        episode, first = begun(pool, made)
        fault = first if method == "reset" else answer(pool, episode.step("a"))
        assert isinstance(fault, Fault) and said in fault.reason
        limit(pool, 20.0)
        neighbour, _ = begun(pool, other)
        assert answer(pool, neighbour.step("b")).done
    assert method == "close" or made.calls[-1] == ("close",)
    assert (pool.opened, pool.closed, pool.left) == (2, 2, 0)
    pool.stop()


ESCAPES = (GeneratorExit, StopIteration, StopAsyncIteration, asyncio.CancelledError, SystemExit)


@pytest.mark.parametrize("base", [Counting, AsyncCounting])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", ESCAPES)
def test_nothing_that_an_environment_raises_escapes_play(error, method, base):
    def breaks(self, *args):
        raise error("x")

    async def breaks_later(self, *args):
        raise error("x")

    made = type("Broken", (base,), {method: breaks if base is Counting else breaks_later})(turns=1)
    with pytest.raises(Fault, match=f"environment: .*{error.__name__}"):
        play(made, TASK, ["a"])


def test_who_waits_too_long_on_the_loop_is_cancelled_and_the_rest_go_on(monkeypatch):
    monkeypatch.setattr(elsewhere, "LEAVE", SHORT)
    ended = []

    class Dead(Counting):
        async def step(self, action):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(action)

    class Deaf(Counting):
        async def step(self, action):
            while len(ended) < 5:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    if action == "end":
                        raise

    pool = pool_of()
    with pool:
        made = [Dead(), Deaf(), AsyncCounting(turns=1)]
        episodes = [begun(pool, one)[0] for one in made]
        limit(pool, 0.2)
        dead, deaf, well = answers(pool, [episode.step("x") for episode in episodes])
        assert "Timeout: no end after 0.2 s" in dead.reason and ended == ["x"]
        assert "Timeout" in deaf.reason and "left behind" in deaf.reason
        assert well.done and pool.left == 1
    assert [one.calls[-1] for one in made] == [("close",)] * 3
    pool.stop()


def test_who_blocks_the_loop_is_ended_and_the_others_have_their_time_again():
    blocked = threading.Event()

    class Blocking(AsyncCounting):
        async def step(self, action):
            blocked.set()
            while True:
                pass

    class Waiting(AsyncCounting):
        async def step(self, action):
            while not blocked.is_set():
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            return Outcome(done=True, success=True)

    pool = pool_of()
    with pool:
        kinds = [Waiting, Waiting, Blocking]
        episodes = [begun(pool, kind())[0] for kind in kinds]
        limit(pool, 0.3)
        *well, fault = answers(pool, [episode.step("x") for episode in episodes])
        assert [outcome.success for outcome in well] == [True, True]
        assert "Timeout" in fault.reason and pool.left == 0
    assert pool.closed == 3
    pool.stop()


def test_a_loop_that_cannot_be_freed_is_given_up_and_there_is_another(monkeypatch):
    monkeypatch.setattr(elsewhere, "LEAVE", SHORT)

    class Blocking(AsyncCounting):
        async def step(self, action):
            time.sleep(1)  # in C: nothing ends it

    pool = pool_of()
    with pool:
        episode, _ = begun(pool, Blocking())
        idle, _ = begun(pool, AsyncCounting())
        limit(pool, SHORT)
        fault = answer(pool, episode.step("x"))
        assert "Timeout" in fault.reason and "loop is blocked" in fault.reason
        assert "blocked by another episode" in answer(pool, idle.step("y")).reason
        limit(pool, 20.0)
        fresh, first = begun(pool, AsyncCounting(turns=1))
        assert first.text == "a page" and answer(pool, fresh.step("z")).done
    assert (pool.opened, pool.closed) == (3, 3)
    pool.stop()


def test_a_call_that_nothing_ends_is_left_behind_and_counted(monkeypatch):
    monkeypatch.setattr(elsewhere, "LEAVE", SHORT)
    go = threading.Event()

    class Stuck(Counting):
        def step(self, action):
            go.wait(20)

    pool = pool_of(threads=True, at_once=2)
    with pool:
        made = Stuck()
        episode, _ = begun(pool, made)
        limit(pool, SHORT)
        fault = answer(pool, episode.step("x"))
        assert "left behind" in fault.reason and pool.left == 1
        assert (
            made.calls[-1] == ("close",) and len(made.threads) == 2
        )  # its own thread will not do that any more
    go.set()
    while pool.left:
        pool.wait(0)
    pool.stop()


def test_calls_in_a_row_without_an_end_are_not_made_any_more_but_all_are_closed(monkeypatch):
    monkeypatch.setattr(elsewhere, "LEAVE", SHORT)
    monkeypatch.setattr("forethought.envs.guard.GONE", 3)
    asked = []

    class Dead(Counting):
        async def step(self, action):
            asked.append(action)
            await asyncio.Event().wait()

    pool = pool_of(at_once=1)
    with pool:
        made = [Dead() for _ in range(10)]
        episodes = [begun(pool, one)[0] for one in made]
        limit(pool, SHORT)
        faults = [answer(pool, episode.step("x")) for episode in episodes]
    assert len(asked) == 3 and all("Timeout" in fault.reason for fault in faults)
    assert [one.calls[-1] for one in made] == [("close",)] * 10
    limit(pool, 20.0)
    pool.guard.fresh()
    assert begun(pool, Counting())[1].text == "a page"
    pool.stop()


def test_all_calls_of_an_episode_have_a_limit_together(pool):
    class Slow(Environment):
        def reset(self, task, seed):
            time.sleep(0.02)

        def step(self, action):
            time.sleep(0.02)
            return Outcome(done=False)

    limits = pool.guard.limits
    pool.guard.limits = LimitSpec(
        step_seconds=60.0, episode_seconds=0.05, threads=limits.threads, at_once=limits.at_once
    )
    episode, first = begun(pool, Slow())
    said = [first]
    while not isinstance(said[-1], Fault) and len(said) < 5:
        said.append(answer(pool, episode.step("x")))
    assert isinstance(said[-1], Fault) and "Timeout" in said[-1].reason


# ---- what is open is closed


def test_ten_thousand_episodes_leave_nothing_behind():
    alive = set()

    class Held(Environment):
        def reset(self, task, seed):
            alive.add(id(self))
            self.held = [object()]

        def step(self, action):
            return Outcome(done=action == "end", success=True)

        def close(self):
            alive.discard(id(self))

    pool, sizes = pool_of(), []
    for _ in range(10):
        with pool:  # a step
            for i in range(1000):
                episode = pool.episode(Held, TASK, i)
                pool.drive([episode.reset()])
                pool.drive([episode.step(("go", "end")[i % 2])])  # every other one is forgotten
            assert len(alive) == 500
        assert not alive and not pool.open
        gc.collect()
        sizes.append(sys.getallocatedblocks())
    assert (pool.opened, pool.closed) == (10_000, 10_000)
    assert sizes[-1] - sizes[1] < 500  # not even a block for each that was forgotten in one step


@pytest.mark.parametrize("kind", [Counting, AsyncCounting])
def test_an_error_of_the_workflow_or_the_users_interrupt_closes_what_is_open(pool, kind):
    made = [kind() for _ in range(5)]
    for error in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(error):
            with pool:
                for one in made:
                    begun(pool, one)
                raise error
        assert [one.calls[-1] for one in made] == [("close",)] * 5 and not pool.open
        made = [kind() for _ in range(5)]


def test_an_interrupt_while_calls_run_ends_them_and_closes_what_is_open(monkeypatch):
    monkeypatch.setattr(elsewhere, "LEAVE", 2.0)
    ended, meeting = [], Meeting(4)

    class Waiting(AsyncCounting):
        async def step(self, action):
            meeting.enter()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(self)

    made = [Waiting() for _ in range(4)]
    pool = pool_of()

    def press():
        meeting.full.wait(10)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        with pool:
            episodes = [begun(pool, one)[0] for one in made]
            threading.Thread(target=press).start()
            answers(pool, [episode.step("x") for episode in episodes])
    assert len(ended) == 4 and [one.calls[-1] for one in made] == [("close",)] * 4
    assert (pool.opened, pool.closed, pool.left) == (4, 4, 0)
    pool.stop()


def test_an_interrupt_that_an_environment_raises_on_another_thread_is_not_the_users():
    pool = pool_of(threads=True)
    with pool:
        kind = type("Pressed", (Counting,), {"step": raising(KeyboardInterrupt())})
        fault = answer(pool, begun(pool, kind())[0].step("x"))
        assert "KeyboardInterrupt" in fault.reason
    on_main = pool_of()
    with pytest.raises(KeyboardInterrupt), on_main:
        answer(on_main, begun(on_main, kind())[0].step("x"))
    assert on_main.closed == 1
    pool.stop()


def test_an_environment_with_threads_of_its_own_is_none_of_the_pools_business(pool):
    go = threading.Event()

    class Threaded(Environment):
        def reset(self, task, seed):
            self.threads = [threading.Thread(target=go.wait, daemon=True) for _ in range(3)]
            for thread in self.threads:
                thread.start()

        def step(self, action):
            return Outcome(done=True, success=all(thread.is_alive() for thread in self.threads))

        def close(self):
            go.set()
            for thread in self.threads:
                thread.join()

    with pool:
        assert answer(pool, begun(pool, Threaded())[0].step("x")).success
    assert pool.guard.total == 0


def test_tasks_of_an_environments_own_may_break_without_ending_the_loop():
    class Spawning(AsyncCounting):
        async def step(self, action):
            async def dies():
                raise SystemExit(1)

            task = asyncio.ensure_future(dies())
            await asyncio.sleep(0.001)
            return Outcome(done=True, success=isinstance(task.exception(), SystemExit))

    pool = pool_of()
    with pool:
        assert answer(pool, begun(pool, Spawning())[0].step("x")).success
        assert begun(pool, AsyncCounting())[1].text == "a page"
    pool.stop()


def test_threads_are_used_again_and_end():
    before = set(threading.enumerate())
    pool = pool_of(threads=True, at_once=2)
    for _ in range(20):
        with pool:
            episodes = [begun(pool, Counting(turns=1))[0] for _ in range(3)]
            answers(pool, [episode.step("x") for episode in episodes])
    made = set(threading.enumerate()) - before
    assert len(made) == 3
    pool.stop()
    for thread in made:
        thread.join(10)
        assert not thread.is_alive()


def test_a_signal_while_the_pool_waits_does_not_take_its_limit_away():
    """Alarms come all the time, and an endless call keeps the interpreter busy: a wait is over when its time
    is."""

    class Blocking(AsyncCounting):
        async def step(self, action):
            while True:
                pass

    pool, rang = pool_of(), []
    before = signal.signal(signal.SIGALRM, lambda *args: rang.append(args))
    try:
        with pool:
            episode, _ = begun(pool, Blocking())
            limit(pool, SHORT)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            assert "Timeout" in answer(pool, episode.step("x")).reason
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang
    pool.stop()


# ---- what a value must be


@pytest.mark.parametrize(
    ("method", "value", "said"),
    [
        ("reset", 5, "gave a int, 5, not an Observation, text or None"),
        ("reset", b"page", "gave a bytes, not an Observation"),
        ("reset", Observation(text=None), "Observation.text None, not text"),
        ("reset", "x" * 1_000_001, "reset's text 1,000,001 characters, more than 1,000,000"),
        ("reset", Observation(images=[PNG]), "Observation.images a list, not a tuple of images"),
        ("reset", Observation(images=("page.png",)), "Observation.images[0] a str, 'page.png', not"),
        ("reset", Observation(images=(PNG, b"GIF89a..")), "Observation.images[1] b'GIF89a..'..., which "
                                                          "begins no"),
        ("reset", Observation(images=(PNG,) * 17), "Observation.images 17 images, more than 16"),
        ("reset", Observation(images=(PNG + b"0" * 2**24,)), "bytes, more than 16,777,216"),
        ("reset", Observation(info=None), "Observation.info None, not a table"),
        ("step", Outcome(done=False, observation="y" * 1_000_001), "Outcome.observation 1,000,001"),
        ("step", Outcome(done=False, images=None), "Outcome.images None, not a tuple"),
        ("step", Outcome(done=True, parts=None), "Outcome.parts None, not a table"),
        ("step", Outcome(done=True, parts={1: 1.0}), "a name in Outcome.parts a int"),
        ("step", Outcome(done=True, parts={"x": float("nan")}), "Outcome.parts['x'] a float, nan, not a "
                                                                "finite"),
        ("step", Outcome(done=True, parts={"x": float("inf")}), "Outcome.parts['x'] a float, inf"),
        ("step", Outcome(done=True, parts={"x": "1"}), "Outcome.parts['x'] a str, '1'"),
        ("step", Outcome(done=True, parts={"x": 10**400}), "Outcome.parts['x'] a int, 1000"),
        ("step", None, "gave None, not an Outcome"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_type_are_faults(pool, method, value, said):
    kind = type("Wrong", (Counting,), {method: giving(value)})
    made = kind()
    episode, found = begun(pool, made)
    if method == "step":
        found = answer(pool, episode.step("x"))
    assert isinstance(found, Fault) and said in found.reason and made.calls[-1] == ("close",)


@pytest.mark.parametrize("method", METHODS)
def test_a_coroutine_or_generator_of_a_method_that_is_not_async_is_a_fault(pool, method):
    for does, word in ((coroutine, "coroutine"), (generating, "generator")):
        if (method, word) == ("close", "generator"):
            continue  # what it gives is not read; it was never run, and nothing says so
        made = type("Wrong", (Counting,), {method: does})(turns=1)
        episode, found = begun(pool, made)
        if method != "reset":
            found = answer(pool, episode.step("x"))
        assert isinstance(found, Fault) and f"gave a {word}" in found.reason, found


def test_numbers_of_other_kinds_are_floats_behind_the_boundary(pool):
    made = type("Paying", (Counting,), {"step": giving(Outcome(done=True, parts={"a": 1, "b": True}))})()
    parts = answer(pool, begun(pool, made)[0].step("x")).parts
    assert parts == {"a": 1.0, "b": 1.0} and {type(part) for part in parts.values()} == {float}


@pytest.mark.parametrize("name", ["reset", "close"])
def test_a_reset_or_close_that_cannot_be_called_is_refused_by_name(name):
    from forethought.envs.values import WrongType, environment

    with pytest.raises(WrongType, match=f"an environment whose {name} is a int, 5, not a method"):
        environment(type("Odd", (), {"step": giving(None), name: 5})())


def test_a_wait_that_a_signal_interrupts_ends_in_time():
    """CPython's own queue waits until something comes, which here is after 5 seconds."""
    import queue

    from forethought.core.watchdog import next_of

    answers, done, begun = queue.SimpleQueue(), threading.Event(), time.monotonic()

    def busy():
        while not done.is_set():
            if time.monotonic() - begun > 5:
                answers.put("late")

    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    (thread := threading.Thread(target=busy, daemon=True)).start()
    try:
        for _ in range(20):
            with pytest.raises(queue.Empty):
                next_of(answers, 0.0107)
    finally:
        done.set()
        thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
