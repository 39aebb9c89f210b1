"""What tests of environments of others share."""

from __future__ import annotations

import random
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import pytest

from forethought.core.errors import RecipeError
from forethought.core.types import Outcome, Task
from forethought.envs.guard import Fault
from forethought.envs.pool import play
from forethought.recipe.schema import LimitSpec
from forethought.tasks.environment.taskset import Environments, environments

EXAMPLES = Path(__file__).parents[1] / "examples"


def made(environment: str, **options: Any) -> Environments:
    """The taskset of an environment, without plans where nothing else is said."""
    levels = options.pop("levels", ())
    return environments(levels, environment=environment, **{"plan": "none", **options})


def first(taskset: Environments, seed: int = 0, level: int | None = None, split: str = "train") -> Task:
    """A task; the same one for the same seed."""
    level = taskset.levels[0] if level is None else level
    return taskset.family(random.Random(seed), [level], split)[0]


def played(
    taskset: Environments, task: Task, acts: Sequence[str], limits: LimitSpec | None = None
) -> list[Outcome]:
    """The answers to these acts."""
    return play(taskset.environment(task, False), task, acts, limits=limits)[1:]


def refused(environment: str, **options: Any) -> str:
    """The message with which it is refused before anything runs."""
    with pytest.raises(RecipeError) as error:
        made(environment, **options).close()
    return str(error.value)


def broken(taskset: Environments, task: Task, acts: Sequence[str], limits: LimitSpec | None = None) -> str:
    """The fault with which an episode breaks."""
    with pytest.raises(Fault) as fault:
        played(taskset, task, acts, limits)
    return str(fault.value)


@contextmanager
def served(*command: str, cwd: Path | None = None) -> Iterator[str]:
    """The address of a server that has started on a free port; PORT in the command is its number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, *(word.replace("PORT", str(port)) for word in command)]
    process = Popen(words, cwd=cwd, stdout=DEVNULL, stderr=PIPE)
    try:
        for _ in range(600):
            if process.poll() is not None:
                said = process.communicate()[1].decode()
                pytest.fail(f"the server ended: {said[-2000:]}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
                break
            time.sleep(0.1)
        yield f"openenv:http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
