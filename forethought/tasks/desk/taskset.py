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
changes nothing, and does not end the episode. `slip` makes clicks fail, `popup` covers the desk until the
popup is clicked, `flip` makes the verifier lie; all only where noise is asked for. `plans` is the language of
the plans (plans.py), `tags = { plan = "steps", act = "do" }` gives other names to the tags."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from forethought.core.errors import RecipeError
from forethought.core.types import Task, Turn, Verdict
from forethought.interface.result import Refusal, accepted, verdict
from forethought.interface.tags import Tags
from forethought.recipe.options import names
from forethought.recipe.options.reading import read
from forethought.recipe.options.words import Desk as Table
from forethought.recipe.ranges import within
from forethought.tasks.base import Split
from forethought.tasks.desk.blink import Looks, mistake
from forethought.tasks.desk.environment import DeskEnvironment
from forethought.tasks.desk.plans import Plan, plans_of
from forethought.tasks.desk.screens import (
    GRID,
    NAMES,
    POPUP,
    ROOT,
    SLIPPED,
    VOID,
    Goal,
    Screens,
    covered,
    depths,
    free,
    observe,
    renamed,
    shortest_path,
)
from forethought.tasks.desk.told import told
from forethought.tasks.guided import Guided
from forethought.tasks.sections import named

VALUES = tuple(f"v{i}" for i in range(8))
EVAL_SHARE = 32  # of 256 hash values of a screen: one screen in eight is held out


class Desk(Guided):
    """See the module; the options are `recipe.options.words.Desk`. Raises RecipeError for an option or level
    it does not have."""

    name = "desk"
    widgets: int  # the options
    bushiness: float
    parents: int
    dead: int
    stepwise: bool
    retry: bool
    slip: float
    popup: float
    flip: float
    plans: str
    tags: Tags

    def __init__(self, levels: tuple[int, ...] = (), **options: object):
        said = read(Table, options)
        for key in names(Table):
            if key not in ("tags", "told"):
                setattr(self, key, getattr(said, key))
        self._check_ranges()
        self.tags = _tags(said.tags)
        if said.told:
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
        self.screens = Screens(
            widgets=self.widgets,
            bushiness=self.bushiness,
            parents=self.parents,
            dead=self.dead,
            depth=self.depth,
        )
        self.stops = {role: self.tags.close(role) for role in ("plan", "act")}
        self.opens = {"plan": self.tags.open("plan")}
        longest = self.depth if self.parents == 1 else self.widgets
        # a widget too many is wrong, not refused
        self.language = plans_of(self.plans, NAMES, ROOT, VALUES, self.tags, longest + 1)
        # a plan is read to be judged, and once for each of its executions
        self._parse = lru_cache(1024)(self.language.parse)
        self.looks = Looks(NAMES, longest + 1)
        self.budgets = {"plan": self.language.budget, "act": 5 if self.stepwise else 3 * longest + 3}
        self.turns = longest * (1 + self.retry + 2 * (self.popup > 0)) if self.stepwise else 1

    def _check_ranges(self) -> None:
        if not 2 <= self.widgets <= len(NAMES):
            raise RecipeError("task.widgets", f"2 to {len(NAMES)} widgets have names, found {self.widgets}")
        if self.parents not in (1, 2):
            raise RecipeError("task.parents", f"a widget lists 1 or 2 parents, found {self.parents}")
        if self.parents == 2 and not 0 <= self.dead < self.widgets:
            raise RecipeError(
                "task.dead", f"0 to {self.widgets - 1} widgets can hang from void, found {self.dead}"
            )
        for key in ("bushiness", "slip", "popup", "flip"):
            within(f"task.{key}", getattr(self, key), 0, 1)
        if self.retry and not self.stepwise:
            raise RecipeError(
                "task.retry", "only an actor that acts step by step can try again: add stepwise = true"
            )
        if self.popup and not self.retry:
            raise RecipeError("task.popup", "who can try again can close a popup: add retry = true")

    def vocabulary(self) -> list[str]:
        """Every word that a task, plan, action or observation can contain."""
        special = ["GOAL", self.tags.open("plan"), *self.stops.values(), "<obs>", "</obs>", ROOT, VOID]
        cells = [f"{axis}{i}" for axis in "xy" for i in range(GRID)]
        special += [POPUP] if self.popup else []
        known = [*special, *NAMES, *cells, *VALUES, *self.language.words(), *self.told.split()]
        return list(dict.fromkeys(known))

    # ---- generator

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """Tasks on one screen, one per entry of `levels` (each at most the deepest level of the recipe)."""
        for level in levels:
            if level not in self.levels:
                raise RecipeError("levels", f"desk was set up for levels {list(self.levels)}, found {level}")
        while True:  # the split is a property of the screen: seeds cannot mix them
            parents, cells, context = self.screens.draw(rng)
            if _split(context) == split:
                break
        depth = depths(parents)
        tasks = []
        for level in levels:
            goal = rng.choice([n for n, d in depth.items() if d == level])
            value = VALUES[rng.randrange(len(VALUES))]
            tasks.append(_task(level, context, Goal(parents=parents, cells=cells, goal=goal, value=value)))
        return tasks

    def mutate(self, task: Task, rng: random.Random) -> Task:
        """Near `task`: other names, cells and order on the same tree, or another goal on the same screen, as
        deep or one level deeper or less deep; with a value of its own."""
        state, level = task.state, task.level
        if rng.random() < 0.5:
            depth = depths(state.parents)
            near = {n: d for n, d in depth.items() if n != state.goal and d in self.levels}
            goal = rng.choice([n for n, d in near.items() if abs(d - level) <= 1] or [state.goal])
            state, level, context = replace(state, goal=goal), depth[goal], task.context
        else:
            while True:  # as `family`
                names, cells, context = renamed(state.parents, rng)
                if _split(context) == "train":
                    break
            parents = {names[n]: tuple(names[p] for p in ps) for n, ps in state.parents.items()}
            state = Goal(parents=parents, cells=cells, goal=names[state.goal], value=state.value)
        return _task(level, context, replace(state, value=rng.choice(VALUES), slips=frozenset(), popups={}))

    # ---- oracle

    def oracle_plan(self, task: Task) -> str:
        """The shortest path to the goal, in the taskset's plan language."""
        return self.language.render(shortest_path(task.state.parents, task.state.goal), task.state.value)

    def demonstrate(self, task: Task) -> list[Turn]:
        """The oracle's plan, its clicks, and the screen's answers between them."""
        turns = [Turn(role="plan", text=self.plan_of(task, self.oracle_plan(task)))]
        acts = self._expand(task.state, shortest_path(task.state.parents, task.state.goal), task.state.value)
        for i, act in enumerate(acts):
            if cell := task.state.popups.get(i):
                closes = f"{POPUP} {' '.join(cell)} {self.stops['act']}"
                turns += [Turn(role="act", text=act), Turn(role=None, text=covered(cell))]
                turns += [Turn(role="act", text=closes), Turn(role=None, text=SLIPPED)]
            if i in task.state.slips:
                turns += [Turn(role="act", text=act), Turn(role=None, text=SLIPPED)]
            turns.append(Turn(role="act", text=act))
            if i + 1 < len(acts):
                turns.append(Turn(role=None, text=observe(task.state, act.split()[0])))
        return turns

    def demonstrable(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """Training tasks. Clicks that slip and can be repeated, and popups, come as often as in episodes."""
        tasks = super().demonstrable(rng, levels)
        if self.slip and self.retry:
            slips = [frozenset(i for i in range(task.level) if rng.random() < self.slip) for task in tasks]
            tasks = [
                replace(task, state=replace(task.state, slips=some))
                for task, some in zip(tasks, slips, strict=True)
            ]
        return [self._interrupted(rng, task) for task in tasks] if self.popup else tasks

    def _interrupted(self, rng: random.Random, task: Task) -> Task:
        state = task.state
        cells = {i: free(rng, state.cells) for i in range(task.level) if rng.random() < self.popup}
        return replace(task, state=replace(state, popups=cells))

    def thoughts(self, task: Task) -> list[str]:
        """Before each act what it does: it without the coordinates."""
        cells = {f"{axis}{i}" for axis in "xy" for i in range(GRID)} | {self.stops["act"]}
        acts = [turn.text.split() for turn in self.demonstrate(task) if turn.role == "act"]
        return [" ".join(word for word in act if word not in cells) for act in acts]

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
            popup=self.popup if noise else 0.0,
        )


def _split(context: str) -> Split:
    return "eval" if hashlib.blake2b(context.encode(), digest_size=8).digest()[0] < EVAL_SHARE else "train"


def _task(level: int, context: str, state: Goal) -> Task:
    digest = hashlib.blake2b(context.encode(), digest_size=8).hexdigest()
    return Task(
        id=f"desk-{digest}-{state.goal}{state.value}",
        taskset="desk",
        level=level,
        context=context,
        prompt=f"GOAL {state.goal} {state.value}",
        state=state,
    )


def _tags(said: Mapping[str, str]) -> Tags:
    if "obs" in said.values():
        raise RecipeError("task.tags", "'obs' is the tag of observations; give plan and act other names")
    return named(said, ("plan", "act"), lambda **names: Tags({"plan": "plan", "act": "act", **names}))
