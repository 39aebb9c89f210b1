"""What roles read and where their turns end, without a model: by the taskset and the chat template."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.core.types import Task
from forethought.envs.guard import Fault
from forethought.recipe.schema import Recipe, RoleSpec
from forethought.recipe.speaking import PLAN, roles_of
from forethought.tasks import families
from forethought.tasks.base import Oracle, Taskset, face


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """`stops`: role -> the word that ends its turn. `budgets`: role -> most tokens, of free text."""

    stops: Mapping[str, str] = field(default_factory=dict)
    budgets: Mapping[str, int] = field(default_factory=dict)
    shown: Mapping[str, Shown] = field(default_factory=dict)

    def prompt(self, role: str, folder: Path) -> str:
        """An example of what the role reads, "" where there is none. `folder`: with the tokenizer."""
        shown = self.shown.get(role)
        return "" if shown is None else shown.text(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A held-out task, as a role reads it. `messages`: for a chat template, None: words or plain text."""

    plain: str
    after: str  # what follows the conversation
    messages: tuple[dict[str, str], ...] | None

    def text(self, folder: Path) -> str:
        """As text; a tokenizer writes it back to the tokens that the run read."""
        if self.messages is not None:
            from forethought.engines.torch.export.folders import tokenizer_of
            from forethought.engines.torch.models.chat import text_of

            tokenizer = tokenizer_of(folder)
            if tokenizer.chat_template:
                return text_of(tokenizer, self.messages, folder.name) + self.after
        return self.plain


def turns_of(recipe: Recipe) -> tuple[Turns, list[str]]:
    """Of the recipe's task, and notes: without the task's data or code only what the recipe itself says."""
    roles = roles_of(recipe)
    rows = {role: recipe.roles.get(role) or RoleSpec() for role in roles}
    try:
        taskset = families.build(recipe.task, to_measure=True, limits=recipe.limits)
    except (UserError, Fault) as error:
        said = {role: row.stop for role, row in rows.items() if row.stop}
        note = (
            f"the task cannot be opened here ({error}), so generation_config.json has the model's own end "
            "alone and the card no example"
        )
        return Turns(stops=said), [note]
    try:
        return Turns(
            stops={role: row.stop or taskset.stop(role) for role, row in rows.items()},
            budgets={role: row.budget or taskset.budget(role) for role, row in rows.items()}
            if not taskset.spaced
            else {},
            shown=_shown(taskset, roles),
        ), []
    finally:
        taskset.close()


def _shown(taskset: Taskset, roles: tuple[str, ...]) -> dict[str, Shown]:
    """What the first role reads of a held-out task; with an oracle of words also what the second one reads
    under the oracle's plan."""
    try:
        task = taskset.family(random.Random(0), [min(taskset.levels)], "eval")[0]
        found = {roles[0]: _first(taskset, task, roles[0])}
        oracle: Any = face(taskset, Oracle)
        if taskset.spaced and oracle is not None and len(roles) == 2 and roles[0] == PLAN:
            said = (found[PLAN].plain, oracle.oracle_plan(task), taskset.opening(roles[1]))
            found[roles[1]] = Shown(plain=" ".join(filter(None, said)), after="", messages=None)
        return found
    except (Fault, UserError, ValueError):  # no held-out task here
        return {}


def _first(taskset: Taskset, task: Task, role: str) -> Shown:
    opening = taskset.opening(role)
    if taskset.spaced:
        said = (task.context, task.prompt, opening)
        return Shown(plain=" ".join(part for part in said if part), after="", messages=None)
    messages = getattr(taskset, "messages", None)
    told = tuple(messages(task)) if messages is not None else None
    return Shown(plain=task.prompt + opening, after=opening, messages=told)
