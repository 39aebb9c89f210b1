"""The examples of docs/environments.md and examples/environment.py do what they say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from forethought.core.types import Outcome, Task
from forethought.envs.base import Observation
from forethought.envs.guard import Fault
from forethought.envs.pool import play

ROOT = Path(__file__).parents[2]
TASK = Task(id="one", taskset="numbers", level=100, context="", prompt="Find the number.")


def test_the_examples_of_the_page_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "environments.md").read_text("utf-8"), re.S)
    assert len(blocks) == 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/environments.md", "exec"), names)


@pytest.fixture(scope="module")
def example():
    path = ROOT / "examples" / "environment.py"
    assert len(path.read_text("utf-8").splitlines()) <= 40
    return runpy.run_path(str(path))["HotAndCold"]


def test_the_example_answers_and_ends(example):
    first, *answers = play(example(), TASK, map(str, range(1, 101)), seed=3)
    assert first == Observation(text="I think of a number from 1 to 100.")
    secret = int(re.findall(r"\d+", answers[-1].reason)[0])
    assert len(answers) == 8 and not answers[-1].success and secret > 8
    assert {answer.observation for answer in answers[:-1]} == {"It is larger."}
    assert play(example(), TASK, [str(secret)], seed=3)[1] == Outcome(done=True, success=True)
    assert play(example(), TASK, ["?"], seed=3)[1].parts == {"readable": 0.0}


def test_who_tries_an_environment_sees_its_fault_and_it_is_closed():
    closed = []

    class Broken:
        def step(self, action):
            raise OSError("no server")

        def close(self):
            closed.append(self)

    with pytest.raises(Fault, match="no server"):
        play(Broken(), TASK, ["x"])
    assert len(closed) == 1
    with pytest.raises(Fault, match="gave a object, not an environment with a step"):
        play(object(), TASK, [])
