"""Tasksets of verifiers (0.4, `verifiers.v1`): `verifiers:ID` for one that is installed, or
`verifiers:file.py:Taskset`.

What is taken over is what a taskset says of one answer: its tasks with their prompts and system messages, and
its scoring, which is asked with a trace of the conversation: `@vf.reward` methods with their weights, judges,
and `@vf.metric` methods as reward parts. An episode is one turn, and its return is the trace's reward.

What runs a model itself (harnesses, agents, users that are simulated) or needs a runtime (containers, tool
servers, rewards that ask for one) is not taken over, and is refused by name.

Options of the task table:
    config      of the taskset, as a table
    most        most tasks that are read (1000)

The tasks are numbered as the taskset gives them, and the last fifth evaluates.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forethought.core.errors import RecipeError
from forethought.core.named import load_named
from forethought.envs.adapters.base import Adapter, Answer, Shown
from forethought.envs.adapters.options import Options
from forethought.envs.adapters.packages import missing

WHERE = "task.environment"


class Verifiers(Adapter):
    """An adapter of one taskset."""

    waits = True
    turns = 1
    budget = 1024

    def __init__(self, rest: str, options: Options):
        self.library = _library()
        self.name = rest.rpartition(":")[2]
        config, most = options.mapping("config"), options.whole("most", 1000, least=2)
        taskset = self._taskset(rest, config)
        try:
            self.tasks = list(itertools.islice(taskset, most))
        except Exception as error:
            raise RecipeError(WHERE, f"{rest} gives no tasks: {_said(error)}") from None
        self.given = len(self.tasks)
        # a trace says who answered; the answer came from here, and nothing is started
        self._agent = self.library.AgentConfig(harness={"id": "null"}, runtime={"type": "subprocess"})
        _need_plain(rest, taskset, self.tasks)

    def _taskset(self, rest: str, config: Mapping[str, Any]) -> Any:
        vf = self.library
        try:
            if rest.rpartition(":")[0].endswith(".py"):
                kind = load_named(rest, Path.cwd(), WHERE)
            else:
                from verifiers.v1.utils.loaders import taskset_class

                kind = taskset_class(rest)
            if not (isinstance(kind, type) and issubclass(kind, vf.Taskset)):
                raise RecipeError(WHERE, f"{rest} is no verifiers.v1 Taskset, but {kind!r:.80}")
            return kind(_config_of(vf, kind)(**config))
        except RecipeError:
            raise
        except Exception as error:
            raise RecipeError(WHERE, f"{rest} cannot be loaded: {_said(error)}") from None

    def session(self) -> VerifiersSession:
        """A conversation of one turn."""
        return VerifiersSession(self)

    def prompt(self, number: int) -> tuple[str, str]:
        """The task's own messages; its system message stands before the prompt."""
        data = self.tasks[number].data
        return data.system_prompt or "", data.prompt_text

    def texts(self) -> list[str]:
        """The first prompts."""
        return [task.data.prompt_text for task in self.tasks[:64]]

    def trace_of(self, task: Any, answer: str) -> Any:
        """What a rollout of verifiers would have left: the conversation with the answer in it."""
        vf, data = self.library, task.data
        told: list[Any] = [vf.SystemMessage(content=data.system_prompt)] if data.system_prompt else []
        asked = data.prompt if not isinstance(data.prompt, str) else [vf.UserMessage(content=data.prompt)]
        nodes = [
            vf.MessageNode(parent=i - 1 if i else None, message=message)
            for i, message in enumerate([*told, *(asked or ())])
        ]
        said = vf.AssistantMessage(content=answer)
        nodes.append(vf.MessageNode(parent=len(nodes) - 1 if nodes else None, message=said, sampled=True))
        told_of = vf.TraceTask(type=type(task).__name__, data=data, key=task.key, hash=task.hash)
        return vf.Trace(task=told_of, agent=vf.AgentInfo(config=self._agent), nodes=nodes)


class VerifiersSession:
    """One answer to one task."""

    def __init__(self, adapter: Verifiers):
        self._adapter, self._number = adapter, 0

    async def reset(self, seed: int, level: int) -> Shown:
        """The task of this number."""
        self._number = seed
        return Shown(text=self._adapter.tasks[seed].data.prompt_text)

    async def step(self, text: str) -> Answer:
        """Score the answer as the taskset does."""
        task = self._adapter.tasks[self._number]
        trace = self._adapter.trace_of(task, text)
        await task.score(trace)
        metrics = {f"metric_{name}": float(value) for name, value in trace.metrics.items()}
        rewards = {f"reward_{name}": float(reward.score) for name, reward in trace.rewards.items()}
        return Answer(reward=trace.reward, terminated=True, parts={**metrics, **rewards})

    async def close(self) -> None:
        """Nothing is held."""


def _library() -> Any:
    try:
        import verifiers.v1 as vf
    except ImportError as error:
        raise missing(WHERE, "verifiers", "verifiers", error) from None
    return vf


def _config_of(vf: Any, kind: type) -> Any:
    from verifiers.v1.utils.generic import concrete_type

    return concrete_type(kind, vf.TasksetConfig, origin=vf.Taskset) or vf.TasksetConfig


def _need_plain(rest: str, taskset: Any, tasks: list[Any]) -> None:
    """RecipeError for what one answer cannot give."""
    shared = type(taskset).toolsets(taskset.config)
    for task in tasks[:1]:
        kind, found = type(task), ""
        if shared or kind.toolsets(task.config):
            found = "tool servers"
        elif kind.NEEDS_CONTAINER:
            found = "a container"
        elif any(_overrides(kind, name) for name in ("setup", "finalize")):
            found = "a runtime in setup or finalize"
        elif runs := [fn.__name__ for fn in task.hooks("reward") if _needs_runtime(fn)]:
            found = f"a runtime in its reward {runs[0]}"
        elif not task.hooks("reward") and not task.config.judges:
            raise RecipeError(WHERE, f"{rest}: {kind.__name__} has no reward, so nothing can be learned")
        if found:
            message = f"{rest}: {kind.__name__} needs {found}, which only verifiers' own rollouts have"
            raise RecipeError(WHERE, message)


def _overrides(kind: type, name: str) -> bool:
    owner = next(one for one in kind.__mro__ if name in vars(one))
    return not owner.__module__.startswith("verifiers.v1.task")


def _needs_runtime(function: Any) -> bool:
    parameter = inspect.signature(function).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
