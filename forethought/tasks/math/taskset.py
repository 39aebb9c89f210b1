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

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from forethought.core.errors import ForethoughtError, RecipeError, UserError
from forethought.core.types import Outcome, Task, Turn, Verdict
from forethought.envs.base import Environment
from forethought.interface.result import Parsed, Refusal, verdict
from forethought.tasks.base import Split, Taskset, Worked
from forethought.tasks.math.demos import Demos
from forethought.tasks.math.files import HUB, Record, read
from forethought.tasks.math.grading import Grader
from forethought.tasks.math.options import read_options
from forethought.tasks.math.overlap import Overlap, overlap
from forethought.tasks.math.turns import Turns

SHOWN = 5  # overlapping pairs that an error names


class Math(Taskset):
    """The task family. Options of the recipe's task table:

    train    problems to train on: a JSONL or Parquet file or a split of the hub (see math_files.read)
    eval     problems to measure on, one source or a list; none of them may be repeated by a training problem
    demos    worked problems that distillation and imitation read, where they are others than `train` (see
             math_demos)
    fields   part of a problem -> its field in the files, where the name is not one of the usual ones
    graded   true: levels as the files say them (MATH: 1 to 5; GSM8K: calculations in the solution; none said:
             0); false: all 0
    grader   "auto", "exact" or "math-verify" (see math_grading)
    budgets  most tokens of a plan and an act; default { plan = 512, act = 3072 }. A plan of more words than
             that is refused
    tags     names of the tags, default { plan = "plan", think = "think" }
    system   the system message; "" leaves it out
    overlap  share of a test problem's 13-grams from which a training problem repeats it, default 0.8
    repeats  "refuse" (default): a recipe with such problems does not start; "drop": they are left out, and
             `notes` says how many

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
    spaced = False
    turns = 1
    has_plans = True
    needs = ("train", "eval")  # options that cannot be left out

    def __init__(self, levels: tuple[int, ...] = (), **options: object):
        said = read_options(options, self.needs)
        self.opens = {"plan": said.tags.open("plan")}
        self.stops = {"plan": said.tags.close("plan"), "act": ""}
        self.budgets = dict(said.budgets)
        self.system = said.system
        self._read = Turns(said.tags, said.budgets["plan"])
        self._options = said
        self._train = self._tasks("train", [said.train] if said.train else [])
        self.notes: list[str] = []  # what of the files was left out, in sentences
        self._demos = self._of_demos(said.demos) if said.demos else self._train
        evaluated = self._tasks("eval", said.eval)
        if said.repeats == "drop":
            self._drop_repeats(evaluated)
        self._need_apart(evaluated, "task.eval")
        self._pools = {"train": _by_level(self._train), "eval": _by_level(evaluated)}
        self.levels = self._checked_levels(levels)
        # what imitation draws from: after distillation those that were given plans
        self._shown = _by_level(self._demos)
        if said.demos and (missing := [level for level in self.levels if level not in self._shown]):
            raise RecipeError(
                "task.demos",
                f"has no problem of level {missing[0]}; it has "
                f"{sorted(self._shown)}; graded = false takes all "
                "problems alike",
            )
        self.has_plans = all(map(self.has_plan, evaluated))  # then acting can be measured under them

    def vocabulary(self) -> list[str]:
        """Empty: free text, so any tokenizer that can write the tags will do."""
        return []

    def marks(self) -> list[str]:
        r"""What a tokenizer that is made for this task writes as one token each: the tags, and `\boxed{`."""
        tags = self._options.tags
        return [edge(part) for part in ("plan", "think") for edge in (tags.open, tags.close)] + ["\\boxed{"]

    def texts(self) -> list[str]:
        """What a tokenizer that is made for this task learns from: the training problems with their worked
        solutions."""
        known = {task.id: task for task in (*self._train, *self._demos)}
        return [f"{task.state.problem}\n{_without_marks(_solution(task))}" for task in known.values()]

    def messages(self, task: Task) -> list[dict[str, str]]:
        """What the model is told, before its turn: [{"role", "content"}], system (where there is one) and
        user."""
        user = {"role": "user", "content": task.state.problem}
        return [{"role": "system", "content": self.system}, user] if self.system else [user]

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
        """The tasks of another file, in order, at any level. UserError as `math_files.read` raises it, and
        where the training problems repeat some of them."""
        tasks = self._of_source(str(path))
        self._need_apart(tasks, str(path))
        return tasks

    def _tasks(self, option: str, sources: Sequence[str]) -> list[Task]:
        tasks: dict[str, Task] = {}
        for source in sources:
            try:
                found = self._of_source(source)
            except UserError as error:
                raise RecipeError(f"task.{option}", str(error)) from error
            for task in found:
                if task.id in tasks:
                    raise RecipeError(
                        f"task.{option}",
                        f"{task.state.where} and "
                        f"{tasks[task.id].state.where} have one id, {task.id!r}; "
                        f"give their files or folders different names",
                    )
                tasks[task.id] = task
        return list(tasks.values())

    def _of_demos(self, demos: Demos) -> list[Task]:
        try:
            records, left_out = demos.records()
        except UserError as error:
            raise RecipeError("task.demos", str(error)) from error
        self.notes += [left_out] if left_out else []
        return self._named(demos.source, records)

    def _of_source(self, source: str) -> list[Task]:
        return self._named(source, read(source, self._options.fields))

    def _named(self, source: str, records: Sequence[Record]) -> list[Task]:
        name = (
            source.removeprefix(HUB)
            if source.startswith(HUB)
            else "/".join(Path(source).absolute().with_suffix("").parts[-2:])
        )
        return [self._task(f"{name}/{record.id}", record) for record in records]

    def _task(self, name: str, record: Record) -> Task:
        said = [self.system, record.problem] if self.system else [record.problem]
        return Task(
            id=name,
            taskset=self.name,
            level=record.level if self._options.graded else 0,
            context="",
            prompt="\n\n".join(said) + "\n\n",
            state=record,
        )

    def _repeats(self, tested: Sequence[Task]) -> list[Overlap]:
        trained = {t.id: t.state.problem for t in (*self._train, *self._demos)}
        return overlap(trained, {t.id: t.state.problem for t in tested}, self._options.overlap)

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
                f"{'; '.join(map(str, pairs[:SHOWN]))}{more}. Take the training "
                f"problems out of the file, "
                'or leave them out with task.repeats = "drop"',
            )

    def _checked_levels(self, levels: Sequence[int]) -> tuple[int, ...]:
        train, evaluated = (set(self._pools[split]) for split in ("train", "eval"))
        if not levels:
            if not train & evaluated:
                raise RecipeError(
                    "task.levels",
                    f"train has the levels {sorted(train)}, eval "
                    f"{sorted(evaluated)}, and none is in both; "
                    f"graded = false takes all problems alike",
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
        told = [(task, _solution(task)) for task in self._demos if task.level in self.levels]
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

    def show(self, task: Task, plan: str, chain: str) -> list[Turn]:
        """The demonstration of a problem with this plan and chain. UserError where the interface refuses
        either."""
        return self.demonstrate(_guided(task, plan, chain))

    def guide(self, plans: Mapping[str, tuple[str, str]]) -> None:
        """Task id -> (plan, chain): from now on imitation shows these problems. UserError where a level has
        none."""
        self._shown = _by_level([_guided(task, *plans[task.id]) for task in self._demos if task.id in plans])
        if empty := [level for level in self.levels if level not in self._shown]:
            raise UserError(
                f"no training problem of level {empty[0]} got a plan; distil more problems, or "
                f"leave the level out (task.levels)"
            )

    @property
    def shows(self) -> bool:
        """Whether every problem that `shown` can draw has a plan and a chain."""
        drawn = [self._shown.get(level, []) for level in self.levels]
        return all(tasks and all(task.state.plan and task.state.chain for task in tasks) for tasks in drawn)

    def shown(self, rng: random.Random, levels: list[int]) -> list[Task]:
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
        said = re.sub(r"(?m)^\s*\d+[.)]\s", " ", text.removesuffix(self.stops["plan"]))
        return " ".join(re.findall(r"\w+", said.lower()))

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """Whether the act has the form: thinking between its tags, then a box. (Whether it keeps to the plan,
        nothing here can tell.)"""
        if len(acts) != 1:
            return Verdict(score=0.0, reason=f"expected 1 turn of acts, found {len(acts)}")
        return verdict(self._read.act(acts[0]))

    def environment(self, task: Task, noise: bool) -> MathEnvironment:
        """A fresh episode of one turn, graded by the taskset's grader; there is no noise."""
        return MathEnvironment(self._read, task, self._options.grader)


class MathEnvironment(Environment):
    """One answer to one problem; over after one step."""

    def __init__(self, turns: Turns, task: Task, grade: Grader):
        self._turns, self._task, self._grade = turns, task, grade
        self._over = False

    def step(self, action: str) -> Outcome:
        """Grade the answer in `action`; a text without a readable answer is a failure with the reason."""
        if self._over:
            raise ForethoughtError(
                f"the episode of task {self._task.id!r} is over; ask the taskset for a fresh one"
            )
        self._over = True
        answer = self._turns.answer(action)
        if isinstance(answer, Refusal):
            return Outcome(done=True, reason=str(answer))
        graded = self._grade(self._task.state.answer, answer.value)
        return Outcome(
            done=True, success=graded.score == 1.0, reason=graded.reason, timed_out=graded.timed_out
        )


def _guided(task: Task, plan: str, chain: str) -> Task:
    return replace(task, state=replace(task.state, plan=plan, chain=chain))


def _solution(task: Task) -> str:
    """The worked solution, without the answer line of GSM8K; "" where there is none."""
    return task.state.chain or task.state.solution.partition("\n####")[0].strip()


def _without_marks(chain: str) -> str:
    """A chain without GSM8K's marked calculations, <<16-3=13>>, which repeat what stands beside them."""
    return re.sub(r"<<[^>]*>>", "", chain)


def _by_level(tasks: Sequence[Task]) -> dict[int, list[Task]]:
    pools: dict[int, list[Task]] = {}
    for task in tasks:
        pools.setdefault(task.level, []).append(task)
    return pools
