"""`text`: prompts of one's own, from a file with any columns.

task = { name = "text", train = "data.jsonl", prompt = "{question}", answer = "answer", grader = "number" }

none   the prompt, and what the model answers to its own end of text (flat; workflow act_only)
tags   the prompt, then a plan that ends with </plan> (opened with <plan>), then the answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from forethought.core.errors import RecipeError, UserError
from forethought.core.seeds import seed_of
from forethought.core.types import Outcome, Task, Turn, Verdict
from forethought.tasks.text.graders import Grader
from forethought.tasks.text.options import read_options
from forethought.tasks.text.overlap import Overlap, words
from forethought.tasks.text.problems import Problems
from forethought.tasks.text.prompts import Messages
from forethought.tasks.text.records import Record, records_of
from forethought.tasks.text.turns import Turns

MOST_HELD_OUT = 500  # problems that are held out of `train` where there is no `eval`


class Text(Problems):
    """The taskset; its options are `recipe.options.texts.Text`.

    Reward functions get every column under its name. Raises RecipeError for an option, a file or a row that
    cannot be had, with file and line."""

    name = "text"

    def __init__(self, levels: tuple[int, ...] = (), **options: object):
        said = self._options = read_options(options)
        self.plans = said.table.plan != "none"
        self.notes = []
        self.judges = said.grader is not None
        self.executes_plans = False
        self.opens = {"plan": said.tags.open("plan")} if self.plans else {}
        self.stops = ({"plan": said.tags.close("plan")} if self.plans else {}) | {"act": ""}
        self.budgets = dict(said.budgets) if self.plans else {"act": said.budgets["act"]}
        self._read = Turns(said.tags, said.budgets["plan"])
        self._examples: list[Record] = []
        self._train = self._tasks("train", [said.table.train])
        self._examples = self._shots()
        self._train = [replace(task, prompt=self._prompt(task.state)) for task in self._train]
        evaluated = self._tasks("eval", said.eval) if said.eval else self._held_out()
        self._demos = self._train
        if said.table.repeats == "drop":
            self._drop_repeats(evaluated)
        self._need_apart(evaluated, "task.eval")
        self._note_twins()
        self._sort(evaluated, levels)
        if not self.plans:
            self.has_plans = False

    # --- problems ---

    def _records(self, source: str) -> Sequence[Record]:
        return records_of(source, self._options)

    def _task(self, name: str, record: Record) -> Task:
        return Task(
            id=name,
            taskset=self.name,
            level=record.level,
            context="",
            prompt=self._prompt(record),
            state=record,
        )

    def _held_out(self) -> list[Task]:
        """A share of the training problems, drawn by what they say: equal prompts stay together."""
        keys = {task.id: seed_of("held out", task.state.problem) for task in self._train}
        order = sorted(set(keys.values()))
        n = min(max(round(self._options.table.held_out * len(order)), 1), MOST_HELD_OUT)
        if n >= len(order):
            raise RecipeError(
                "task.train",
                f"{self._options.table.train} has {len(order)} different prompts, too few to "
                'hold some out for evaluation; give more, or name a file: eval = "FILE"',
            )
        kept = set(order[:n])
        held = [task for task in self._train if keys[task.id] in kept]
        self._train = [task for task in self._train if keys[task.id] not in kept]
        self.notes.append(
            f"no task.eval: {len(held)} of the {len(held) + len(self._train)} problems of "
            f"{self._options.table.train} are held out for evaluation"
        )
        return held

    def _shots(self) -> list[Record]:
        """The worked examples; those taken from `train` are no longer trained on."""
        shots = self._options.table.shots
        if isinstance(shots, str):
            try:
                records = list(self._records(shots))
            except UserError as error:
                raise RecipeError("task.shots", str(error)) from None
        else:
            if shots >= len(self._train):
                raise RecipeError("task.shots", f"{shots} examples of {len(self._train)} problems leave none")
            order = sorted(self._train, key=lambda task: seed_of("shots", task.state.problem))
            taken = {task.id for task in order[:shots]}
            records = [task.state for task in order[:shots]]
            self._train = [task for task in self._train if task.id not in taken]
        for record in records:
            if not self._example(record):
                raise RecipeError(
                    "task.shots",
                    f"{record.where}: an example needs "
                    + ("a plan (column plan) and " if self.plans else "")
                    + "an answer or a solution to show; name the column: answer, solution, plan_column",
                )
        return records

    def _repeats(self, tested: Sequence[Task]) -> list[Overlap]:
        """Training problems that ask in the same words: a template makes all prompts of a set look alike, so
        their 13-grams say nothing here."""
        asked = {words(task.state.problem): task.id for task in tested}
        return [
            Overlap(train=task.id, test=asked[said], share=1.0)
            for task in self._train
            if (said := words(task.state.problem)) in asked and said
        ]

    def _note_twins(self) -> None:
        """Prompts that stand in `train` more than once: they are drawn more often, and may contradict each
        other."""
        first: dict[str, Task] = {}
        twins: list[tuple[Task, Task]] = []
        for task in self._train:
            seen = first.setdefault(task.state.problem, task)
            if seen is not task:
                twins.append((seen, task))
        if twins:
            a, b = next((pair for pair in twins if pair[0].state.answer != pair[1].state.answer), twins[0])
            what = ", some with different answers" if a.state.answer != b.state.answer else ""
            self.notes.append(
                f"{len(twins)} training problems repeat the prompt of another{what} (such as "
                f"{b.state.where} and {a.state.where}); each is drawn by itself"
            )

    # --- what the model reads ---

    def messages(self, task: Task) -> list[dict[str, str]]:
        """What the model is told before its turn; [] where the recipe asks for plain text."""
        if not self._options.table.chat:
            return []
        said = [{"role": "system", "content": self._options.system}] if self._options.system else []
        own = list(_conversation(task.state))
        if said and own[0]["role"] == "system":
            own = own[1:]
        for record in self._examples:
            said += [*_conversation(record), {"role": "assistant", "content": self._example(record)}]
        return [*said, *own]

    def _prompt(self, record: Record) -> str:
        """The same as plain text: system message, examples and prompt, with an empty line between them; the
        bare prompt as it is where there is nothing else."""
        said = [self._options.system] if self._options.system else []
        said += [f"{one.problem}\n{self._example(one)}" for one in self._examples]
        prompt = "\n\n".join([*said, record.problem])
        return prompt + "\n" if self.plans and not prompt.endswith("\n") else prompt

    def marks(self) -> list[str]:
        """What a tokenizer that is made for this task writes as one token each: the tags of the plan."""
        tags = self._options.tags
        return [tags.open("plan"), tags.close("plan")] if self.plans else []

    def texts(self) -> list[str]:
        """What a tokenizer that is made for this task learns from: the training problems and their
        answers."""
        return [f"{task.state.problem}\n{_act_of(task.state)}" for task in self._train]

    # --- reward functions ---

    def columns(self, task: Task) -> Mapping[str, Any]:
        """The row as the file has it."""
        return task.state.columns

    def asked_as(self, task: Task) -> str | list[dict[str, str]]:
        """The prompt as the data have it: text, or messages."""
        return list(task.state.messages) or task.state.problem

    # --- tasks that somebody else writes anew ---

    def rewritten(self, task: Task, question: str, answer: str) -> Task:
        """The problem with another question and answer. UserError where a held-out problem asks the same, or
        where no answer can match."""
        if words(question) in self._asked_of_eval or not words(question):
            raise UserError("the new question is empty, or that of a held-out problem")
        grader, record = self._options.grader, task.state
        if grader is not None and (why := grader.why_not(answer)):
            raise UserError(f"no answer can match {answer!r:.60}: {why}")
        system = tuple(message for message in record.messages if message["role"] == "system")
        new = replace(
            record,
            id=f"{record.id}-{seed_of(question, answer):x}",
            problem=question,
            messages=(*system, {"role": "user", "content": question}) if record.messages else (),
            answer=answer,
            columns=dict(record.columns) | ({self._options.table.answer: answer} if record.answer else {}),
            solution="",
            plan="",
            chain="",
            where=f"{record.where}, written anew",
        )
        return self._task(f"{task.id.rpartition('/')[0]}/{new.id}", new)

    @cached_property
    def _asked_of_eval(self) -> frozenset[tuple[str, ...]]:
        return frozenset(words(task.state.problem) for pool in self._pools["eval"].values() for task in pool)

    # --- demonstrations ---

    def _example(self, record: Record) -> str:
        """A whole answer as the model is to write it, "" where the record has none."""
        act = _act_of(record)
        if not self.plans or not act:
            return act
        tags = self._options.tags
        return f"{tags.open('plan')}\n{record.plan}\n{tags.close('plan')}\n{act}" if record.plan else ""

    def demonstrate(self, task: Task) -> list[Turn]:
        """The record's plan, where there are plans, and its answer. UserError where it lacks one."""
        plan = [Turn(role="plan", text=self.oracle_plan(task))] if self.plans else []
        act = _act_of(task.state)
        if not act:
            raise UserError(f"{task.state.where}: nothing to show: no answer and no solution")
        return [*plan, Turn(role="act", text=f"\n{act}" if self.plans else act)]

    @property
    def all_demonstrable(self) -> bool:  # type: ignore[override]  # nobody sets it here
        """Whether every problem that can be drawn has what imitation shows."""
        drawn = [self._shown.get(level, []) for level in self.levels]
        good = [_act_of(t.state) and (t.state.plan or not self.plans) for tasks in drawn for t in tasks]
        return all(drawn) and all(good)

    # --- verdicts ---

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """Nothing here can tell whether an answer keeps to its plan."""
        return Verdict(score=1.0)

    def vote(self, task: Task, acts: Sequence[str], success: bool) -> str | None:
        """What the grader reads in the last act; without one that reads, its words."""
        grader = self._options.grader
        if isinstance(grader, Grader) and acts:
            return grader.read(acts[-1])
        return super().vote(task, acts, success)

    def graded(self, task: Task, text: str) -> Outcome:
        """What the grader says; nothing where there is none."""
        grader = self._options.grader
        if grader is None:
            return Outcome(done=True, success=None)
        return grader.graded(text, task.state.answer, task.state.columns)


def _conversation(record: Record) -> Messages:
    return record.messages or ({"role": "user", "content": record.problem},)


def _act_of(record: Record) -> str:
    """What is shown as an answer: the chain of a distilled plan or the worked solution, with the answer at
    its end, or the answer alone."""
    chain = (record.chain or record.solution).strip()
    if not chain:
        return record.answer
    return (
        chain
        if not record.answer or record.answer in chain[-len(record.answer) - 40 :]
        else f"{chain}\n{record.answer}"
    )
