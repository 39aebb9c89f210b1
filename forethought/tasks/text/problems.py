"""Problems that somebody gave: tasks in free text from files or the hub, drawn by level and split, shown with
plans where they have some.

What `math` and `text` have in common. A class that derives from this one reads its sources into records
(`_records`), and says how an act is shown and judged.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forethought.core.errors import ForethoughtError, RecipeError, UserError
from forethought.core.types import Outcome, Task, Turn, Verdict
from forethought.envs.base import Environment
from forethought.interface.result import Parsed, Refusal, verdict
from forethought.tasks.base import Demonstrates, Split, Taskset, Worked, needed
from forethought.tasks.text.overlap import Overlap
from forethought.tasks.text.sources import HUB
from forethought.tasks.text.turns import Turns

SHOWN = 5  # overlapping pairs that an error names


class Problems(Taskset):
    """Free text: `spaced` is False, budgets are tokens, the vocabulary is the tokenizer's own. `task.state`
    is the record of the problem: `id`, `problem`, `answer`, `solution`, `level`, `plan`, `chain` and `where`
    (file and line)."""

    spaced = False
    turns = 1
    notes: list[str]  # what of the files was left out, in sentences
    _read: Turns
    _train: list[Task]
    _demos: list[Task]  # what imitation and distillation read

    def _sort(self, evaluated: Sequence[Task], levels: tuple[int, ...]) -> None:
        """Put the problems into their pools, once it is settled which there are."""
        self._pools = {"train": by_level(self._train), "eval": by_level(evaluated)}
        self.levels = self._checked_levels(levels)
        # what imitation draws from: after distillation those that were given plans
        self._shown = by_level(self._demos)
        self.has_plans = all(map(self.has_plan, evaluated))  # then acting can be measured under them

    def _records(self, source: str) -> Sequence[Any]:
        """The records of a source, in order. UserError with file and line for one that cannot be read."""
        raise NotImplementedError

    def _task(self, name: str, record: Any) -> Task:
        """The task of a record."""
        raise NotImplementedError

    def vocabulary(self) -> list[str]:
        """Empty: free text, so any tokenizer that can write the tags will do."""
        return []

    # --- tasks ---

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """One problem per level, each drawn from all of the level's in the split."""
        return [rng.choice(self.pool(level, split)) for level in levels]

    def pool(self, level: int, split: Split) -> list[Task]:
        """Every problem of a level in a split, in the order of the files: an evaluation can take each
        once."""
        if level not in self.levels:
            raise RecipeError("task.levels", f"level {level!r} is not one of the task's {list(self.levels)}")
        return self._pools[split][level]

    def longest(self, n: int) -> list[Task]:
        """The `n` longest problems of the task's levels in either split, in characters: where these fit, all
        do."""
        tasks = [task for pool in self._pools.values() for level in self.levels for task in pool[level]]
        return sorted(tasks, key=lambda task: len(task.state.problem))[-n:]

    def problems(self, path: str | Path) -> list[Task]:
        """The tasks of another file, in order, at any level. UserError as the reader raises it, and where
        the training problems repeat some of them."""
        tasks = self._named(str(path), self._records(str(path)))
        self._need_apart(tasks, str(path))
        return tasks

    def _tasks(self, option: str, sources: Sequence[str]) -> list[Task]:
        tasks: dict[str, Task] = {}
        for source in sources:
            try:
                found = self._named(source, self._records(source))
            except UserError as error:
                raise RecipeError(f"task.{option}", str(error)) from error
            for task in found:
                if task.id in tasks:
                    raise RecipeError(
                        f"task.{option}",
                        f"{task.state.where} and {tasks[task.id].state.where} have one id, {task.id!r}; give "
                        "their files or folders different names",
                    )
                tasks[task.id] = task
        return list(tasks.values())

    def _named(self, source: str, records: Sequence[Any]) -> list[Task]:
        name = (
            source.removeprefix(HUB)
            if source.startswith(HUB)
            else "/".join(Path(source).absolute().with_suffix("").parts[-2:])
        )
        return [self._task(f"{name}/{record.id}", record) for record in records]

    def _repeats(self, tested: Sequence[Task]) -> list[Overlap]:
        """The training problems that repeat one of `tested`."""
        raise NotImplementedError

    def _drop_repeats(self, tested: Sequence[Task]) -> None:
        """RecipeError where nothing would be left to train on."""
        gone = {pair.train for pair in self._repeats(tested)}
        if not gone:
            return
        self._train, self._demos = (
            [t for t in tasks if t.id not in gone] for tasks in (self._train, self._demos)
        )
        if not self._train or not self._demos:
            raise RecipeError("task.train", "every training problem repeats a test problem")
        self.notes.append(f"{len(gone)} training problems repeat a test problem and are left out")

    def _need_apart(self, tested: Sequence[Task], where: str) -> None:
        if pairs := self._repeats(tested):
            more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
            raise RecipeError(
                where,
                f"{len(pairs)} times a training problem repeats a test problem: "
                f"{'; '.join(map(str, pairs[:SHOWN]))}{more}. Take the training problems out of the file, or "
                'leave them out with task.repeats = "drop"',
            )

    def _checked_levels(self, levels: Sequence[int]) -> tuple[int, ...]:
        train, evaluated = (set(self._pools[split]) for split in ("train", "eval"))
        if not levels:
            if not train & evaluated:
                raise RecipeError(
                    "task.levels",
                    f"train has the levels {sorted(train)}, eval {sorted(evaluated)}, and none is in both; "
                    "graded = false takes all problems alike",
                )
            return tuple(sorted(train & evaluated))
        for split, found in (("train", train), ("eval", evaluated)):
            if missing := sorted(set(levels) - found):
                raise RecipeError(
                    "task.levels", f"no problem of {split} has level {missing[0]}; it has {sorted(found)}"
                )
        return tuple(sorted(set(levels)))

    # --- plans for training problems (distill/stage.py) ---

    def worked(self, most: int) -> list[Worked]:
        """The training problems of the task's levels, at most `most` (0: all), in order, with their worked
        solutions ("" where there is none), without the answer line of GSM8K."""
        told = [(task, solution_of(task)) for task in self._demos if task.level in self.levels]
        return [
            Worked(
                id=task.id,
                question=task.state.problem,
                chain=chain,
                answer=task.state.answer,
                level=task.level,
                source=task.state.where,
                task=task,
            )
            for task, chain in told[: most or None]
        ]

    def with_plan(self, task: Task, plan: str, chain: str) -> list[Turn]:
        """The demonstration of a problem with this plan and chain. UserError where the interface refuses
        either."""
        return needed(self, Demonstrates, "a guided problem").demonstrate(guided(task, plan, chain))

    def guide(self, plans: Mapping[str, tuple[str, str]]) -> None:
        """Task id -> (plan, chain): from now on imitation shows these problems. UserError where a level has
        none."""
        self._shown = by_level([guided(task, *plans[task.id]) for task in self._demos if task.id in plans])
        if empty := [level for level in self.levels if level not in self._shown]:
            raise UserError(
                f"no training problem of level {empty[0]} got a plan; distil more problems, or "
                f"leave the level out (task.levels)"
            )

    @property
    def all_demonstrable(self) -> bool:  # type: ignore[override]  # nobody sets it here
        """Whether every problem that `demonstrable` can draw has a plan and a chain."""
        drawn = [self._shown.get(level, []) for level in self.levels]
        return all(tasks and all(task.state.plan and task.state.chain for task in tasks) for tasks in drawn)

    def demonstrable(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """Training problems that can be demonstrated, one per level."""
        return [rng.choice(self._shown[level]) for level in levels]

    # --- demonstrations ---

    def has_plan(self, task: Task) -> bool:
        """Whether the problem file gives a plan for the task."""
        return bool(task.state.plan)

    def oracle_plan(self, task: Task) -> str:
        """The record's plan. UserError where it has none (`has_plan`), or one that the interface refuses."""
        if not task.state.plan:
            raise UserError(
                f"{task.state.where}: problem {task.id!r} has no plan; distillation makes a file "
                f"with plans and chains"
            )
        text = f"\n{task.state.plan}\n{self.stops['plan']}"
        self._need_good(task, "plan", self._read.plan(text))
        return text

    def _need_good(self, task: Task, part: str, read: Parsed | Refusal) -> None:
        if isinstance(read, Refusal):
            raise UserError(
                f"{task.state.where}: the {part} of problem {task.id!r} cannot be shown to a model: {read}"
            )

    # --- verdicts ---

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """One closed, non-empty plan, no tag in it, no box (an answer is not a plan), and no more words than
        its budget has tokens."""
        return verdict(self._read.plan(text))

    def judge_plan(self, task: Task, text: str) -> Verdict:
        """What `parse_plan` says: nothing can execute a plan in free words but a model."""
        return self.parse_plan(task, text)

    def meaning(self, task: Task, text: str) -> str:
        """Its words and numbers, without case, punctuation and the numbers of its steps."""
        said = re.sub(r"(?m)^\s*\d+[.)]\s", " ", text.removesuffix(self.stops.get("plan", "")))
        return " ".join(re.findall(r"\w+", said.lower()))

    def environment(self, task: Task, noise: bool) -> Environment:
        """A fresh episode of one turn, graded by the taskset's grader; there is no noise."""
        return OneAnswer(self.graded, task)

    def graded(self, task: Task, text: str) -> Outcome:
        """What an answer to the problem is worth."""
        raise NotImplementedError


class OneAnswer(Environment):
    """One answer to one problem; over after one step."""

    def __init__(self, grade: Callable[[Task, str], Outcome], task: Task):
        self._grade, self._task, self._over = grade, task, False

    def step(self, action: str) -> Outcome:
        """What the answer in `action` is worth."""
        if self._over:
            raise ForethoughtError(
                f"the episode of task {self._task.id!r} is over; ask the taskset for a fresh one"
            )
        self._over = True
        return self._grade(self._task, action)


def guided(task: Task, plan: str, chain: str) -> Task:
    """The task with this plan and this chain."""
    return replace(task, state=replace(task.state, plan=plan, chain=chain))


def solution_of(task: Task) -> str:
    """The worked solution, without the answer line of GSM8K; "" where there is none."""
    return task.state.chain or task.state.solution.partition("\n####")[0].strip()


def by_level(tasks: Sequence[Task]) -> dict[int, list[Task]]:
    """Level -> its tasks, in order."""
    pools: dict[int, list[Task]] = {}
    for task in tasks:
        pools.setdefault(task.level, []).append(task)
    return pools
