"""Distillation for families that draw their tasks: which of them are given plans, and what imitation shows of
them afterwards."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from forethought.core.errors import UserError
from forethought.core.types import Task, Turn
from forethought.tasks.base import Taskset, Worked

SEED = "worked"  # of the drawing: the same tasks in every run, as a file of problems has them
TRIES = 20  # draws for each task asked for, after which a family has no more that differ


class Guided(Taskset):
    """A taskset whose tasks are drawn without end and whose plans have an exact executor.

    The chain of a task is what its oracle does (acts and observations), its answer the last turn of acting.
    Until `guide` is called the family shows fresh tasks under its oracle's plans, drawn as `family` draws
    them. The family's own `demonstrate` takes the plan from `plan_of`; `spelled` gives an accepted plan in
    the family's own spelling.
    """

    drawn = True

    def demonstrate(self, task: Task) -> list[Turn]:
        """The oracle's plan (or the one that was given), then its acts."""
        raise NotImplementedError

    def spelled(self, task: Task, text: str) -> str:
        """An accepted plan in the taskset's own spelling."""
        raise NotImplementedError

    _drawn: Mapping[str, Task] = MappingProxyType({})  # id -> task, of those that `worked` has drawn
    _plans: Mapping[str, str] = MappingProxyType({})  # id -> plan, stop word included
    _shown: Mapping[int, Sequence[Task]] = MappingProxyType({})  # level -> tasks that were given plans

    def worked(self, most: int) -> list[Worked]:
        """At most `most` training tasks, no two alike, the levels in turn; the same ones whenever it is
        asked."""
        rng = random.Random(SEED)
        found: dict[tuple[str, str], Task] = {}
        for i in range(TRIES * most):
            if len(found) == most:
                break
            [task] = self.family(rng, [self.levels[i % len(self.levels)]], "train")
            found.setdefault((task.context, task.prompt), task)
        self._drawn = {task.id: task for task in found.values()}
        return [self._worked(task) for task in found.values()]

    def _worked(self, task: Task) -> Worked:
        turns = [turn for turn in self.demonstrate(task) if turn.role != "plan"]
        answer = (
            next(turn.text for turn in reversed(turns) if turn.role == "act")
            .removesuffix(self.stops["act"])
            .strip()
        )
        return Worked(
            id=task.id,
            question=f"{task.context} {task.prompt}".strip(),
            chain=" ".join(turn.text for turn in turns),
            answer=answer,
            level=task.level,
            source=self.name,
            task=task,
        )

    def with_plan(self, task: Task, plan: str, chain: str) -> list[Turn]:
        """The demonstration of a task with this plan (without its stop word). UserError where the interface
        refuses the plan."""
        text = f"{' '.join(plan.split())} {self.stops['plan']}"
        verdict = self.parse_plan(task, text)
        if not verdict.score:
            raise UserError(f"{self.name} cannot show the plan: {verdict.reason}")
        return [
            Turn(role="plan", text=self.spelled(task, text)),
            *(turn for turn in self.demonstrate(task) if turn.role != "plan"),
        ]

    def guide(self, plans: Mapping[str, tuple[str, str]]) -> None:
        """Task id -> (plan, chain), of tasks that `worked` has drawn: from now on imitation shows these.
        UserError for a task that is not among them, a plan that cannot be shown, or a level without one."""
        if foreign := [id for id in plans if id not in self._drawn]:
            raise UserError(
                f"{foreign[0]!r} is none of the {len(self._drawn)} tasks that {self.name} draws "
                f"here; distil again"
            )
        given = {
            id: self.with_plan(self._drawn[id], plan, chain)[0].text for id, (plan, chain) in plans.items()
        }
        shown = {
            level: [self._drawn[id] for id in given if self._drawn[id].level == level]
            for level in self.levels
        }
        if empty := [level for level, tasks in shown.items() if not tasks]:
            raise UserError(
                f"no task of level {empty[0]} got a plan; distil more tasks (distill.problems), "
                f"or leave the level out"
            )
        self._plans, self._shown = given, shown

    def demonstrable(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """Training tasks to demonstrate, one per level: those that were given plans, or fresh ones where none
        was."""
        if not self._shown:
            return self.family(rng, levels, "train")
        return [rng.choice(self._shown[level]) for level in levels]

    def plan_of(self, task: Task, oracle: str) -> str:
        """The plan that was distilled for a task, else the oracle's; both with their stop word."""
        return self._plans.get(task.id, oracle)
