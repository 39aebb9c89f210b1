"""What a task family is: text in, text out, exact verdicts. Domains know no tokens and no model.

A new family is a module with one class that satisfies `Domain` and one row in
`forethought.tasks.families.DOMAINS`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from forethought.core.types import Task, Turn, Verdict
from forethought.envs.base import Environment

Split = Literal["train", "eval"]


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


class Domain(Protocol):
    """A task family. Options come from the recipe's task table; the constructor raises `RecipeError` for a
    bad one.

    Text convention: the model reads `task.context`, `task.prompt`, then writes the plan up to and including
    `stops["plan"]`, then acts up to and including `stops["act"]`. All are words separated by single spaces.
    """

    name: str
    levels: tuple[int, ...]  # every level the family has
    stops: Mapping[str, str]  # role -> the word that ends its turn
    budgets: Mapping[str, int]  # role -> most words of one turn, the stop included
    turns: int  # most acting turns of one episode (1: the whole execution in one turn)

    def vocabulary(self) -> list[str]:
        """Every word that any text of this family can hold, for a word-level tokenizer."""

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """One task per entry of `levels`, all on the same context where the family has contexts to share.

        The splits are disjoint by content, whatever the seeds.
        """

    def oracle_plan(self, task: Task) -> str:
        """A correct plan, stop word included."""

    def demonstrate(self, task: Task) -> list[Turn]:
        """The oracle's plan, then its acts (with observations between them when `turns` > 1)."""

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """The interface's strict parser: score 1.0 when `text` is a sentence of the plan grammar, else 0.0
        and the position and reason. What it refuses is never executed."""

    def judge_plan(self, task: Task, text: str) -> Verdict:
        """The exact executor of plans: score 1.0 when the plan, perfectly executed, reaches the goal."""

    def meaning(self, task: Task, text: str) -> str:
        """What an accepted plan says, however it is written: plans of one meaning count as one (semantic
        entropy)."""

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """Score 1.0 when the acts are a correct execution of this plan, whether or not the plan is right."""

    def environment(self, task: Task, noise: bool) -> Environment:
        """A fresh environment for one episode of `task`. `noise` switches the family's own noise (slips,
        verifier flips) on."""

    # A family that holds something (a browser, a process) may have close(): it is called once, when the run
    # ends, however it ends.
