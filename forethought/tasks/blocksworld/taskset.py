"""Blocksworld: plan in subgoals, act in STRIPS primitives, with an exact score for each (PlanBench, arXiv
2206.10498).

A level is the optimal number of primitives. With `stepwise = true` the actor takes one primitive per turn and
reads the towers after each; with `retry = true` too, one that is not legal changes nothing, and the episode
goes on. Text, grammars and executors: words.py; episodes: environment.py; problems up to renaming, splits and
drawing: classes.py; files: files.py.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Task, Turn, Verdict
from forethought.envs.base import Environment
from forethought.interface.result import Parsed, Refusal, accepted, verdict
from forethought.recipe.options.reading import read
from forethought.recipe.options.words import Blocksworld as Table
from forethought.recipe.ranges import within
from forethought.tasks.base import Split
from forethought.tasks.blocksworld import classes as pools
from forethought.tasks.blocksworld import critic, words
from forethought.tasks.blocksworld.environment import AtOnce, Luck, Stepwise
from forethought.tasks.blocksworld.files import (
    classes_in,
    from_strips,
    held_out,
    held_out_text,
    lettered,
    records,
)
from forethought.tasks.blocksworld.problem import Problem, class_hash, solve
from forethought.tasks.blocksworld.strips import Step
from forethought.tasks.blocksworld.wordings import WORDINGS
from forethought.tasks.guided import Guided

SPARE_MOVES = 2  # by which a plan may be longer than the best before its words run out
TOP_DEFAULT_LEVEL = 16  # 18 and 20 exist over 6 blocks and must be asked for


class Blocksworld(Guided):
    """The taskset; its options are `recipe.options.words.Blocksworld`.

    `levels`: even numbers; empty: all up to 16 that both splits have. Held-out classes (PlanBench's and
    `exclude`'s) are in neither split; they are reached through `problems` only. Raises RecipeError for an
    option or level that cannot be had.
    """

    name = "blocksworld"
    stops = {"plan": words.PLAN_END, "act": words.ACT_END}
    opens = {"plan": words.PLAN}

    def __init__(self, levels: tuple[int, ...] = (), **options: object):
        said = read(Table, options)
        if not said.blocks or not set(said.blocks) <= set(pools.BLOCKS):
            raise RecipeError(
                "task.blocks", f"{list(said.blocks)} is not a list of numbers among {list(pools.BLOCKS)}"
            )
        self.blocks = tuple(sorted(set(said.blocks)))
        self.stepwise, self.retry, self.slip, self.flip = said.stepwise, said.retry, said.slip, said.flip
        if self.retry and not self.stepwise:
            raise RecipeError(
                "task.retry", "only an actor that acts step by step can try again: add stepwise = true"
            )
        if self.stepwise and said.wording != "towers":
            raise RecipeError(
                "task.wording",
                f'{said.wording!r} has no words for what is seen between acts; take "towers" with stepwise',
            )
        self.wording = WORDINGS[said.wording]
        self.told = self.wording.told if said.told else ""
        within("task.slip", self.slip, 0, 1)
        within("task.flip", self.flip, 0, 1)
        self.critic = said.critic
        self.excluded = held_out() | _excluded(said.exclude)
        self._pools: dict[Split, list[pools.Pool]] = {}
        self.levels = self._checked_levels(levels)
        # two moves to spare: one is at most 3 words of a plan (on x y) and 6 of acts (unstack x y stack x z)
        moves = max(self.levels) // 2 + SPARE_MOVES
        self.budgets = {"plan": 3 * moves + 1, "act": 4 if self.stepwise else 6 * moves + 1}
        self.turns = 2 * moves * (1 + self.retry) if self.stepwise else 1
        self.observation = words.longest_seen(max(self.blocks)) if self.stepwise else 0

    def vocabulary(self) -> list[str]:
        """Every word that a task, plan, action or observation can contain."""
        known = words.vocabulary() + (words.SEEN if self.stepwise else []) + critic.WORDS * self.critic
        return list(dict.fromkeys([*known, *self.wording.vocabulary(), *self.told.split()]))

    # --- tasks ---

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """One task per level. They share the initial state where one has goals of all the levels, else as
        many as possible do."""
        for level in levels:
            if level not in self.levels:
                raise RecipeError(
                    "task.levels",
                    f"level {level!r} is not one of the task's {list(self.levels)}; add it there",
                )
            self._need(level, split)
        tasks: dict[int, Task] = {}
        waiting = sorted(range(len(levels)), key=lambda i: levels[i])
        while waiting:
            together = len(waiting)
            while not (drawn := pools.draw(rng, self._pool(split), [levels[i] for i in waiting[:together]])):
                together -= 1  # ends: _need found a class for every single level
            for i, problem in zip(waiting[:together], drawn, strict=True):
                name = f"bw-{class_hash(problem)}-{rng.getrandbits(48):012x}"
                goal_towers = problem.goal_towers()
                rng.shuffle(goal_towers)
                tasks[i] = self._task(name, problem, levels[i], goal_towers)
            waiting = waiting[together:]
        return [tasks[i] for i in range(len(levels))]

    def problems(self, path: str | Path) -> list[Task]:
        """The tasks of a problem file, one {"id", "pddl"} a line, in order; levels are computed. PlanBench's
        ids are kept.

        Objects named other than a..h become a..h in their order. Raises UserError (file, line, problem,
        reason) for a broken line, an id seen before, more than 8 blocks, or a goal with facts other than
        `on`.
        """
        tasks = []
        for record in records(path):
            problem = lettered(
                from_strips(record.problem, record.where), record.problem.objects, record.where
            )
            level = 2 * len(solve(problem.below, problem.goal))
            tasks.append(self._task(record.id, problem, level, problem.goal_towers()))
        return tasks

    def _pool(self, split: Split) -> list[pools.Pool]:
        if split not in self._pools:
            self._pools[split] = [pools.pool(n, split, self.excluded) for n in self.blocks]
        return self._pools[split]

    def _has(self, level: int, split: Split) -> bool:
        return any(level in cells for p in self._pool(split) for cells in p.values())

    def _checked_levels(self, levels: Sequence[int]) -> tuple[int, ...]:
        if not levels:
            every = tuple(
                n
                for n in range(2, TOP_DEFAULT_LEVEL + 1, 2)
                if self._has(n, "train") and self._has(n, "eval")
            )
            if not every:
                raise RecipeError(
                    "task.blocks",
                    f"no class over {list(self.blocks)} blocks is left for training; add 4, 5 or 6",
                )
            return every
        top = pools.top_level(max(self.blocks))
        for level in levels:
            if isinstance(level, bool) or not isinstance(level, int) or level not in range(2, top + 1, 2):
                raise RecipeError(
                    "task.levels",
                    f"{level!r} is not an even number from 2 to {top} (blocks = {list(self.blocks)})",
                )
            self._need(level, "train")
        return tuple(sorted(set(levels)))

    def _need(self, level: int, split: Split) -> None:
        if not self._has(level, split):
            message = (
                f"level {level} has no {split} class over {list(self.blocks)} blocks outside "
                f"PlanBench's and `exclude`'s"
            )
            raise RecipeError("task.levels", f"{message}; add 5 or 6 to task.blocks or leave the level out")

    # --- oracle ---

    def oracle_plan(self, task: Task) -> str:
        """An optimal plan: shortest in primitives, its moves to the table merged into `clear` where they
        follow each other."""
        return self.wording.said(words.plan_grammar(task.state.names).render(_oracle(task.state)))

    def demonstrate(self, task: Task) -> list[Turn]:
        """An optimal plan, and the acts that carry it out, step by step with what is seen after each."""
        plan, grammar = _oracle(task.state), words.act_grammar(task.state.names)
        acts = words.expand(task.state, plan).acts
        said = self.wording.said(words.plan_grammar(task.state.names).render(plan))
        turns = [Turn(role="plan", text=self.plan_of(task, said))]
        if not self.stepwise or not acts:
            return [*turns, Turn(role="act", text=self.wording.said(grammar.render(acts)))]
        for act, seen in zip(acts, words.seen_after(task.state, acts), strict=True):
            turns += [Turn(role="act", text=grammar.render((act,))), Turn(role=None, text=seen)]
        return turns[:-1]  # the goal holds: nothing is read any more

    def steps(self, task: Task, plan: str) -> list[str]:
        """The subgoals of the plan; step by step, each as often as it takes primitives (one that cannot be
        carried out as often as a move)."""
        subgoals = accepted(self._parse_plan(task, plan)).value
        times = [1] * len(subgoals)
        if self.stepwise:
            done = words.expand(task.state, subgoals).each
            times = [*done, *[2] * (len(subgoals) - len(done))]
        found = [
            self.wording.said(" ".join(step))
            for step, n in zip(subgoals, times, strict=True)
            for _ in range(n)
        ]
        return found or [words.PLAN_END]

    # --- verdicts ---

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """Accepted or refused, by the plan's grammar alone."""
        return verdict(self._parse_plan(task, text))

    def judge_plan(self, task: Task, text: str) -> Verdict:
        """1 if the plan's subgoals can be carried out in order and reach the goal, else 0 with the reason."""
        plan = self._parse_plan(task, text)
        if isinstance(plan, Refusal):
            return verdict(plan)
        carried = words.expand(task.state, plan.value)
        reason = carried.reason or words.unmet(task.state, carried.under)
        return Verdict(score=0.0 if reason else 1.0, reason=reason)

    def critique(self, task: Task, plan: str) -> str:
        """The first mistake of a plan, in words (`critic`)."""
        self._need_critic()
        return self.wording.said(critic.first_mistake(task.state, self._parse_plan(task, plan)))

    def mistaken(self, task: Task) -> str:
        """For one task in two, the same ones each time: the oracle's plan with something changed."""
        self._need_critic()
        rng = random.Random(f"mistaken/{task.id}")
        plan = critic.wrong_plan(task.state, _oracle(task.state), rng) if rng.random() < 0.5 else []
        return self.wording.said(words.plan_grammar(task.state.names).render(tuple(plan))) if plan else ""

    def _need_critic(self) -> None:
        if not self.critic:
            message = "what is wrong with a plan has words of its own; add critic = true to the task"
            raise RecipeError("task.critic", message)

    def spelled(self, task: Task, text: str) -> str:
        """An accepted plan as the oracle would write it."""
        said = words.plan_grammar(task.state.names).render(accepted(self._parse_plan(task, text)).value)
        return self.wording.said(said)

    def meaning(self, task: Task, text: str) -> str:
        """The parsed plan as text: two spellings of one plan are equal."""
        return str(self._parse_plan(task, text))  # what was parsed: spacing and spelling are gone

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """The acts must be, word for word, the one legal execution of the plan; a plan without one is
        followed by nothing."""
        subgoals = self._parse_plan(task, plan)
        if isinstance(subgoals, Refusal):
            return Verdict(score=0.0, reason=f"the plan: {subgoals}")
        carried = words.expand(task.state, subgoals.value)
        if carried.reason:
            return Verdict(score=0.0, reason=f"the plan cannot be carried out: {carried.reason}")
        most = max(len(carried.acts), 1) if self.stepwise else 1
        if len(acts) != most:
            return Verdict(
                score=0.0, reason=f"expected {most} turn{'s' * (most > 1)} of acts, found {len(acts)}"
            )
        steps: list[Step] = []
        for act in acts:
            parsed = words.act_grammar(task.state.names).parse(self.wording.heard(act))
            if isinstance(parsed, Refusal):
                return verdict(parsed)
            steps += parsed.value
        reason = _difference(carried.acts, steps)
        return Verdict(score=0.0 if reason else 1.0, reason=reason)

    def judge_acts(self, task: Task, text: str) -> dict[str, bool]:
        """executable: a sentence of acts, each legal; goal: and the goal holds after them; optimal: and no
        shorter acts exist. Of several turns, one after the other."""
        parsed = words.act_grammar(task.state.names).parse(self.wording.heard(_as_one(text)))
        if isinstance(parsed, Refusal):
            return {"executable": False, "goal": False, "optimal": False}
        trace = words.run_acts(task.state, parsed.value)
        return {
            "executable": trace.executable,
            "goal": trace.goal,
            "optimal": trace.goal and len(parsed.value) == task.level,
        }

    def environment(self, task: Task, noise: bool) -> Environment:
        """A fresh episode; `noise` turns on slips and flipped results where the taskset has them."""
        luck = Luck(slip=self.slip if noise else 0.0, flip=self.flip if noise else 0.0)
        if self.stepwise:
            return Stepwise(task, luck, turns=self.turns, retry=self.retry)
        return AtOnce(task, luck, self.wording.heard, self.wording.told_of)

    def _task(self, name: str, problem: Problem, level: int, goal_towers: list[list[str]]) -> Task:
        context, prompt = self.wording.context(problem), self.wording.prompt(goal_towers)
        return Task(id=name, taskset=self.name, level=level, context=context, prompt=prompt, state=problem)

    def _parse_plan(self, task: Task, text: str) -> Parsed | Refusal:
        """An empty plan is one only where the goal holds already."""
        parsed = words.plan_grammar(task.state.names, min(task.level, 1)).parse(self.wording.heard(text))
        if isinstance(parsed, Refusal):
            return replace(parsed, reason=self.wording.told_of(parsed.reason))
        return parsed


# --- pieces ---


def _oracle(problem: Problem) -> tuple[Step, ...]:
    return tuple(words.merge(problem, solve(problem.below, problem.goal)))


def _as_one(text: str) -> str:
    """Several turns of acts as one: without the stops between them."""
    *said, last = text.split()
    return " ".join([*(word for word in said if word != words.ACT_END), last])


def _difference(expected: Sequence[Step], found: Sequence[Step]) -> str:
    """Where two sequences part; empty when they are the same."""
    # lengths are compared below
    for number, (want, have) in enumerate(zip(expected, found, strict=False), 1):
        if want != have:
            return f"step {number}: the plan asks for '{' '.join(want)}', found '{' '.join(have)}'"
    if len(expected) == len(found):
        return ""
    return f"the plan asks for {len(expected)} steps, found {len(found)}"


def _excluded(path: str | None) -> frozenset[str]:
    try:
        return frozenset(classes_in([path])) if path else frozenset()
    except UserError as error:
        raise RecipeError("task.exclude", str(error)) from error


def main(paths: Sequence[str]) -> int:
    """Print the list of held-out classes for these problem files (see blocksworld_files.py)."""
    if not paths or any(path.startswith("-") for path in paths):
        print(
            "usage: python -m forethought.tasks.blocksworld.taskset FILE.jsonl ... > planbench_classes.txt",
            file=sys.stderr,
        )
        return UserError.exit_code
    try:
        print(held_out_text(paths), end="")
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
