"""Reward functions of the user's own: parts that a recipe names, beside those that the environment gives.

    [stage.parts]                                  # in a reinforce stage
    brevity = "brevity.py:brevity"                 # package.module:name, or file.py:name beside the recipe

    reward = { act = { outcome = 1.0, brevity = 0.1 } }

`function(task, path)` is asked for each branch on which a role speaks that counts the part. `path` are the
nodes from the prompt to the end of the branch. It gives one number, for the branch, which stands at the
role's last turn, or a list of numbers, one for each turn of the role on the branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from forethought.core.errors import RecipeError
from forethought.core.named import find
from forethought.core.places import described
from forethought.core.types import NO_EVIDENCE, Branch, Node, Task, Tree
from forethought.envs.guard import Fault, Guard
from forethought.envs.values import MOST, WrongType, amount, too_large
from forethought.learn.rewards import Weights

Function = Callable[[Task, Sequence[Node]], Any]


def loaded(named: Mapping[str, str], where: str, *, again: bool = False) -> dict[str, Function]:
    """Part -> its function. RecipeError at the address `where` for code that is not there. `again`: read it
    anew, even if it was found before."""
    found = {part: find("rewards", text, {}, where, "reward", again=again) for part, text in named.items()}
    for part, function in found.items():
        if not callable(function):
            raise RecipeError(where, f"{named[part]} is no function, but {described(function)}")
    return found


def with_parts(tree: Tree, functions: Mapping[str, Function], weights: Weights, guard: Guard) -> Tree:
    """The tree with the parts that the functions give. A function that raises, does not end within
    `limits.step_seconds`, or gives None, NaN, text or a list of another length makes the branch's last turn
    `failed` at the boundary reward: it is counted, never rewarded with 0, and ends the run where too much
    fails."""
    given: dict[int, dict[str, float]] = {}
    broken: dict[int, str] = {}
    for branch in tree.branches().values():
        if branch.status not in NO_EVIDENCE:
            try:
                given |= _given(tree, branch, functions, weights, guard)
            except Fault as fault:
                broken[branch.turns[-1].id] = fault.reason
    return replace(tree, nodes=tuple(_with(n, given.get(n.id, {}), broken.get(n.id)) for n in tree.nodes))


def _given(
    tree: Tree, branch: Branch, functions: Mapping[str, Function], weights: Weights, guard: Guard
) -> dict[int, dict[str, float]]:
    """Node -> what the functions say of it. Raises Fault."""
    found: dict[int, dict[str, float]] = {}
    for role, counted in weights.items():
        turns = [n.id for n in branch.nodes if n.role == role and n.policy is not None]
        for part in [part for part in counted if part in functions] if turns else ():
            asked = (tree.task, tuple(tree.path(branch.nodes[-1])))
            values = guard.call(
                "reward", part, functions[part], asked, check=partial(_numbers, len(turns)), users=False
            )
            for id, value in zip(turns[-len(values) :], values, strict=True):
                found.setdefault(id, {})[part] = value
    return found


def _with(node: Node, given: Mapping[str, float], broken: str | None) -> Node:
    if broken is not None:
        return replace(node, status="failed", reason=broken, reward_parts={})
    return replace(node, reward_parts={**node.reward_parts, **given}) if given else node


def _numbers(turns: int, found: Any) -> tuple[float, ...]:
    values = tuple(found) if isinstance(found, (list, tuple)) else (found,)
    if isinstance(found, (list, tuple)) and len(values) != turns:
        raise WrongType(f"gave {amount(len(values), 'number')} for {amount(turns, 'turn')}")
    for value in values:
        if too_large(value):
            raise WrongType(f"gave a number beyond {MOST:g}, which is too large for a reward")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise WrongType(f"must give a finite number, or one for each turn, gave {value!r:.60}")
    return tuple(float(value) for value in values)
