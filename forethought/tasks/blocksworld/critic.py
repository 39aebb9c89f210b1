"""The first mistake of a Blocksworld plan in words, and plans that have one: what goes back to a planner.

<err> form </err>                     no sentence of the plan's grammar
<err> clear b already </err>          the subgoal holds, and would change nothing
<err> on b c covered c d </err>       it cannot be carried out: c is not clear, d is on it
<err> missing on a b </err>           all can be carried out, and a is not on b at the end"""

from __future__ import annotations

import random
from collections.abc import Sequence

from forethought.interface.result import Parsed, Refusal
from forethought.tasks.blocksworld.problem import Problem
from forethought.tasks.blocksworld.strips import Step
from forethought.tasks.blocksworld.words import expand, unmet

OPEN, CLOSE, FORM, ALREADY, COVERED, MISSING = "<err>", "</err>", "form", "already", "covered", "missing"
WORDS = [OPEN, CLOSE, FORM, ALREADY, COVERED, MISSING]
TRIES = 24  # changes of a right plan, after which it is shown without a wrong one


def first_mistake(problem: Problem, plan: Parsed | Refusal) -> str:
    """In words; "" for a plan that reaches the goal."""
    said = [FORM] if isinstance(plan, Refusal) else _mistake(problem, plan.value)
    return " ".join([OPEN, *said, CLOSE]) if said else ""


def _mistake(problem: Problem, subgoals: Sequence[Step]) -> list[str]:
    carried = expand(problem, subgoals)
    if carried.reason:
        failed = subgoals[len(carried.each)]
        over = {support: block for block, support in carried.under.items() if support is not None}
        holds = failed[1] not in over if failed[0] == "clear" else carried.under[failed[1]] == failed[2]
        if holds:
            return [*failed, ALREADY]
        covered = next(block for block in failed[1:] if block in over)
        return [*failed, COVERED, covered, over[covered]]
    wanted = problem.wanted().items()
    return next(([MISSING, "on", x, y] for x, y in wanted if carried.under[x] != y), [])


def wrong_plan(problem: Problem, right: Sequence[Step], rng: random.Random) -> list[Step]:
    """A right plan with one thing changed that makes it wrong: a subgoal left out, two exchanged, or another
    block; [] where none was found."""
    for _ in range(TRIES):
        plan = list(right)
        at = rng.randrange(len(plan)) if plan else 0
        way = rng.randrange(3)
        if way == 0 and len(plan) > 1:
            del plan[at]
        elif way == 1 and at + 1 < len(plan):
            plan[at : at + 2] = plan[at + 1], plan[at]
        elif plan:
            step = list(plan[at])
            others = [name for name in problem.names if name not in step]
            if not others:
                continue
            step[rng.randrange(1, len(step))] = rng.choice(others)
            plan[at] = tuple(step)
        carried = expand(problem, plan)
        if plan and (carried.reason or unmet(problem, carried.under)):
            return plan
    return []
