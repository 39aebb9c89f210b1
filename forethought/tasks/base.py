"""What a taskset is: text in, text out, exact verdicts. It knows no tokens and no model.

A taskset is a class that derives from `Taskset`, which a recipe names (`task.name = "mytask.py:Sums"`); those
that ship are rows in `forethought.tasks.families.TASKSETS`. What it can do beyond that it shows by having the
methods of an optional face (`Oracle`, `Pool`, `Guidable`, ...), which the library asks for in one way:
`face(taskset, Pool)`. docs/tasksets.md has a small one from beginning to end."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar

from forethought.core.errors import RecipeError, UserError
from forethought.core.films import Film
from forethought.core.grounding import Pair
from forethought.core.sight import Seen, Shown, Sight
from forethought.core.types import Outcome, Side, Task, Tree, Turn, Verdict
from forethought.envs.base import Environment
from forethought.interface.uses import Use

Split = Literal["train", "eval"]
Face = TypeVar("Face")
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """A training problem with its worked solution, from which a plan can be distilled. `id` is the task's."""

    id: str
    question: str
    chain: str
    answer: str
    level: int
    source: str
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a plan in free text can be compared with: its problem, the answer that it must not say, and
    sub-questions somebody wrote."""

    question: str
    answer: str
    sub_questions: tuple[str, ...] = ()


class Taskset:
    """Tasks by level and split, an environment for each, and what the interface accepts. Options come from
    the recipe's task table; the constructor raises `RecipeError` for a bad one.

    The model reads `task.context`, `task.prompt` and the opening of the first role's turn; each turn ends
    with the role's stop. Texts are words separated by single spaces, or, with `spaced = False`, free text.

    A class of your own gives `name`, `levels`, `budgets`, `vocabulary`, `family` and `environment`; all that
    follows has a default.
    """

    name: str
    levels: tuple[int, ...]  # every level that there is
    budgets: Mapping[str, int]  # role -> most words of one turn, the stop included (free text: tokens)
    # role -> the word that ends its turn, "": the model's own end. A role that is not here: </role>
    stops: Mapping[str, str] = NOTHING
    # role -> what stands before its turn. A role that is neither here nor in `stops`: <role>
    opens: Mapping[str, str] = NOTHING
    turns: int = 1  # most acting turns of one episode (1: the whole execution in one turn)
    spaced: bool = True  # words with single spaces between them; False: free text
    observation: int = 0  # most words of one observation (free text: tokens); 0: as demonstrations show
    # of a taskset in words: what a model that reads language is told before the task, as one message with it
    # in the model's chat template; "": nothing, the model reads bare words
    told: str = ""
    open_episodes: int = 0  # most that are open at the same time (limits.open_episodes); 0: all
    side: Side = "user"  # who gives observations in a conversation: the user, or a tool
    paths: Sequence[str] = ()  # of the task table: options that are files of data, relative to the recipe
    notes: Sequence[str] = ()  # what a run says at its start, such as what was left out
    has_plans: bool = False  # every task that is evaluated has an oracle's plan; True for an `Oracle`
    all_demonstrable: bool = False  # every task that `demonstrable` draws has one; True for an `Oracle`
    drawn: bool = False  # tasks are drawn without end, and plans have an exact executor
    judges: bool = (
        True  # the environment says whether an episode succeeded; else rewards are the recipe's own
    )
    origins: str = "file"  # what `origin` tells apart, of an `Origins`: measured "by_file", "by_task"
    executes_plans: bool = True  # a verdict on a plan is one on what it leads to, and not on its form alone

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        for name in ("has_plans", "all_demonstrable"):
            if face(cls, Oracle) and not any(name in vars(c) for c in cls.__mro__ if c is not Taskset):
                setattr(cls, name, True)

    def __init__(self, levels: Sequence[int] = ()):
        """`levels`: those of the recipe, by default all of the class. A taskset with options of its own takes
        them by name, beside the levels. RecipeError for a level that there is not."""
        known = tuple(getattr(self, "levels", ()))  # of a class that has none `tasks.own` says so
        if known and (strange := [level for level in levels if level not in known]):
            said = ", ".join(map(str, known))
            raise RecipeError("task.levels", f"{self.name} has no level {strange[0]}; its levels are {said}")
        if known:
            self.levels = tuple(levels) or known

    def vocabulary(self) -> list[str]:
        """Every word that any text can hold, for a word-level tokenizer. Free text has no such list: []."""
        return []

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """One task per entry of `levels`, all on the same context where there are contexts to share. The
        splits are disjoint by content, whatever the seeds."""
        raise NotImplementedError

    def environment(self, task: Task, noise: bool) -> Environment:
        """A fresh environment for one episode of `task`. `noise` switches the taskset's own noise (slips,
        verifier flips) on."""
        raise NotImplementedError

    # ---- a role's turn

    def stop(self, role: str) -> str:
        """The word that ends a turn of the role; "": the model's own end."""
        return self.stops.get(role, f"</{role}>")

    def opening(self, role: str) -> str:
        """What stands before a turn of the role, or ""."""
        return self.opens.get(role, "" if role in self.stops else f"<{role}>")

    def budget(self, role: str) -> int:
        """Most words of a turn; of a role that has none of its own, the largest of the others."""
        return self.budgets.get(role, max(self.budgets.values()))

    def words(self, roles: Sequence[str]) -> list[str]:
        """The vocabulary, with what opens and ends the turns of these roles. Free text has none: []."""
        marks = [mark for role in roles for mark in (self.opening(role), self.stop(role)) if mark]
        return list(dict.fromkeys([*self.vocabulary(), *marks])) if self.spaced else []

    def close(self) -> None:
        """Give back what is held (a browser, a process). Called once, when the run ends, however it ends."""

    # ---- the interface

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """The strict parser: score 1.0 when `text` is a sentence of the plan grammar, else 0.0 and the
        position and reason. What it refuses is never executed."""
        return Verdict(score=1.0)

    def judge_plan(self, task: Task, text: str) -> Verdict:
        """The exact executor of plans: score 1.0 when the plan, perfectly executed, reaches the goal. Without
        one: what the parser says."""
        return self.parse_plan(task, text)

    def meaning(self, task: Task, text: str) -> str:
        """What an accepted plan says, however it is written: plans of one meaning count as one (semantic
        entropy)."""
        return " ".join(text.split())

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """Score 1.0 when the acts are a correct execution of this plan, whether or not the plan is right."""
        return Verdict(score=1.0)

    def vote(self, task: Task, acts: Sequence[str], success: bool) -> str | None:
        """What an execution votes for, where several are asked for the most frequent answer; None:
        nothing."""
        return " ".join(" ".join(acts).split())

    # ---- what reward functions of the recipe are told (learn/batch_functions.py)

    def columns(self, task: Task) -> Mapping[str, Any]:
        """The row of a data set that the task was made from, by column; {} where there is none."""
        return {}

    def asked_as(self, task: Task) -> str | list[dict[str, str]]:
        """The prompt: text, or messages where the data are conversations."""
        return f"{task.context} {task.prompt}".strip() if self.spaced else task.prompt

    # ---- demonstrations

    def has_plan(self, task: Task) -> bool:
        """Whether this task has an oracle's plan."""
        return self.has_plans

    def demonstrable(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """Training tasks to demonstrate, one per level."""
        return self.family(rng, levels, "train")


# ---- optional faces ----------------------------------------------------------------------------------------


class Demonstrates(Protocol):
    """Who shows how a task is done. Imitation needs it."""

    def demonstrate(self, task: Task) -> list[Turn]:
        """Turns in the order in which they are said, with what is observed between them."""


class Oracle(Protocol):
    """Who knows right plans and right acts. Imitation, evaluation of the acting alone, and probes need it."""

    def oracle_plan(self, task: Task) -> str:
        """A correct plan, stop word included."""

    def demonstrate(self, task: Task) -> list[Turn]:
        """The oracle's plan, then its acts (with observations between them when `turns` > 1)."""


class Stepped(Protocol):
    """Whose plans are steps, of which the oracle executes one per turn. The workflows plan_steps and react
    (its demonstrations) need it."""

    def steps(self, task: Task, plan: str) -> list[str]:
        """The steps of an accepted plan in words, in the order in which they are executed; at least one."""


class Thinking(Protocol):
    """Who says what to think before each act of a demonstration. Without it `react` takes the steps of the
    one plan (`Stepped`)."""

    def thoughts(self, task: Task) -> list[str]:
        """One before each act of `demonstrate`, in order, without the stop."""


class Looking(Protocol):
    """Who looks before planning: what matters for a task is named first. The workflow blink_think_link needs
    it."""

    def look(self, task: Task) -> str:
        """What matters for the task, stop word included."""

    def parse_look(self, task: Task, text: str) -> Verdict:
        """As `parse_plan`, of a look."""

    def judge_look(self, task: Task, text: str) -> Verdict:
        """Score 1.0 when what is named is what matters, and nothing else."""


class LooksAgain(Protocol):
    """Who looks again on the pages that come later."""

    def later_looks(self, task: Task) -> list[str]:
        """As `Looking.look`, of each page after the first one of a demonstration."""


class Sees(Protocol):
    """Whose prompts name pictures (`core.sight`), each by one word. For models from scratch."""

    def sight(self) -> Sight:
        """What all pictures have in common."""

    def picture(self, name: str) -> Seen:
        """The picture of a name: the same one each time."""


class DrawsWords(Protocol):
    """Whose texts hold words that are drawn anew for each prompt, and mean nothing where they do not stand
    in it. `model.masks_absent` needs it."""

    def drawn_words(self) -> list[str]:
        """All of them."""


class Shows(Protocol):
    """Who gives pictures whole, too: for vision-language models, which cut them themselves."""

    def shown(self, name: str) -> Shown:
        """The picture of a name: the same one each time."""


class Tooled(Protocol):
    """Whose plans are uses of tools, which the environment answers one by one. The workflows rewoo and
    abstraction need it."""

    def uses(self, task: Task, plan: str) -> list[Use]:
        """What an accepted plan asks for; the names that a use needs are those of uses before it."""

    def call(self, use: Use, values: Mapping[str, str]) -> str:
        """The act that asks the environment for it. `values`: what the names stand for that it needs. A use
        that the environment refuses (an outcome with a reason) has no value."""

    def answer(self, value: str) -> str:
        """The act that answers the task with a value, or with `none`."""


class Answers(Protocol):
    """Who knows what its tools answer. The demonstrations of rewoo and abstraction need it."""

    def answers(self, task: Task, plan: str) -> Mapping[str, str]:
        """Name -> value, of the uses of an accepted plan that have one."""

    def repaired(self, task: Task) -> str:
        """The plan that goes around what the tools refuse of the oracle's, stop word included; "" where they
        refuse nothing."""


class Mutable(Protocol):
    """Whose tasks can be made into others like them. A curriculum that grows its own tasks (kind `webrl`)
    needs it."""

    def mutate(self, task: Task, rng: random.Random) -> Task:
        """Another training task near this one: other objects, other names, a neighbouring level. What is
        drawn is drawn with `rng`, so that one seed gives one task; `task` stays as it is."""


class Rewritten(Protocol):
    """Whose tasks can be said anew by somebody else, in words, with their answer."""

    def rewritten(self, task: Task, question: str, answer: str) -> Task:
        """The training task with this question and answer in place of its own. UserError for words that
        cannot stand there."""

    def graded(self, task: Task, text: str) -> Outcome:
        """What the grader says of an answer."""


class Critic(Protocol):
    """Who says what is wrong with a plan. The workflow modulo needs it."""

    def critique(self, task: Task, plan: str) -> str:
        """The first mistake of a plan, in words that the model can read; "" where it has none."""

    def mistaken(self, task: Task) -> str:
        """A wrong plan that a demonstration begins with, stop word included, so that the answer to its
        mistake is learned; "" for a task that is shown without one."""


class Pool(Protocol):
    """Whose problems somebody gave: there is an end to them."""

    def pool(self, level: int, split: Split) -> list[Task]:
        """Every problem of a level in a split: an evaluation can take each once."""

    def longest(self, n: int) -> list[Task]:
        """The `n` longest problems of all levels and splits, in characters."""


class Files(Protocol):
    """Which can be measured on a file of problems."""

    def problems(self, path: str | Path) -> list[Task]:
        """The tasks of a file, in order, at any level. UserError for one that cannot be read."""


class JudgesActs(Protocol):
    """Which says more of acts than whether they succeed."""

    def judge_acts(self, task: Task, text: str) -> Mapping[str, bool]:
        """executable: each act is legal; goal: and the goal holds after them; optimal: and none are
        shorter."""


class Origins(Protocol):
    """Whose tasks come from several files, or are several kinds of task, which are measured apart."""

    def origin(self, task: Task) -> str:
        """The file that a task is from, or its kind."""


class Watched(Protocol):
    """Whose episodes can be watched, step by step."""

    def watch(self, tasks: Sequence[Task]) -> None:
        """From now on keep what happens on these tasks, and forget what was kept."""

    def groundings(self, tree: Tree) -> list[Pair]:
        """(what was done, what was meant) of each step that was watched of the tree's one trajectory."""

    def film(self, tree: Tree) -> Film | None:
        """The tree's one trajectory in pictures, where there are some."""


class Spells(Protocol):
    """Whose texts are in words of a model's own, which a reader does not know."""

    def in_words(self, task: Task, prompt: str, turns: Sequence[str]) -> list[str]:
        """The prompt, then each turn, in words for a reader."""


class Comparable(Protocol):
    """Whose plans can be compared with what somebody wrote."""

    def asked(self, task: Task) -> Asked:
        """The problem, its answer, and its sub-questions."""


class Guidable(Protocol):
    """Whose training problems can be given plans (distillation)."""

    def worked(self, most: int) -> list[Worked]:
        """Training problems with their worked solutions, at most `most` (0: all), the same ones whenever it
        is asked."""

    def with_plan(self, task: Task, plan: str, chain: str) -> list[Turn]:
        """The demonstration with this plan. UserError where the interface refuses it."""

    def guide(self, plans: Mapping[str, tuple[str, str]]) -> None:
        """Task id -> (plan, chain): from now on these are the problems that imitation shows."""


class Asks(Protocol):
    """What `spaced = False` asks for."""

    def messages(self, task: Task) -> list[dict[str, str]]:
        """The conversation before the model's turn: [{"role", "content"}], for a chat template. `task.prompt`
        is the same as plain text for a model without one."""


class FreeText(Protocol):
    """Free text for which a tokenizer can be made."""

    def messages(self, task: Task) -> list[dict[str, str]]:
        """As `Asks`."""

    def marks(self) -> list[str]:
        """What a tokenizer that is made for these tasks writes as one token each."""

    def texts(self) -> list[str]:
        """What such a tokenizer learns from."""


def needed(taskset: object, kind: type[Face], why: str) -> Face:
    """The taskset as one that has the optional face. UserError, naming who asks, where it has not."""
    found = face(taskset, kind)
    if found is None:
        name = getattr(taskset, "name", type(taskset).__name__)
        lacks = next(n for n in vars(kind) if not n.startswith("_") and not hasattr(taskset, n))
        raise UserError(
            f"{why} asks for a taskset with {lacks} (tasks.base.{kind.__name__}); {name} has none"
        )
    return found


def face(taskset: object, kind: type[Face]) -> Face | None:
    """The taskset as one that has the optional face, or None."""
    members = (name for name in vars(kind) if not name.startswith("_"))
    return taskset if all(hasattr(taskset, name) for name in members) else None  # type: ignore[return-value]
