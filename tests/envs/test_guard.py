"""The boundary itself: limits on calls, on the main thread and elsewhere, and what passes through it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from forethought.core import watchdog
from forethought.core.errors import UserError
from forethought.core.watchdog import PATIENCE, TimeUp, Watchdog
from forethought.envs.guard import KINDS, Fault, Guard
from forethought.envs.guarded import guarded
from forethought.recipe.schema import LimitSpec
from forethought.runs.interrupts import Interrupts
from forethought.tasks.desk.taskset import Desk

SHORT = 0.02


def looping():
    while True:
        pass


def call(dog: Watchdog, function, *args, seconds: float = SHORT):
    return dog.call(seconds, function, args, {})


def elsewhere(function):
    """What `function` gives, or raises, on another thread."""
    found: dict = {}

    def work():
        try:
            found["value"] = function()
        except BaseException as error:
            found["error"] = error

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    if "error" in found:
        raise found["error"]
    return found["value"]


@pytest.mark.parametrize("function", [looping, lambda: time.sleep(60), lambda: threading.Event().wait()])
@pytest.mark.parametrize("where", [lambda function: function(), elsewhere])
def test_a_call_that_does_not_end_is_ended(function, where, monkeypatch):
    monkeypatch.setattr(watchdog, "LEAVE", SHORT)
    dog = Watchdog()
    with pytest.raises(TimeUp):
        where(lambda: call(dog, function))
    assert where(lambda: call(dog, lambda: 5)) == 5  # the next one has its own time
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("where", [lambda function: function(), elsewhere])
def test_what_a_call_raises_or_gives_comes_through(where):
    dog = Watchdog()
    assert where(lambda: dog.call(5.0, divmod, (7, 2), {})) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        where(lambda: call(dog, divmod, 1, 0))


def test_calls_of_a_batch_share_one_timer(monkeypatch):
    """A call that ends costs no system call; a timer that was set for an earlier call does not end a later
    one."""
    asked = []
    real = signal.setitimer
    monkeypatch.setattr(signal, "setitimer", lambda *args: asked.append(args) or real(*args))
    dog = Watchdog()
    with dog.watch():
        before = len(asked)
        for _ in range(50):
            call(dog, time.sleep, 0.001, seconds=SHORT)
        # 50 ms of calls under a limit of 20 ms: the timer was set once, and again where it rang
        assert len(asked) - before <= 8
        with pytest.raises(TimeUp):
            call(dog, looping)


def test_a_call_that_swallows_its_end_meets_the_last_resort(monkeypatch):
    monkeypatch.setattr(watchdog, "AGAIN", 0.005)
    ended = []

    class Over(BaseException):
        pass

    def last_resort():
        ended.append(True)
        raise Over

    told = []

    def stubborn():
        while len(told) <= PATIENCE:
            try:
                time.sleep(60)
            except TimeUp as up:
                told.append(up)

    with pytest.raises(Over):
        call(Watchdog(last_resort), stubborn)
    assert len(told) == PATIENCE and ended == [True]


def test_the_alarm_of_somebody_else_goes_on():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *args: rang.append(args))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeUp):
            call(Watchdog(), looping)
        assert not rang
        deadline = time.monotonic() + 5
        while not rang and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(rang) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Racing(Watchdog):
    """Its timer rings right after a call has seen that it is set."""

    ringing = False

    @property
    def _rings(self) -> float:
        seen = self.__dict__.get("rings", 0.0)
        if self.ringing:
            self.ringing = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.raise_signal(signal.SIGALRM)
        return seen

    @_rings.setter
    def _rings(self, value: float) -> None:
        self.__dict__["rings"] = value


def test_a_timer_that_rings_as_a_call_begins_is_set_again():
    dog = Racing()
    with dog.watch():
        dog.call(0.05, lambda: None, (), {})  # the timer stays set
        dog.ringing = True
        with pytest.raises(TimeUp):
            dog.call(0.05, time.sleep, (0.5,), {})


@pytest.mark.skipif(not hasattr(signal, "sigwait"), reason="no signals to wait for")
def test_an_alarm_that_comes_just_before_a_call_waits_is_not_the_last(monkeypatch):
    """The first one is taken away, as it is lost on a process that is about to wait for a lock: Python has
    not looked yet, and then cannot."""
    monkeypatch.setattr(watchdog, "AGAIN", 0.05)

    def waits():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        try:
            assert signal.sigwait({signal.SIGALRM}) == signal.SIGALRM
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        lock = threading.Lock()
        lock.acquire()
        lock.acquire(timeout=5)

    started, dog = time.monotonic(), Watchdog()
    with pytest.raises(TimeUp):
        call(dog, waits)
    assert time.monotonic() - started < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_call_may_use_the_alarm_and_the_next_one_still_has_a_limit():
    def own():
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.alarm(0)

    dog = Watchdog()
    with dog.watch():
        call(dog, own)
        with pytest.raises(TimeUp):
            call(dog, looping)


def test_the_users_interrupt_passes():
    def pressed():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    guard = Guard("Made")
    with pytest.raises(KeyboardInterrupt):
        guard.call("environment", "step", pressed)
    with Interrupts() as interrupts:
        # the first one waits for the step to end, the second one does not
        with pytest.raises(KeyboardInterrupt):
            guard.call("environment", "step", lambda: [os.kill(os.getpid(), signal.SIGINT), pressed()])
        assert interrupts.caught == signal.SIGINT

    def grouped():
        raise BaseExceptionGroup("tasks", [ValueError("one"), KeyboardInterrupt()])

    with pytest.raises(BaseExceptionGroup):
        guard.call("environment", "step", grouped)
    assert guard.total == 0


def test_a_first_interrupt_during_a_hang_leaves_the_limit_in_place():
    guard = Guard("Made", LimitSpec(step_seconds=SHORT))
    with Interrupts() as interrupts:
        with pytest.raises(Fault, match="Timeout"):
            guard.call("environment", "step", lambda: [os.kill(os.getpid(), signal.SIGINT), looping()])
        assert interrupts.caught == signal.SIGINT


def test_a_fault_says_boundary_type_method_family_and_line():
    def broken():
        raise RuntimeError("boom")

    guard = Guard("Made")
    with pytest.raises(Fault) as found:
        guard.call("environment", "step", broken)
    fault = found.value
    line = broken.__code__.co_firstlineno + 1
    assert fault.reason == "environment: RuntimeError: boom"
    assert str(fault) == f"environment: RuntimeError: boom (in step of Made, {__file__}:{line})"
    assert fault.exit_code == 2
    [told] = guard.records()
    assert (
        told["count"] == 1 and told["place"] == f"{__file__}:{line}" and "raise RuntimeError" in told["trace"]
    )


def test_each_kind_is_kept_once_and_their_number_is_bounded():
    guard = Guard("Made")

    def broken(i):
        raise type(f"Kind{i}", (Exception,), {})("x")

    for i in [*range(KINDS + 30), 0, 0]:
        with pytest.raises(Fault):
            guard.call("reward", "follows", broken, (i,))
    assert len(guard.kinds) == KINDS and guard.total == KINDS + 32
    assert guard.records()[0]["count"] == 3 and guard.worst().startswith("reward: Kind0")


def test_what_took_too_long_again_and_again_is_not_asked_until_the_next_step(monkeypatch):
    monkeypatch.setattr("forethought.envs.guard.GONE", 3)
    guard, asked = Guard("Made", LimitSpec(step_seconds=0.005)), []

    def hangs():
        asked.append(1)
        looping()

    for _ in range(10):
        with pytest.raises(Fault, match="Timeout"):
            guard.call("environment", "step", hangs)
    assert len(asked) == 3 and "3 calls in a row (environment)" in guard.gone()
    assert guard.call("reward", "follows", lambda: 1) == 1  # another boundary is
    guard.fresh()
    assert guard.gone() == "" and guard.call("environment", "step", lambda: 2) == 2


def test_what_the_family_says_to_the_user_is_said_to_the_user():
    def missing():
        raise UserError("tasks.jsonl: no such file")

    guard = Guard("Made")
    with pytest.raises(UserError, match="^tasks.jsonl: no such file$"):
        guard.call("task", "family", missing)
    with pytest.raises(Fault):
        guard.call("environment", "step", missing)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("levels", "12", "levels a str"),
        ("levels", (1, "2"), "a level a str"),
        ("turns", 0, "turns a int, 0"),
        ("side", "robot", "side a str, 'robot', not user or tool"),
        ("observation", -1, "observation a int, -1, not a whole number from 0"),
        ("stops", ["</plan>"], "stops a list"),
        ("budgets", {}, "budgets a dict"),
        ("stops", {"plan": 1}, r"stops\['plan'\] a int, 1"),
        ("budgets", {"plan": 4, "act": "9"}, r"budgets\['act'\] a str"),
        ("name", None, "name None"),
    ],
)
def test_attributes_of_the_wrong_type_are_refused_by_name(name, value, said):
    desk = Desk((1, 2), widgets=4)
    setattr(desk, name, value)
    with pytest.raises(Fault, match=f"task: TypeError: the attributes of Desk gave {said}"):
        guarded(desk)


def test_a_property_that_raises_is_a_fault_and_a_missing_one_is_missing():
    class Family(Desk):
        @property
        def notes(self):
            raise RuntimeError("boom")

    taskset = guarded(Family((1,), widgets=4))
    with pytest.raises(Fault, match="task: RuntimeError: boom"):
        _ = taskset.notes
    assert not hasattr(taskset, "pool") and guarded(taskset) is taskset
    with pytest.raises(AttributeError):
        _ = taskset.nothing


def test_a_number_of_another_kind_is_a_float_behind_the_boundary():
    class Family(Desk):
        def judge_plan(self, task, text):
            from forethought.core.types import Verdict

            return Verdict(score=True)

    assert type(guarded(Family((1,), widgets=4)).judge_plan(None, "x").score) is float


def test_what_is_no_taskset_is_refused_by_what_to_derive_from():
    class Looks:
        name, levels, budgets = "looks", (1,), {"plan": 3}

    with pytest.raises(Fault, match="gave a Looks, not an object whose class derives from .*Taskset"):
        guarded(Looks())
