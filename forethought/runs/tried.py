"""The reward functions of a recipe, asked once about a few completions that are made up: what training would
find wrong with them at its first step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from forethought.core.errors import UserError
from forethought.core.types import Node, Task, Tree
from forethought.envs.guard import Guard
from forethought.learn.batch_functions import TrainerState, is_batch_function, with_batch_parts
from forethought.learn.functions import loaded, with_parts
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.schema import Recipe
from forethought.recipe.speaking import roles_of
from forethought.rewards import Judge
from forethought.tasks.base import Demonstrates, Taskset, face
from forethought.tasks.conformance import Finding

TASKS = 2
MADE = ("The answer is 7.", "", "yes", "nonsense that no grammar knows")
"""What is said where a task shows nothing: as models say it, nothing at all among it. Two for each task."""


def tried(recipe: Recipe, taskset: Taskset) -> list[Finding]:
    """A finding for each function that a stage counts, judges behind an endpoint left out: those cost. Empty
    where there is none, or no task to ask it about."""
    found: list[Finding] = []
    trees: list[Tree] = []
    for i, stage in enumerate(recipe.stage):
        if not isinstance(stage, Reinforce) or not stage.functions:
            continue
        trees = trees or _trees(taskset, roles_of(recipe))
        functions = loaded(stage.functions, f"stage.{i}.reward")
        for role, counted in stage.weights_of_parts.items():
            asked = {part: functions[part] for part in counted if part in functions} if trees else {}
            for part, function in asked.items():
                if not isinstance(function, Judge):
                    where = f"stage.{i}.reward.{role}: {stage.functions[part].rpartition('/')[2]}"
                    found.append(_tried(where, role, part, function, trees, recipe, taskset, stage))
    return found


def _tried(
    where: str,
    role: str,
    part: str,
    function: Callable[..., Any],
    trees: Sequence[Tree],
    recipe: Recipe,
    taskset: Taskset,
    stage: Reinforce,
) -> Finding:
    guard, weights = Guard(taskset.name, recipe.limits), {role: {part: 1.0}}
    with guard.watch():
        if is_batch_function(function):
            state = TrainerState(global_step=0, max_steps=stage.until.steps)
            said = roles_of(recipe)
            trees, _ = with_batch_parts(trees, {part: function}, weights, guard, taskset, said, state)
        else:
            trees = [with_parts(tree, {part: function}, weights, guard) for tree in trees]
    last = [_last(b.nodes, role) for tree in trees for b in tree.branches().values()]
    nodes = [node for node in last if node is not None]
    values = ", ".join(_shown(node.reward_parts, part) for node in nodes)
    broken = guard.worst() or next((node.reason for node in nodes if node.status == "failed"), "")
    made = f"{len(nodes)} made-up completions"
    if broken:
        return Finding(what=f"{where}, asked about {made}, one of them empty", wrong=broken)
    return Finding(what=f"{where} gave {values} for {made}")


def _last(nodes: Sequence[Node], role: str) -> Node | None:
    return next((node for node in reversed(nodes) if node.role == role), None)


def _shown(parts: Mapping[str, float], part: str) -> str:
    return f"{parts[part]:.4g}" if part in parts else "None"


def _trees(taskset: Taskset, roles: Sequence[str]) -> list[Tree]:
    """Of each task two chains of all roles: what it shows, where it shows something, and what is made up."""
    try:
        tasks = taskset.family(random.Random(0), [taskset.levels[0]] * TASKS, "train")
        return [_tree(taskset, task, roles, MADE[2 * i : 2 * i + 2]) for i, task in enumerate(tasks)]
    except UserError:  # the taskset's own promises say so
        return []


def _tree(taskset: Taskset, task: Task, roles: Sequence[str], made: Sequence[str]) -> Tree:
    nodes = [_node(0, None, None, task.prompt)]
    shown = _shows(taskset, task)
    for i, text in enumerate(made):
        above = 0
        for role in roles:
            said = text if i or role not in shown else shown[role]
            nodes.append(_node(len(nodes), above, role, said))
            above = len(nodes) - 1
    return Tree(task=task, nodes=tuple(nodes))


def _shows(taskset: Taskset, task: Task) -> dict[str, str]:
    """Role -> what the task's demonstration says in it, without its stop."""
    showing = face(taskset, Demonstrates)
    if showing is None:
        return {}
    try:
        turns = [turn for turn in showing.demonstrate(task) if turn.role is not None]
    except UserError:  # this task has nothing to show
        return {}
    return {t.role: t.text.removesuffix(taskset.stop(t.role)).strip() for t in turns if t.role is not None}


def _node(id: int, parent: int | None, role: str | None, text: str) -> Node:
    """Of a role it is what a policy has said."""
    node = Node(id=id, parent=parent, role=role, text=text, token_ids=tuple(text.encode()))
    return node if role is None else replace(node, status="finished", policy="check")
