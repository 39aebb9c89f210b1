"""A demonstration and a plan, taken apart: one act, with what is observed after it, and one step at a
time."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.errors import UserError
from forethought.core.types import Task, Turn
from forethought.tasks.base import Stepped, Taskset, face


def acts_of(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Each act of a demonstration with the observations after it."""
    acts: list[list[Turn]] = []
    for turn in turns:
        if turn.role == "act":
            acts.append([turn])
        elif turn.role is None and acts:
            acts[-1].append(turn)
    return acts


def steps_of(taskset: Taskset, task: Task, plan: str, at_once: bool = False) -> list[str]:
    """The steps of a plan in words, first one first; `at_once`: as one, for an act that takes all."""
    stepped = face(taskset, Stepped)
    if not stepped:
        raise UserError(f"{taskset.name} cannot take a plan apart into steps (tasks.base.Stepped)")
    steps = stepped.steps(task, plan)
    return [" ".join(steps)] if at_once else steps


def steps_of_acts(taskset: Taskset, task: Task, plan: str, acts: Sequence[Sequence[Turn]]) -> list[str]:
    """The step of each act of a demonstration. Where acts are more than steps, one that is said again, word
    for word, is of the same step: the first one has failed."""
    steps, said = steps_of(taskset, task, plan, len(acts) == 1), [act[0].text for act in acts]
    again = [i > 0 and len(acts) > len(steps) and text == said[i - 1] for i, text in enumerate(said)]
    if len(steps) != len(acts) - sum(again):
        raise UserError(
            f"{taskset.name} shows {len(acts)} acts for a plan of {len(steps)} steps; they must be as many"
        )
    return [steps[i - sum(again[: i + 1])] for i in range(len(acts))]
