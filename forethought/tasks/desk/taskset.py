"""`desk`: a screen of nested widgets. To set a goal's value, its ancestors must be opened first, by exact
clicks.

    context  d desk x2 y9 w p x4 y0 c s x3 y4 ...        (name parent X Y) of every widget, shuffled
    prompt   GOAL c v3
    plan     c s e </plan>                               backward, from the goal to a top-level widget:
             symbolic
    act      e x8 y9 s x5 y7 c x3 y4 v3 </act>           forward, with coordinates that are not in the plan:
             exact

Level = depth of the goal: the planner climbs that many parents, the actor copies that many coordinates. The
plan has an exact executor (the tree itself), the acting an exact simulator, so both sides are judged apart.

With `parents = 2` every widget lists two parents, and either opens it: several plans are valid, and those
through widgets that hang from `void`, which never opens, are dead ends. With `stepwise = true` the actor
clicks one widget per turn and is told what the click opened; with `retry = true` too a click that fails
changes nothing, and does not end the episode. `slip` makes clicks fail, `flip` makes the verifier lie; both
only where noise is asked for. `plans` is the language of the plans (plans.py),
`tags = { plan = "steps", act = "do" }` gives other names to the tags."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.core.types import Outcome, Task, Turn, Verdict
from forethought.envs.base import Environment
from forethought.interface.result import Refusal, accepted, verdict
from forethought.interface.tags import Tags
from forethought.recipe.options import defaults
from forethought.recipe.options.words import Desk as Table
from forethought.tasks.base import Split
from forethought.tasks.desk.blink import Looks, mistake
from forethought.tasks.desk.plans import PLANS, Plan, plans_of
from forethought.tasks.desk.told import told
from forethought.tasks.guided import Guided

NAMES = tuple("abcdefghijklmnopqrstuvwx")
GRID = 10
SLIPPED = "<obs> </obs>"  # what a click shows that has opened nothing
VALUES = tuple(f"v{i}" for i in range(8))
ROOT, VOID = "desk", "void"
OPTIONS = defaults(Table)
EVAL_SHARE = 32  # of 256 hash values of a screen: one screen in eight is held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the verifier knows: every widget's listed parents and cell, the goal and its value."""

    parents: Mapping[str, tuple[str, ...]]
    cells: Mapping[str, tuple[str, str]]
    goal: str
    value: str
    slips: frozenset[int] = frozenset()  # clicks of the way there that a demonstration shows to slip once


class Desk(Guided):
    """See the module; the options are `recipe.options.words.Desk`. Raises RecipeError for an option or level
    it does not have."""

    name = "desk"
    widgets: int  # the options, as `OPTIONS` has their defaults
    bushiness: float
    parents: int
    dead: int
    stepwise: bool
    retry: bool
    slip: float
    flip: float
    plans: str
    tags: Tags

    def __init__(self, levels: tuple[int, ...] = (), **options: object):
        for key in options:
            if key not in OPTIONS:
                raise RecipeError(f"task.{key}", unknown("option of desk", key, OPTIONS))
        for key, default in OPTIONS.items():
            value = options.get(key, default)
            if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
                raise RecipeError(f"task.{key}", f"expected {type(default).__name__}, found {value!r}")
            if key not in ("tags", "told"):
                setattr(self, key, value)
        self._check_ranges()
        self.tags = _tags(options.get("tags", {}))
        if options.get("told", False):
            self.told = told(self.plans, self.parents, self.stepwise, ROOT, self.tags)
        deepest = 7 if not self.stepwise else 6
        self.levels = levels or (1, 2, 3, 4, 5)
        for level in self.levels:
            if not 1 <= level <= min(deepest, self.widgets - (self.dead if self.parents == 2 else 0)):
                raise RecipeError(
                    "task.levels",
                    f"desk has levels 1 to {deepest} and needs a widget for each; found {level}",
                )
        self.depth = max(self.levels)
        self.stops = {role: self.tags.close(role) for role in ("plan", "act")}
        self.opens = {"plan": self.tags.open("plan")}
        longest = self.depth if self.parents == 1 else self.widgets
        # a widget too many is wrong, not refused
        self.language = plans_of(self.plans, NAMES, ROOT, VALUES, self.tags, longest + 1)
        # a plan is read to be judged, and once for each of its executions
        self._parse = lru_cache(1024)(self.language.parse)
        self.looks = Looks(NAMES, longest + 1)
        self.budgets = {"plan": self.language.budget, "act": 5 if self.stepwise else 3 * longest + 3}
        self.turns = longest * (1 + self.retry) if self.stepwise else 1

    def _check_ranges(self) -> None:
        if not 2 <= self.widgets <= len(NAMES):
            raise RecipeError("task.widgets", f"2 to {len(NAMES)} widgets have names, found {self.widgets}")
        if self.parents not in (1, 2):
            raise RecipeError("task.parents", f"a widget lists 1 or 2 parents, found {self.parents}")
        if self.parents == 2 and not 0 <= self.dead < self.widgets:
            raise RecipeError(
                "task.dead", f"0 to {self.widgets - 1} widgets can hang from void, found {self.dead}"
            )
        for key in ("bushiness", "slip", "flip"):
            if not 0 <= getattr(self, key) <= 1:
                raise RecipeError(
                    f"task.{key}", f"a probability from 0 to 1 is needed, found {getattr(self, key)}"
                )
        if self.retry and not self.stepwise:
            raise RecipeError(
                "task.retry", "only an actor that acts step by step can try again: add stepwise = true"
            )
        if self.plans not in PLANS:
            raise RecipeError("task.plans", unknown("language of plans", self.plans, PLANS))

    def vocabulary(self) -> list[str]:
        """Every word that a task, plan, action or observation can contain."""
        special = ["GOAL", self.tags.open("plan"), *self.stops.values(), "<obs>", "</obs>", ROOT, VOID]
        cells = [f"{axis}{i}" for axis in "xy" for i in range(GRID)]
        known = [*special, *NAMES, *cells, *VALUES, *self.language.words(), *self.told.split()]
        return list(dict.fromkeys(known))

    # ---- generator

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """Tasks on one screen, one per entry of `levels` (each at most the deepest level of the recipe)."""
        for level in levels:
            if level not in self.levels:
                raise RecipeError("levels", f"desk was set up for levels {list(self.levels)}, found {level}")
        while True:  # the split is a property of the screen: seeds cannot mix them
            parents, cells, context = self._screen(rng)
            digest = hashlib.blake2b(context.encode(), digest_size=8).digest()
            if (digest[0] < EVAL_SHARE) == (split == "eval"):
                break
        depth = depths(parents)
        tasks = []
        for level in levels:
            goal = rng.choice([n for n, d in depth.items() if d == level])
            value = VALUES[rng.randrange(len(VALUES))]
            state = Goal(parents=parents, cells=cells, goal=goal, value=value)
            tasks.append(
                Task(
                    id=f"desk-{digest.hex()}-{goal}{value}",
                    taskset="desk",
                    level=level,
                    context=context,
                    prompt=f"GOAL {goal} {value}",
                    state=state,
                )
            )
        return tasks

    def _screen(
        self, rng: random.Random
    ) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, str]], str]:
        names = rng.sample(NAMES, self.widgets)
        dead = names[self.widgets - self.dead :] if self.parents == 2 else []
        live = names[: self.widgets - len(dead)]
        first: dict[str, str] = {}
        depth: dict[str, int] = {}
        for i, name in enumerate(live):  # a chain to the deepest level first, the rest hang anywhere
            open_to = [m for m in live[:i] if depth[m] < self.depth]
            if i < self.depth:
                parent = live[i - 1] if i else ROOT
            else:
                parent = rng.choice(open_to) if open_to and rng.random() < self.bushiness else ROOT
            first[name], depth[name] = parent, 1 + depth.get(parent, 0)
        for i, name in enumerate(dead):
            first[name] = rng.choice([VOID, *dead[:i]])
        parents: dict[str, tuple[str, ...]] = (
            {n: (first[n],) for n in names}
            if self.parents == 1
            else self._second(rng, live, dead, first, depth)
        )
        cells = {
            n: (f"x{c // GRID}", f"y{c % GRID}")
            for n, c in zip(names, rng.sample(range(GRID * GRID), len(names)), strict=True)
        }
        order = rng.sample(names, len(names))
        context = " ".join(" ".join((n, *parents[n], *cells[n])) for n in order)
        return parents, cells, context

    def _second(
        self,
        rng: random.Random,
        live: Sequence[str],
        dead: Sequence[str],
        first: Mapping[str, str],
        depth: Mapping[str, int],
    ) -> dict[str, tuple[str, ...]]:
        """A second parent each: another live widget at the same depth as the first (another way) or a dead
        one (a dead end).

        Same depth keeps the level of every goal what the chain made it.
        """
        parents = {}
        for name in [*live, *dead]:
            same = (
                [m for m in live if m not in (first[name], name) and depth[m] == depth[name] - 1]
                if name in depth
                else []
            )
            ends = [m for m in dead if m not in (first[name], name)] or [VOID]
            if name in dead:
                ends = [VOID]
            other = rng.choice(same) if same and rng.random() < 0.5 else rng.choice(ends)
            parents[name] = tuple(rng.sample([first[name], other], 2))
        return parents

    # ---- oracle

    def oracle_plan(self, task: Task) -> str:
        """The shortest path to the goal, in the taskset's plan language."""
        return self.language.render(shortest_path(task.state.parents, task.state.goal), task.state.value)

    def demonstrate(self, task: Task) -> list[Turn]:
        """The oracle's plan, its clicks, and the screen's answers between them."""
        turns = [Turn(role="plan", text=self.plan_of(task, self.oracle_plan(task)))]
        acts = self._expand(task.state, shortest_path(task.state.parents, task.state.goal), task.state.value)
        for i, act in enumerate(acts):
            if i in task.state.slips:
                turns += [Turn(role="act", text=act), Turn(role=None, text=SLIPPED)]
            turns.append(Turn(role="act", text=act))
            if i + 1 < len(acts):
                turns.append(Turn(role=None, text=observe(task.state, act.split()[0])))
        return turns

    def demonstrable(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """Training tasks. Where clicks slip and can be repeated, that is shown as often as it happens."""
        tasks = super().demonstrable(rng, levels)
        if not (self.slip and self.retry):
            return tasks
        slips = [frozenset(i for i in range(task.level) if rng.random() < self.slip) for task in tasks]
        return [
            replace(task, state=replace(task.state, slips=some))
            for task, some in zip(tasks, slips, strict=True)
        ]

    def _expand(self, state: Goal, path: tuple[str, ...], value: str) -> list[str]:
        """The exact acting of a plan: clicks from the top of the path down to the goal, then the value."""
        clicks = [" ".join((n, *state.cells.get(n, ("?", "?")))) for n in reversed(path)]
        stop = self.stops["act"]
        if self.stepwise:
            return [f"{c} {stop}" for c in clicks[:-1]] + [f"{clicks[-1]} {value} {stop}"]
        return [" ".join([*clicks, value, stop])]

    def steps(self, task: Task, plan: str) -> list[str]:
        """The widgets of the plan, from the top down to the goal, which gets its value."""
        said = accepted(self._parse(plan)).value
        *path, goal = reversed(said.path)
        return [*path, f"{goal} {said.value or task.state.value}"]

    # ---- verdicts

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """Accepted or refused, by the plan language alone."""
        return verdict(self._parse(text))

    def judge_plan(self, task: Task, text: str) -> Verdict:
        """The plan must climb from the goal to the desk through listed parents, and set the goal's value
        where it says one."""
        parsed = self._parse(text)
        if isinstance(parsed, Refusal):
            return verdict(parsed)
        reason = self._mistake(task.state, parsed.value)
        return Verdict(score=0.0 if reason else 1.0, reason=reason)

    def spelled(self, task: Task, text: str) -> str:
        """An accepted plan as the oracle would write it."""
        plan = accepted(self._parse(text)).value
        return self.language.render(plan.path, plan.value or task.state.value)

    def meaning(self, task: Task, text: str) -> str:
        """The parsed plan as text: two spellings of one plan are equal."""
        return str(self._parse(text))  # what was parsed: spacing and spelling are gone

    def _mistake(self, state: Goal, plan: Plan) -> str:
        """Where the plan leaves what the screen allows; empty when it is right."""
        path, place = plan.path, self.language.place
        if path[0] != state.goal:
            return f"{place(0, len(path))}: the plan is for {path[0]}, the goal is {state.goal}"
        for i, (name, parent) in enumerate(zip(path, [*path[1:], ROOT], strict=True)):
            if parent not in state.parents.get(name, ()):
                return f"{place(i, len(path))}: {name} does not hang from {parent}"
        if plan.value not in (None, state.value):
            return f"{place(0, len(path))}: the plan sets {plan.value}, the goal's value is {state.value}"
        return ""

    # ---- a look before the plan (the workflow blink_think_link)

    def look(self, task: Task) -> str:
        """The look that names the widgets on the shortest path."""
        return self.looks.render(shortest_path(task.state.parents, task.state.goal))

    def parse_look(self, task: Task, text: str) -> Verdict:
        """Accepted or refused, by the grammar of looks alone."""
        return verdict(self.looks.parse(text))

    def judge_look(self, task: Task, text: str) -> Verdict:
        """1 if the widgets are those of the shortest path, else 0 with the first mistake."""
        parsed = self.looks.parse(text)
        if isinstance(parsed, Refusal):
            return verdict(parsed)
        reason = mistake(task.state.parents, ROOT, task.state.goal, parsed.value)
        return Verdict(score=0.0 if reason else 1.0, reason=reason)

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """1 if the acts are exactly what the plan says, else 0 with the first turn that differs."""
        parsed = self._parse(plan)
        if isinstance(parsed, Refusal):
            return verdict(parsed)
        wanted = self._expand(task.state, parsed.value.path, parsed.value.value or task.state.value)
        if wanted == acts:
            return Verdict(score=1.0)
        for i, (want, got) in enumerate(zip(wanted, acts, strict=False), start=1):
            if want.split() != got.split():
                return Verdict(score=0.0, reason=f"turn {i}: expected {want!r}, found {got!r}")
        if len(wanted) != len(acts):
            return Verdict(score=0.0, reason=f"{len(acts)} turns where the plan needs {len(wanted)}")
        return Verdict(score=1.0)

    def environment(self, task: Task, noise: bool) -> DeskEnvironment:
        """A fresh episode; `noise` turns on slips and flipped results where the taskset has them."""
        return DeskEnvironment(
            task.state,
            self.stepwise,
            self.retry,
            self.turns,
            self.stops["act"],
            slip=self.slip if noise else 0.0,
            flip=self.flip if noise else 0.0,
        )


class DeskEnvironment(Environment):
    """The simulator: a click must hit a widget with an open parent; the first that does not ends the episode.

    The widget's name in an act is a comment for the reader of traces: only coordinates count.
    """

    def __init__(
        self, state: Goal, stepwise: bool, retry: bool, turns: int, stop: str, slip: float, flip: float
    ):
        self.state, self.stepwise, self.retry, self.turns, self.stop = state, stepwise, retry, turns, stop
        self.slip, self.flip = slip, flip
        self.open = {ROOT}
        self.by_cell = {cell: name for name, cell in state.cells.items()}
        self.taken = 0

    def reset(self, task: Task, seed: int) -> None:
        """Seed the noise; there is no first observation."""
        if self.slip or self.flip:  # else nothing is drawn, and a generator takes longer than a step
            self.rng = random.Random(seed)

    def step(self, action: str) -> Outcome:
        """Make the clicks in `action` in order; a wrong one ends the episode unless the taskset lets it
        retry."""
        self.taken += 1
        words = action.split()
        if not words or words[-1] != self.stop:
            return self._end(False, f"the acting does not end with {self.stop}")
        words = words[:-1]
        last = None
        while len(words) >= 3:
            last = self.by_cell.get((words[1], words[2]))
            reason = self._click(last, words[1], words[2])
            if reason and self.retry and self.taken < self.turns:
                return Outcome(done=False, observation=SLIPPED, reason=reason)
            if reason:
                return self._end(False, reason)
            words = words[3:]
        if self.stepwise and not words and last is not None and self.taken < self.turns:
            return Outcome(done=False, observation=observe(self.state, last))
        if last != self.state.goal:
            clicked = f"the last click was on {last}" if last else "nothing was clicked"
            return self._end(False, f"{clicked}, the goal is {self.state.goal}")
        if words != [self.state.value]:
            return self._end(
                False, f"the value set was {' '.join(words)!r}, the goal's is {self.state.value!r}"
            )
        return self._end(True, "")

    def _click(self, name: str | None, x: str, y: str) -> str:
        if name is None:
            return f"nothing is at {x} {y}"
        if not self.open.intersection(self.state.parents[name]):
            return f"{name} was clicked before {' or '.join(self.state.parents[name])} was open"
        if self.slip and self.rng.random() < self.slip:
            return f"the click on {name} slipped"
        self.open.add(name)
        return ""

    def _end(self, success: bool, reason: str) -> Outcome:
        if self.flip and self.rng.random() < self.flip:
            return Outcome(done=True, success=not success, reason=f"flipped verdict ({reason or 'success'})")
        return Outcome(done=True, success=success, reason=reason)


def _tags(names: Any) -> Tags:
    for key in names:
        if key not in ("plan", "act"):
            raise RecipeError(f"task.tags.{key}", unknown("tag of desk", key, ("plan", "act")))
    if "obs" in names.values():
        raise RecipeError("task.tags", "'obs' is the tag of observations; give plan and act other names")
    try:
        return Tags({"plan": "plan", "act": "act", **names})
    except UserError as error:
        raise RecipeError("task.tags", str(error)) from None


def observe(state: Goal, opened: str) -> str:
    """What a click shows: the widgets that list the opened one as a parent, with their cells."""
    shown = [" ".join((n, *state.cells[n])) for n, ps in state.parents.items() if opened in ps]
    return " ".join(["<obs>", *shown, "</obs>"])


def depths(parents: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Clicks needed to reach each widget from the desk; widgets that cannot be reached are absent."""
    below: dict[str, list[str]] = {}
    for name, listed in parents.items():
        for parent in listed:
            below.setdefault(parent, []).append(name)
    depth, queue = {ROOT: 0}, deque([ROOT])
    while queue:
        at = queue.popleft()
        for name in below.get(at, ()):
            if name not in depth:
                depth[name] = depth[at] + 1
                queue.append(name)
    del depth[ROOT]
    return depth


def shortest_path(parents: Mapping[str, tuple[str, ...]], goal: str) -> tuple[str, ...]:
    """From the goal up to a top-level widget, through the parents nearest to the desk (ties: the first
    listed)."""
    depth, path = depths(parents) | {ROOT: 0}, [goal]
    while True:
        parent = min((p for p in parents[path[-1]] if p in depth), key=lambda p: depth[p])
        if parent == ROOT:
            return tuple(path)
        path.append(parent)
