"""Reward functions with the signature of TRL's GRPOTrainer (TRL 1.16), one call for all completions of a
step.

    def short(completions, **kwargs):
        return [1.0 if len(text) < 80 else 0.0 for text in completions]

    reward = { act = { "rewards.py:short" = 1.0 } }     # its part: `short`, its metric: reward/act.short

`f(prompts=, completions=, completion_ids=, **columns, trainer_state=, log_metric=, log_extra=)` gives one
number for each completion, or None: it has no evidence about that one. A function may be `async`: those of a
role then wait together. What a function does not name, and has no `**kwargs` for, it does not get.

Beyond TRL: every role before the last is given too, in the plural (`plans`, `thinks`): what it said on the
path of each completion, "" where it did not speak. A function of a plan reward gets its own plans there,
without the tag that ends them.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import pstdev
from typing import Any, Protocol

from forethought.core.errors import RecipeError, unknown
from forethought.core.metrics import Last, Mean, Metric, merge
from forethought.core.types import NO_EVIDENCE, Node, Task, Tree
from forethought.core.watchdog import TimeUp, next_of
from forethought.envs.guard import Fault, Guard
from forethought.envs.values import MOST, WrongType, amount, need, too_large
from forethought.learn.rewards import Weights

GIVEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra")
LEAVE = 1.0  # seconds that what waits has to end when it is cancelled
DROPPED = ("prompt", "completion", "completion_ids")  # columns that TRL does not hand on


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerState:
    """What a function can read of the run: TRL's names."""

    global_step: int
    max_steps: int
    epoch: float | None = None


class Data(Protocol):
    """What the functions are told of a task: `tasks.base.Taskset`."""

    def columns(self, task: Task) -> Mapping[str, Any]:
        """The row that the task was made from."""

    def asked_as(self, task: Task) -> str | list[dict[str, str]]:
        """Its prompt: text, or messages."""

    def stop(self, role: str) -> str:
        """The word that ends a turn of the role."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a role said on one branch: `turns` its nodes, `path` all nodes up to the last of them."""

    tree: int
    turns: tuple[Node, ...]
    path: tuple[Node, ...]


@dataclass(slots=True)
class Gathered:
    """What the functions gave: (tree, node) -> part -> value; why a branch's last turn is lost; metrics."""

    parts: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    broken: dict[tuple[int, int], str] = field(default_factory=dict)
    extra: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    metrics: list[Mapping[str, Metric]] = field(default_factory=list)


def is_batch_function(function: Callable[..., Any]) -> bool:
    """Whether it has TRL's signature, and not (task, path) of `functions`."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C
        return False
    return names[:2] != ["task", "path"]


def check_signature(
    where: str, text: str, function: Callable[..., Any], columns: Sequence[str], roles: Sequence[str]
) -> None:
    """RecipeError where the function asks for something that it cannot be given."""
    if not inspect.signature(function).parameters:
        raise RecipeError(where, f"{text} takes no arguments; write def f(completions, **kwargs)")
    known = [*GIVEN, *(f"{role}s" for role in roles[:-1])]
    known += [column for column in columns if column not in (*known, *DROPPED)]
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise RecipeError(where, f"{text} takes {name!r} by position alone; it is called by keyword")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in known:
            continue
        if parameter.default is parameter.empty:
            raise RecipeError(where, f"{text} asks for something unknown: {unknown('argument', name, known)}")


def with_batch_parts(
    trees: Sequence[Tree],
    functions: Mapping[str, Callable[..., Any]],
    weights: Weights,
    guard: Guard,
    data: Data,
    roles: Sequence[str],
    state: TrainerState,
    completion: Callable[[Node], str] = lambda node: node.text,
) -> tuple[list[Tree], dict[str, Metric]]:
    """(the trees with the parts that the functions give, their metrics). `completion`: the text of a turn. A
    part stands at the role's last turn on a branch. Metrics: `reward_std/ROLE.PART`, `reward_none/ROLE.PART`
    (the share without evidence, where there is some) and `log/NAME` of `log_metric`.

    A function that raises, has no end within `limits.episode_seconds` or gives a list of another length makes
    every branch that it was asked about `failed` at the boundary reward; one value that is no finite number
    fails its own branch."""
    found = Gathered()
    for role, counted in weights.items():
        said = _said(trees, role)
        asked = {part: functions[part] for part in counted if part in functions}
        rows = _rows(trees, said, data, found) if asked else {}
        said = [one for one in said if one.tree in rows]
        if said and asked:
            given = _arguments(said, rows, role, data, roles, completion) | {"trainer_state": state}
            _ask(role, asked, said, given, guard, found)
    return [_with(i, tree, found) for i, tree in enumerate(trees)], merge(found.metrics)


def _said(trees: Sequence[Tree], role: str) -> list[Said]:
    said = []
    for i, tree in enumerate(trees):
        for branch in tree.branches().values():
            turns = tuple(n for n in branch.nodes if n.role == role and n.policy is not None)
            if turns and branch.status not in NO_EVIDENCE:
                said.append(Said(i, turns, tuple(tree.path(turns[-1]))))
    return said


# ---- what they are called with


Row = tuple[str | list[dict[str, str]], Mapping[str, Any]]
"""A task's prompt and its columns."""


def _rows(trees: Sequence[Tree], said: Sequence[Said], data: Data, found: Gathered) -> dict[int, Row]:
    """Tree -> its row. What was said about a task whose row the taskset cannot give has failed."""
    rows: dict[int, Row] = {}
    for one in said:
        task = trees[one.tree].task
        try:
            if one.tree not in rows:
                rows[one.tree] = data.asked_as(task), data.columns(task)
        except Fault as fault:
            found.broken[one.tree, one.turns[-1].id] = fault.reason
    return rows


def _arguments(
    said: Sequence[Said],
    rows: Mapping[int, Row],
    role: str,
    data: Data,
    roles: Sequence[str],
    completion: Callable[[Node], str],
) -> dict[str, Any]:
    names = dict.fromkeys(name for _, row in rows.values() for name in row if name not in DROPPED)
    columns = {name: [rows[one.tree][1].get(name) for one in said] for name in names}
    spoken = {
        f"{one}s": [_last(s.path, one).removesuffix(data.stop(one)).strip() for s in said]
        for one in roles[:-1]
    }
    asked = [rows[one.tree][0] for one in said]
    return (
        columns
        | spoken
        | {
            "prompts": asked,
            "completions": [_completion(s, role, p, completion) for s, p in zip(said, asked, strict=True)],
            "completion_ids": [[id for n in s.turns for id in n.token_ids] for s in said],
        }
    )


def _last(path: Sequence[Node], role: str) -> str:
    return next((node.text for node in reversed(path) if node.role == role), "")


def _completion(
    said: Said, role: str, prompt: str | list[dict[str, str]], completion: Callable[[Node], str]
) -> str | list[dict[str, str]]:
    """What follows the prompt: text, or messages where the prompt is messages."""
    if isinstance(prompt, str):
        return "\n".join(map(completion, said.turns))
    first = said.path.index(said.turns[0])
    later = [node for node in said.path[first:] if node.role in (role, None)]
    return [
        {"role": "user", "content": n.text}
        if n.role is None
        else {"role": "assistant", "content": completion(n)}
        for n in later
    ]


def _accepted(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(given)
    return {name: value for name, value in given.items() if name in parameters}


# ---- the calls


def _ask(
    role: str,
    asked: Mapping[str, Callable[..., Any]],
    said: Sequence[Said],
    given: Mapping[str, Any],
    guard: Guard,
    found: Gathered,
) -> None:
    at = [(one.tree, one.turns[-1].id) for one in said]
    logs: dict[str, list[float]] = {}

    def log_metric(name: str, value: float) -> None:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"log_metric({name!r}, {value!r}): no finite number")
        logs.setdefault(name, []).append(number)

    def log_extra(column: str, values: Sequence[Any]) -> None:
        for place, value in zip(at, values, strict=True):
            plain = value if isinstance(value, str | int | float | bool | None) else str(value)
            found.extra.setdefault(place, {})[column] = plain

    given = {**given, "log_metric": log_metric, "log_extra": log_extra}
    for part, values in _values(asked, given, len(said), guard).items():
        _note(role, part, asked[part], values, at, guard, found)
    found.metrics.append({f"log/{name}": Mean(sum(seen), len(seen)) for name, seen in logs.items()})


def _values(
    asked: Mapping[str, Callable[..., Any]], given: Mapping[str, Any], n: int, guard: Guard
) -> dict[str, list[Any] | Fault]:
    """Part -> one value a completion, or what broke."""
    seconds, late = guard.limits.episode_seconds, {}
    found: dict[str, list[Any] | Fault] = {}
    for part, function in asked.items():
        named = _accepted(function, given)
        if is_async(function):
            late[part] = partial(function, **named)
            continue
        try:
            found[part] = guard.call(
                "reward", part, function, (), named, check=partial(_list, n), seconds=seconds, users=False
            )
        except Fault as fault:
            found[part] = fault
    for part, value in _together(late, seconds).items():
        try:
            if isinstance(value, BaseException):
                found[part] = guard.broke("reward", part, value, seconds, asked[part])
            else:
                found[part] = _list(n, value)
        except WrongType as error:
            found[part] = guard.fault("reward", part, error, of=asked[part])
    return {part: found[part] for part in asked}


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  an object whose call is async
    )


def _together(waiting: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, Any]:
    """What each of these gives, or the exception with which it ended. They wait on one event loop, on a
    thread of its own: the caller may stand inside a loop already, and what never lets go is left behind."""
    if not waiting:
        return {}

    async def one(call: Callable[[], Any]) -> Any:
        try:
            return await asyncio.wait_for(call(), seconds or None)
        except TimeoutError:
            return TimeUp(f"no end after {seconds:g} s")
        except Exception as error:
            return error

    async def all() -> list[Any]:
        return await asyncio.gather(*map(one, waiting.values()))

    answers: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(asyncio.run(all()))
        except BaseException as error:
            answers.put([error] * len(waiting))

    threading.Thread(target=work, name="rewards", daemon=True).start()
    try:
        values = next_of(answers, seconds + LEAVE if seconds else math.inf)
    except queue.Empty:
        values = [TimeUp(f"no end after {seconds:g} s")] * len(waiting)
    return dict(zip(waiting, values, strict=True))


def _list(n: int, value: Any) -> list[Any]:
    need(
        not isinstance(value, str | bytes | Mapping)
        and hasattr(value, "__len__")
        and hasattr(value, "__iter__"),
        value,
        "a list with a number for each completion",
    )
    values = list(value)
    if len(values) != n:
        raise WrongType(f"gave {amount(len(values), 'number')} for {amount(n, 'completion')}")
    return values


def _note(
    role: str,
    part: str,
    function: Callable[..., Any],
    values: list[Any] | Fault,
    at: Sequence[tuple[int, int]],
    guard: Guard,
    found: Gathered,
) -> None:
    if isinstance(values, Fault):
        found.broken |= dict.fromkeys(at, values.reason)
        return
    numbers: list[float] = []
    for place, value in zip(at, values, strict=True):
        if value is None:
            continue
        try:
            number = _number(value)
        except WrongType as error:
            found.broken[place] = guard.fault("reward", part, error, of=function).reason
            continue
        numbers.append(number)
        found.parts.setdefault(place, {})[part] = number
    none = sum(value is None for value in values)
    metrics: dict[str, Metric] = {f"reward_none/{role}.{part}": Mean(none, len(values))} if none else {}
    if numbers:
        metrics[f"reward_std/{role}.{part}"] = Last(pstdev(numbers))
    found.metrics.append(metrics)


def _number(value: Any) -> float:
    """Of a tensor or an array with one element, that."""
    if callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except (ValueError, RuntimeError):
            raise WrongType(f"gave {value!r:.60} for one completion, not one number") from None
    if too_large(value):
        raise WrongType(f"gave a number beyond {MOST:g} for one completion, which is too large for a reward")
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongType(f"must give a finite number for each completion or None, gave {value!r:.60}")
    return float(value)


def _with(i: int, tree: Tree, found: Gathered) -> Tree:
    nodes = []
    for node in tree.nodes:
        place = (i, node.id)
        if place in found.broken:
            node = replace(node, status="failed", reason=found.broken[place], reward_parts={})
        elif place in found.parts:
            node = replace(node, reward_parts={**node.reward_parts, **found.parts[place]})
        if place in found.extra:
            node = replace(node, extra=found.extra[place])
        nodes.append(node)
    return replace(tree, nodes=tuple(nodes))
