"""Whether a taskset keeps what `base.Taskset` promises, found by asking it: what somebody who wrote one wants
to know before anything trains on it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from forethought.core.errors import UserError
from forethought.core.types import Outcome, Task, Turn, Undrawn
from forethought.envs.pool import play
from forethought.tasks.base import (
    Asks,
    Demonstrates,
    FreeText,
    Mutable,
    Oracle,
    Pool,
    Split,
    Taskset,
    face,
    needed,
)

CHECK = "this check"
DRAWN = 40  # tasks of a level and split that are looked at
PLAYED = 8  # of them, how many are played
NONSENSE = ("", "x", "nonsense that no grammar knows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`wrong` "": it holds."""

    what: str
    wrong: str = ""


def conformance(taskset: Taskset) -> list[Finding]:
    """Every promise with what is wrong, on some tasks of each level and split. Nothing is raised for what the
    taskset does wrong."""
    drawn: dict[tuple[int, Split], list[Task]] = {}
    found = [_asked("tasks are drawn at every level, in both splits", lambda: _draw(taskset, drawn))]
    if found[0].wrong:
        return found
    tasks = [task for some in drawn.values() for task in some]
    train = [task for (_, split), some in drawn.items() if split == "train" for task in some]
    shown = [task for level in taskset.levels for task in drawn[level, "train"][:PLAYED]]
    questions: list[tuple[str, Callable[[], str]]] = [
        ("the same seed draws the same tasks", lambda: _deterministic(taskset)),
        ("no task stands in both splits", lambda: _disjoint(drawn)),
        ("one id means one task", lambda: _ids(tasks)),
    ]
    if face(taskset, Mutable):
        said = "tasks that are made into others stay training tasks, the same for the same seed"
        questions.append((said, lambda: _mutated(taskset, shown, drawn)))
    if taskset.spaced:
        questions.append(("every word of the tasks is in the vocabulary", lambda: _words(taskset, tasks)))
    if face(taskset, FreeText):
        questions.append(("conversations are lists of messages", lambda: _messages(taskset, tasks)))
    questions.append(
        ("a text that means nothing is refused or judged, not broken over", lambda: _nonsense(taskset, train))
    )
    if face(taskset, Oracle) and taskset.has_plans:
        questions += [
            (
                "the parser accepts the oracle's plans, and the judge finds them right",
                lambda: _plans(taskset, tasks),
            ),
            (
                "demonstrations are turns within their budgets, each with its stop",
                lambda: _turns(taskset, shown),
            ),
            (
                "the oracle's acts reach the goal in the environment, each time",
                lambda: _plays(taskset, shown),
            ),
        ]
    return found + [_asked(what, question) for what, question in questions]


def _asked(what: str, question: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, wrong=question())
    except UserError as error:  # a Fault of the taskset among them
        return Finding(what=what, wrong=str(error))


def _draw(taskset: Taskset, drawn: dict[tuple[int, Split], list[Task]]) -> str:
    if not taskset.levels:
        return "it has no levels"
    splits: tuple[Split, ...] = ("train", "eval")
    for level in taskset.levels:
        for split in splits:
            given = face(taskset, Pool)
            pool = given.pool(level, split)[:DRAWN] if given else _family(taskset, level, split)
            if strange := [task for task in pool if task.level != level]:
                return f"asked for level {level}, it gave task {strange[0].id!r} of level {strange[0].level}"
            if not pool and not given:
                return f"no task of level {level} ({split})"
            drawn[level, split] = [task for task in pool if not isinstance(task.state, Undrawn)]
    return "" if any(drawn.values()) else "no task could be drawn"


def _family(taskset: Taskset, level: int, split: Split) -> list[Task]:
    return taskset.family(random.Random(f"{level}/{split}"), [level] * DRAWN, split)


def _deterministic(taskset: Taskset) -> str:
    if given := face(taskset, Pool):
        ids = [[task.id for task in given.pool(level, "train")] for _ in range(2) for level in taskset.levels]
        half = len(ids) // 2
        return "" if ids[:half] == ids[half:] else "the pool gave other tasks when it was asked again"
    for level in taskset.levels:
        first, again = (_family(taskset, level, "train") for _ in range(2))
        for one, other in zip(first, again, strict=True):
            if (one.id, one.context, one.prompt) != (other.id, other.context, other.prompt):
                return (
                    f"level {level} gave {one.prompt!r:.60} and then {other.prompt!r:.60} for one seed; draw "
                    f"with the rng that `family` is given, and with nothing else"
                )
    return ""


def _mutated(taskset: Taskset, tasks: Sequence[Task], drawn: dict[tuple[int, Split], list[Task]]) -> str:
    able = needed(taskset, Mutable, CHECK)
    held_out = {_content(task) for (_, split), some in drawn.items() if split == "eval" for task in some}
    for i, task in enumerate(tasks):
        one, again = (able.mutate(task, random.Random(i)) for _ in range(2))
        if _content(one) != _content(again):
            return f"{task.id!r} became {one.prompt!r:.60} and then {again.prompt!r:.60} for one seed"
        if one.level not in taskset.levels:
            return f"{task.id!r} became a task of level {one.level}, which there is not"
        if _content(one) in held_out:
            return f"{task.id!r} became {one.id!r}, which is held out"
        if taskset.spaced and (wrong := _words(taskset, [one])):
            return wrong
    return ""


def _content(task: Task) -> tuple[str, str]:
    return task.context, task.prompt


def _disjoint(drawn: dict[tuple[int, Split], list[Task]]) -> str:
    train: dict[tuple[str, str], list[Task]] = {}
    for (_, split), some in drawn.items():
        for task in some if split == "train" else ():
            train.setdefault(_content(task), []).append(task)
    held_out = {
        _content(task): task for (_, split), some in drawn.items() if split == "eval" for task in some
    }
    both = [
        task for what, task in held_out.items() if any(_alike(task, other) for other in train.get(what, ()))
    ]
    if not both:
        return ""
    return (
        f"{len(both)} of {len(held_out)} held-out tasks are training tasks too, such as "
        f"{both[0].prompt!r:.80}; split by content, such as crc32(prompt) % 5 == 0 for eval"
    )


def _alike(task: Task, other: Task) -> bool:
    """Of two tasks that read the same: whether they are one. Episodes of an environment may differ in their
    seed alone."""
    comparable = type(task.state).__eq__ is not object.__eq__
    return not comparable or task.state is None or task.state == other.state


def _ids(tasks: Sequence[Task]) -> str:
    seen: dict[str, tuple[str, str]] = {}
    for task in tasks:
        if seen.setdefault(task.id, _content(task)) != _content(task):
            return f"id {task.id!r} stands for {seen[task.id][1]!r:.60} and for {task.prompt!r:.60}"
    return ""


def _words(taskset: Taskset, tasks: Sequence[Task]) -> str:
    known = {*taskset.vocabulary(), *taskset.stops.values(), *taskset.opens.values()}
    known |= {mark for role in _roles(taskset) for mark in (taskset.stop(role), taskset.opening(role))}
    for text, where in _texts(taskset, tasks):
        if strange := [word for word in text.split() if word not in known]:
            return f"{strange[0]!r}, in {where}, is not in vocabulary()"
    return ""


def _texts(taskset: Taskset, tasks: Sequence[Task]) -> Iterator[tuple[str, str]]:
    for task in tasks:
        yield f"{task.context} {task.prompt}", f"the prompt {task.prompt!r:.60}"
        if (oracle := face(taskset, Oracle)) and taskset.has_plan(task):
            yield oracle.oracle_plan(task), f"the oracle's plan of {task.prompt!r:.60}"
            for turn in needed(taskset, Demonstrates, CHECK).demonstrate(task):
                yield turn.text, f"the demonstration of {task.prompt!r:.60}"


def _roles(taskset: Taskset) -> list[str]:
    return list(dict.fromkeys([*taskset.budgets, *taskset.stops]))


def _messages(taskset: Taskset, tasks: Sequence[Task]) -> str:
    for task in tasks[:PLAYED]:
        said = needed(taskset, Asks, CHECK).messages(task)
        good = isinstance(said, list) and said and all({"role", "content"} <= set(one) for one in said)
        if not good:
            return f"of {task.prompt!r:.60}: {said!r:.80}, not [{{'role': ..., 'content': ...}}]"
    return ""


def _nonsense(taskset: Taskset, tasks: Sequence[Task]) -> str:
    for task in tasks[:PLAYED]:
        for text in NONSENSE:
            taskset.parse_plan(task, text)
            taskset.judge_plan(task, text)
            taskset.meaning(task, text)
            answers = play(taskset.environment(task, False), task, [text])
            if any(isinstance(one, Outcome) and one.success for one in answers):
                return f"acting with {text!r} on {task.prompt!r:.60} counts as a success"
    return ""


def _plans(taskset: Taskset, tasks: Sequence[Task]) -> str:
    for task in tasks:
        if not taskset.has_plan(task):
            continue
        plan = needed(taskset, Oracle, CHECK).oracle_plan(task)
        for name, verdict in (
            ("parse", taskset.parse_plan(task, plan)),
            ("judge", taskset.judge_plan(task, plan)),
        ):
            if verdict.score != 1.0:
                said = f"{name}_plan gives {plan!r:.60} for {task.prompt!r:.60}"
                return f"{said} {verdict.score}{f': {verdict.reason}' if verdict.reason else ''}"
        if taskset.meaning(task, plan) != taskset.meaning(task, plan):
            return f"meaning of {plan!r:.60} is not the same twice"
    return ""


def _turns(taskset: Taskset, tasks: Sequence[Task]) -> str:
    for task in (task for task in tasks if taskset.has_plan(task)):
        turns = needed(taskset, Demonstrates, CHECK).demonstrate(task)
        for turn, after in pairwise([*turns, None]):
            wrong = _turn(taskset, turn, after)
            if wrong:
                return f"of {task.prompt!r:.60}: {wrong}"
        if turns[0].role and turns[0].role != turns[-1].role:
            if turns[0].text != needed(taskset, Oracle, CHECK).oracle_plan(task):
                return f"of {task.prompt!r:.60}: the first turn is not the oracle's plan"
    return ""


def _turn(taskset: Taskset, turn: Turn | None, after: Turn | None) -> str:
    if turn is None or turn.role is None:
        return "" if after is not None else "it ends with an observation"
    stop = taskset.stop(turn.role)
    if stop and not turn.text.endswith(stop):
        return f"the turn {turn.text!r:.60} of {turn.role} does not end with its stop {stop!r}"
    if taskset.spaced and len(turn.text.split()) > taskset.budget(turn.role):
        return (
            f"the turn {turn.text!r:.60} of {turn.role} has {len(turn.text.split())} words, its budget is "
            f"{taskset.budget(turn.role)}"
        )
    return ""


def _plays(taskset: Taskset, tasks: Sequence[Task]) -> str:
    for task in (task for task in tasks if taskset.has_plan(task)):
        turns = needed(taskset, Demonstrates, CHECK).demonstrate(task)
        acting = turns[-1].role
        acts = [turn.text for turn in turns if turn.role == acting]
        if len(acts) > taskset.turns:
            return f"of {task.prompt!r:.60}: {len(acts)} acting turns, and `turns` is {taskset.turns}"
        first, again = (play(taskset.environment(task, False), task, acts, seed=1) for _ in range(2))
        last = first[-1]
        if not (isinstance(last, Outcome) and last.success):
            reason = last.reason if isinstance(last, Outcome) else "the episode did not begin"
            return (
                f"of {task.prompt!r:.60}: after {acts[-1]!r:.60} no success ({reason or 'no reason given'})"
            )
        if first != again:
            return f"of {task.prompt!r:.60}: the same seed and acts gave two different episodes"
    return ""
