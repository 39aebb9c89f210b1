r"""Math problems in free text: plan in words, then think, then the answer in a box.

    messages   system: how to answer; user: the problem
    plan       1. Count the eggs that are left. 2. Price them. </plan>                       opened with
               <plan>
    act        <think> The plan is sound. 16 - 3 - 4 = 9, 9 * 2 = 18. </think> \boxed{18}    to the model's
               own end of text

The published setting of PTA-GRPO (arXiv 2510.01833). No exact executor exists for such plans: the interface
is strict about their form, and what they are worth is the outcome of their executions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Outcome, Task, Turn, Verdict
from forethought.interface.result import Refusal, verdict
from forethought.tasks.math.demos import Demos
from forethought.tasks.math.files import Record, read
from forethought.tasks.math.options import read_options
from forethought.tasks.text.overlap import Overlap, overlap
from forethought.tasks.text.problems import Problems, solution_of
from forethought.tasks.text.turns import Turns


class Math(Problems):
    """The taskset; its options are `recipe.options.texts.Math`.

    `levels`: those of the files; empty: all that both splits have. Raises RecipeError for an option or level
    that cannot be had, a file that cannot be read, and training problems that repeat test problems (with
    their ids).

    Free text, unlike the families of words: `spaced` is False (the pieces of a path are joined as they are),
    budgets are tokens, the vocabulary is the tokenizer's own. `messages(task)` is for the tokenizer's chat
    template, `task.prompt` is the same as plain text for a tokenizer without one; in both cases the
    assistant's turn is then opened with the opening of the first role (`opens`). `stops["act"]` is "": the
    model's own end-of-text token ends the turn. A model from scratch has a tokenizer made from `texts` and
    `marks`."""

    name = "math"
    needs: tuple[str, ...] = ("train", "eval")  # options that cannot be left out

    def __init__(self, levels: tuple[int, ...] = (), **options: object):
        said = read_options(options, self.needs)
        self.opens = {"plan": said.tags.open("plan")}
        self.stops = {"plan": said.tags.close("plan"), "act": ""}
        self.budgets = dict(said.budgets)
        self.system = said.system
        self._read = Turns(said.tags, said.budgets["plan"])
        self._options = said
        self.notes = []
        self._train = self._tasks("train", [said.table.train] if said.table.train else [])
        self._demos = self._of_demos(said.demos) if said.demos else self._train
        evaluated = self._tasks("eval", said.eval)
        if said.table.repeats == "drop":
            self._drop_repeats(evaluated)
        self._need_apart(evaluated, "task.eval")
        self._sort(evaluated, levels)
        if said.demos and (missing := [level for level in self.levels if level not in self._shown]):
            raise RecipeError(
                "task.demos",
                f"has no problem of level {missing[0]}; it has {sorted(self._shown)}; graded = false takes "
                "all problems alike",
            )

    def marks(self) -> list[str]:
        r"""What a tokenizer that is made for this task writes as one token each: the tags, and `\boxed{`."""
        tags = self._options.tags
        return [edge(part) for part in ("plan", "think") for edge in (tags.open, tags.close)] + ["\\boxed{"]

    def texts(self) -> list[str]:
        """What a tokenizer that is made for this task learns from: the training problems with their worked
        solutions."""
        known = {task.id: task for task in (*self._train, *self._demos)}
        return [f"{task.state.problem}\n{_without_marks(solution_of(task))}" for task in known.values()]

    def messages(self, task: Task) -> list[dict[str, str]]:
        """What the model is told, before its turn: [{"role", "content"}], system (where there is one) and
        user."""
        user = {"role": "user", "content": task.state.problem}
        return [{"role": "system", "content": self.system}, user] if self.system else [user]

    def _of_demos(self, demos: Demos) -> list[Task]:
        try:
            records, left_out = demos.records()
        except UserError as error:
            raise RecipeError("task.demos", str(error)) from error
        self.notes += [left_out] if left_out else []
        return self._named(demos.source, records)

    def _records(self, source: str) -> list[Record]:
        return read(source, self._options.table.fields)

    def _task(self, name: str, record: Record) -> Task:
        said = [self.system, record.problem] if self.system else [record.problem]
        return Task(
            id=name,
            taskset=self.name,
            level=record.level if self._options.table.graded else 0,
            context="",
            prompt="\n\n".join(said) + "\n\n",
            state=record,
        )

    def _repeats(self, tested: Sequence[Task]) -> list[Overlap]:
        trained = {t.id: t.state.problem for t in (*self._train, *self._demos)}
        return overlap(trained, {t.id: t.state.problem for t in tested}, self._options.table.overlap)

    # --- demonstrations ---

    def demonstrate(self, task: Task) -> list[Turn]:
        """The record's plan, then its chain and its answer. UserError where it lacks either or the interface
        refuses it."""
        plan = self.oracle_plan(task)
        if not task.state.chain:
            raise UserError(
                f"{task.state.where}: problem {task.id!r} has no chain; distillation makes a "
                f"file with plans and chains"
            )
        tags, chain = self._options.tags, _without_marks(task.state.chain)
        think = f"{tags.open('think')}\n{chain}\n{tags.close('think')}"
        act = f"\n{think}\n\\boxed{{{task.state.answer}}}"
        self._need_good(task, "chain", self._read.act(act))
        return [Turn(role="plan", text=plan), Turn(role="act", text=act)]

    # --- verdicts ---

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """Whether the act has the form: thinking between its tags, then a box. (Whether it keeps to the plan,
        nothing here can tell.)"""
        if len(acts) != 1:
            return Verdict(score=0.0, reason=f"expected 1 turn of acts, found {len(acts)}")
        return verdict(self._read.act(acts[0]))

    def graded(self, task: Task, text: str) -> Outcome:
        """The grader's verdict on the answer in `text`; one without a readable answer is a failure with the
        reason."""
        answer = self._read.answer(text)
        if isinstance(answer, Refusal):
            return Outcome(done=True, reason=str(answer))
        graded = self._options.grader(task.state.answer, answer.value)
        return Outcome(
            done=True, success=graded.score == 1.0, reason=graded.reason, timed_out=graded.timed_out
        )


def _without_marks(chain: str) -> str:
    """A chain without GSM8K's marked calculations, <<16-3=13>>, which repeat what stands beside them."""
    return re.sub(r"<<[^>]*>>", "", chain)
