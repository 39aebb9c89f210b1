"""Carries out the uses of tools that a plan asks for: what waits for nothing goes at once, in waves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from forethought.core.types import Outcome, Task
from forethought.envs.values import MOST_TEXT
from forethought.interface.uses import Use
from forethought.tasks.base import Taskset, Tooled, needed
from forethought.workflows.trajectory import Trajectory, WorkflowError, together

NONE = "none"
"""What stands for a value that there is not."""


@dataclass(slots=True)
class Evidence:
    """`values`: name -> what a tool answered; `refused`: name -> why it has no answer; `lost`: uses that need
    a value that there is not, and are not carried out. `waves`: steps that had to wait for one another;
    `calls`: how often a tool was asked."""

    values: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    waves: int = 0
    calls: int = 0

    def loses(self, use: Use) -> bool:
        """Whether it needs a value that there is not; then it has none either."""
        if lost := self.refused.keys() & use.needs or self.lost & set(use.needs):
            self.lost.add(use.name)
        return bool(lost)

    def overfills(self, use: Use) -> bool:
        """Whether the values make its input longer than any text that is read; then it has no answer."""
        size = len(use.given) + sum(use.given.count(name) * len(self.values[name]) for name in use.needs)
        if size > MOST_TEXT:
            self.refused[use.name] = f"{use.tool} would be given {size:,} characters, more than {MOST_TEXT:,}"
        return size > MOST_TEXT

    def take(self, use: Use, answer: Outcome | None) -> None:
        """What a tool answered. No value: nothing, `none`, an outcome with a reason, one that ends the
        episode, and what is too long to be read with the values before it."""
        value = (answer.observation or "").strip() if answer and not answer.done else ""
        if sum(map(len, self.values.values())) + len(value) > MOST_TEXT:
            self.refused[use.name] = f"all answers together have more than {MOST_TEXT:,} characters"
            return
        if answer is None or answer.missed or value in ("", NONE):
            self.refused[use.name] = (answer.reason if answer else "") or f"{use.tool} has no answer"
        else:
            self.values[use.name] = value


async def carried(plan: Trajectory, uses: Sequence[Use]) -> Evidence | None:
    """What comes of the uses, each as soon as what it needs is there: those of a wave are asked at the same
    time, each in an episode of its own. The plan's turn gets the parts `tools`, `waves` and `refused`. None
    where a tool broke: the branch has failed."""
    found, left = Evidence(), list(uses)
    while left:
        known = found.values.keys() | found.refused.keys() | found.lost
        ready = [use for use in left if known >= set(use.needs)]
        if not ready:
            with plan.guard("parse"):
                raise WorkflowError(f"{left[0].name} waits for {', '.join(left[0].needs)}, which never come")
            return None
        left = [use for use in left if use not in ready]
        if not (asked := [use for use in ready if not (found.loses(use) or found.overfills(use))]):
            continue
        found.waves, found.calls = found.waves + 1, found.calls + len(asked)
        answers = await together(_asked(plan, use, found.values) for use in asked)
        if plan.ended:
            return None
        for use, answer in zip(asked, answers, strict=True):
            found.take(use, answer)
    missing = len(found.refused) + len(found.lost)
    plan.reward(tools=float(found.calls), waves=float(found.waves), refused=float(missing))
    return found


async def _asked(plan: Trajectory, use: Use, values: Mapping[str, str]) -> Outcome | None:
    act = ""
    with plan.guard("parse"):
        act = tooled(plan.taskset).call(use, {name: values[name] for name in use.needs})
    return None if plan.ended else await plan.consult(act)


def read(plan: Trajectory, task: Task) -> list[Use]:
    """What the turn just said asks for. The branch has ended where the taskset breaks over it."""
    uses: list[Use] = []
    with plan.guard("parse"):
        uses = list(tooled(plan.taskset).uses(task, plan.text))
        if not uses:
            raise WorkflowError("the plan asks no tool")
    return uses


def said(taskset: Taskset, values: Mapping[str, str], names: Iterable[str]) -> str:
    """What is read of the tools: `name = value` of each, `name = none` where there is no value."""
    lines = [f"{name} = {values.get(name, NONE)}" for name in names]
    return (" " if taskset.spaced else "\n").join(lines)


def tooled(taskset: Taskset, why: str = "a workflow whose plans ask tools") -> Tooled:
    """UserError where its plans are no uses of tools."""
    return needed(taskset, Tooled, why)
