"""Whose fault it is, and in which line: what a user reads of a fault of their own code."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from functools import partial

import pytest

from forethought.core.places import source_of
from forethought.core.types import Outcome, Task
from forethought.envs import elsewhere
from forethought.envs.guard import Fault, Guard
from forethought.envs.pool import Pool
from forethought.learn.batch_functions import _values
from forethought.recipe.schema import LimitSpec

TASK = Task(id="t", taskset="made", level=1, context="", prompt="GOAL")
LAX, SHORT = 20.0, 0.05


class GivesDict:
    def step(self, action):
        return {"done": True}


class AsyncGivesDict:
    async def step(self, action):
        return {"done": True}


class BadJson:
    def step(self, action):
        return json.loads("{")  # breaks here


class Sleeping:
    async def step(self, action):
        await self.page()
        return Outcome(done=True)

    async def page(self):
        await asyncio.sleep(60)  # waits here


class Deaf(Sleeping):
    async def page(self):
        while True:
            try:
                await asyncio.sleep(60)  # hears nothing here
            except asyncio.CancelledError:
                pass


class Blocking:
    async def step(self, action):
        time.sleep(1)  # blocks here


def line_of(kind, said: str) -> str:
    lines, first = inspect.getsourcelines(kind)
    return f"{__file__}:{first + next(i for i, line in enumerate(lines) if said in line)}"


def fault_of(environment, seconds: float = LAX) -> Fault:
    guard = Guard("Words", LimitSpec(step_seconds=seconds))
    pool, faults = Pool(guard), []

    async def episode():
        found = pool.episode(lambda: environment, TASK, 0)
        await found.reset()
        try:
            await found.step("x")
        except Fault as fault:
            faults.append(fault)

    with pool:
        pool.drive([episode()])
    pool.stop()
    [kind] = guard.kinds.values()
    assert kind.place == faults[0].place and kind.first == str(faults[0])
    return faults[0]


@pytest.mark.parametrize("kind", [GivesDict, AsyncGivesDict])
def test_a_wrong_type_is_of_the_environments_own_class_and_line(kind):
    said = f"step of {kind.__name__}"
    assert str(fault_of(kind())) == (
        f"environment: TypeError: {said} gave a dict, not an Outcome (in {said}, {line_of(kind, 'def step')})"
    )


def test_what_the_standard_library_raises_is_located_where_it_was_asked():
    fault = fault_of(BadJson())
    assert (fault.called, fault.place) == ("step of BadJson", line_of(BadJson, "breaks here"))


@pytest.mark.parametrize(
    ("kind", "said"), [(Sleeping, "waits here"), (Deaf, "hears nothing here"), (Blocking, "blocks here")]
)
def test_an_environment_without_an_end_is_located_where_it_stands(kind, said, monkeypatch):
    monkeypatch.setattr(elsewhere, "LEAVE", SHORT)
    fault = fault_of(kind(), SHORT)
    assert fault.kind == "Timeout" and fault.place == line_of(kind, said)


def short(completions):
    return [1.0]


async def late(completions):
    return [1.0, None, 2.0]


@pytest.mark.parametrize("function", [short, late])
def test_a_reward_of_another_length_is_named_with_its_function_and_line(function):
    n = 1 if function is short else 3
    given = {"completions": ["a", "b"]}
    fault = _values({function.__name__: function}, given, 2, Guard("Words"))[function.__name__]
    gave = f"gave {n} number{'s' if n > 1 else ''} for 2 completions"
    name = function.__name__
    assert str(fault) == (f"reward: TypeError: {name} {gave} (in {name}, {line_of(function, 'def ')})")


def test_what_answers_for_itself_has_no_source():
    class Odd:
        def __getattr__(self, name):
            raise RuntimeError(name)

    assert source_of(Odd()) == ("", "") and source_of(json.loads) == ("", "") and source_of(len) == ("", "")
    assert source_of(partial(short, [])) == ("", line_of(short, "def "))
    assert source_of(GivesDict().step) == ("GivesDict", line_of(GivesDict, "def step"))
