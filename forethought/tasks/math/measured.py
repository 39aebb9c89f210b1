"""Math problems for a model that is only looked at: nothing to train on is needed, and answers can be counted
and plans compared."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.errors import RecipeError
from forethought.core.types import Task
from forethought.interface.result import Refusal
from forethought.tasks.base import Asked
from forethought.tasks.math.taskset import Math
from forethought.tasks.text.answers import canonical

_ASKS = " ** "  # between a sub-question and its step, in the Socratic solutions of GSM8K (arXiv 2110.14168)


class MeasuredMath(Math):
    """See `Math`. `train` and `eval` may be left out: without `train` there are no training problems to
    repeat, without `eval` the problems come from a file of `problems`."""

    needs = ()
    executes_plans = False  # a verdict on a plan is one on its form

    def _checked_levels(self, levels: Sequence[int]) -> tuple[int, ...]:
        if self._options.table.train and self._options.eval:
            return super()._checked_levels(levels)
        found = sorted(self._pools["eval"])
        if self._options.eval and (missing := sorted(set(levels) - set(found))):
            raise RecipeError("task.levels", f"no problem of eval has level {missing[0]}; it has {found}")
        return tuple(sorted(set(levels))) or tuple(found)

    def origin(self, task: Task) -> str:
        """The file or split of the hub that a problem comes from, as its id begins with it."""
        return task.id.removesuffix(f"/{task.state.id}")

    def vote(self, task: Task, acts: Sequence[str], success: bool) -> str | None:
        """The final answer in one spelling, None where none can be read. All answers that the grader holds
        equal to the gold one are one answer, whatever algebra separates their spellings."""
        answer = self._read.answer(acts[-1])
        if isinstance(answer, Refusal):
            return None
        return canonical(task.state.answer if success else answer.value)

    def asked(self, task: Task) -> Asked:
        """With the sub-questions of a Socratic solution, whose lines are `sub-question ** step`."""
        lines = task.state.solution.splitlines()
        return Asked(
            question=task.state.problem,
            answer=task.state.answer,
            sub_questions=tuple(line.split(_ASKS)[0].strip() for line in lines if _ASKS in line),
        )
