"""How long prompts and turns of a taskset are, in tokens, as its demonstrations show: what a model says once
it has learned to end its turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from forethought.core.errors import UserError
from forethought.core.sight import MARK
from forethought.core.types import Task
from forethought.recipe.schema import Recipe
from forethought.recipe.speaking import roles_of
from forethought.tasks import families
from forethought.tasks.base import Sees, Taskset, face
from forethought.workflows.table import workflow_of

SEEN = 24  # tasks that are looked at
WORD = 1.6  # tokens of a word where the tokenizer cannot be read
TEXT = 4.0  # characters of a token, in free text


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Means over some tasks. `told`: what every prompt begins with; `context`: what tasks on one context
    share; `prompt`: the rest of it. `said`, `longest`: role -> tokens of all its turns on a path, on average
    and at most; `budget`: the most that it may say. `drawn`: whether the oracle speaks in evaluations."""

    told: float
    context: float
    prompt: float
    said: Mapping[str, float]
    longest: Mapping[str, float]
    budget: Mapping[str, float]
    drawn: bool

    @property
    def whole(self) -> float:
        """A prompt."""
        return self.told + self.context + self.prompt

    @property
    def cut(self) -> Seen:
        """The same where every turn goes to the end of its budget."""
        return replace(self, said=self.budget, longest=self.budget)


def seen(recipe: Recipe, used: float, levels: Sequence[int] = ()) -> Seen:
    """RecipeError where the task cannot be built. Where nothing can be demonstrated, turns take the share
    `used` of their budget."""
    taskset = families.build(recipe.task, limits=recipe.limits)
    count, roles = counter(recipe, taskset.spaced), roles_of(recipe)
    rng, among = random.Random(0), list(levels or taskset.levels)
    tasks = [taskset.family(rng, [rng.choice(among)], "train")[0] for _ in range(SEEN)]
    said: dict[str, list[float]] = {role: [] for role in roles}
    for task in tasks:
        for role, tokens in _turns(recipe, taskset, task, count).items():
            said[role].append(tokens)
    each = max((count(word) for word in taskset.words(roles)), default=1.0) if taskset.spaced else 1.0
    own = {role: row.budget for role, row in recipe.roles.items() if row.budget}
    budget = {role: float(own.get(role) or taskset.budget(role) * each) for role in roles}
    if roles:
        budget[roles[-1]] *= taskset.turns
    mean = {role: sum(n) / len(n) if n else used * budget[role] for role, n in said.items()}
    return Seen(
        told=count(taskset.told) if taskset.told else 0.0,
        context=sum(count(task.context) for task in tasks) / SEEN,
        prompt=sum(count(task.prompt) + _patches(taskset, task.prompt) for task in tasks) / SEEN,
        said=mean,
        longest={role: max(n, default=budget[role]) for role, n in said.items()},
        budget=budget,
        drawn=bool(taskset.vocabulary()),
    )


def _patches(taskset: Taskset, prompt: str) -> int:
    """Tokens of the pictures that a prompt names, beside the word for each."""
    seeing = face(taskset, Sees)
    names = [word for word in prompt.split() if word.startswith(MARK)] if seeing else []
    return sum(len(seeing.picture(name.removeprefix(MARK)).patches) - 1 for name in names)


def _turns(
    recipe: Recipe, taskset: Taskset, task: Task, count: Callable[[str], float]
) -> Mapping[str, float]:
    """Role -> tokens of its turns in the demonstration; {} where there is none."""
    found: dict[str, float] = {}
    with suppress(UserError):
        for turn in workflow_of(recipe.workflow.name).demonstration(taskset, task):
            if turn.role is not None:
                found[turn.role] = found.get(turn.role, 0.0) + count(turn.text)
    return found


def counter(recipe: Recipe, spaced: bool) -> Callable[[str], float]:
    """A text's tokens: by the model's own tokenizer where its folder has one, a word each for a model from
    scratch on words, else by a rule of thumb."""
    path = Path(recipe.model.path, "tokenizer.json")
    if recipe.model.path and path.is_file():
        with suppress(Exception):  # what is wrong with it says whoever loads the model
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(path))
            return lambda text: float(len(tokenizer.encode(f" {text}", add_special_tokens=False).ids))
    if not spaced:
        return lambda text: len(text) / TEXT
    each = WORD if recipe.model.path else 1.0
    return lambda text: each * len(text.split())
