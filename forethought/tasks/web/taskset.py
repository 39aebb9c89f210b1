"""`web`: tasks on pages (MiniWoB++, arXiv 1802.08802). A planner says what in words, a grounder finds it.

    prompt   :text Username :textbox Username e7 ... :button Login e31 @ask Enter the username "+ w12 +" ...
    plan     type w12 :textbox Username @; click :button Login @; </plan>                      no ids
    act      type w12 :textbox Username e7 click :button Login e31 </act>                      exact
    then     the page as it is now, if the episode is not over, and the next plan

Tasks and demonstrations come from a file of episodes that the oracles played in Chromium: training needs no
browser. Evaluation plays the same episodes again in Chromium and lets the page judge, where there is one
(`task.pages`); without one an act counts as right where it is the oracle's on the recorded page. Level =
steps of the oracle's path. A training prompt is drawn anew each time (slots and ids, `words.py`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from forethought.core.errors import RecipeError, unknown
from forethought.core.films import Film
from forethought.core.grounding import Pair
from forethought.core.scores import success_of
from forethought.core.types import Task, Tree, Turn, Verdict
from forethought.envs.adapters.bridge import Bridge
from forethought.envs.base import Environment
from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser, Window, no_window, program
from forethought.interface.elements import ground
from forethought.interface.result import Parsed, Refusal, verdict
from forethought.interface.tags import Tags
from forethought.recipe.options.reading import read as read_options
from forethought.recipe.options.web import Disturb
from forethought.recipe.options.web import Web as Options
from forethought.recipe.ranges import above, at_least, listed, within
from forethought.tasks.base import Split, Taskset
from forethought.tasks.sections import named
from forethought.tasks.web import blinking, words
from forethought.tasks.web.demonstrations import Page, Shown, read
from forethought.tasks.web.pages import Live, Recorded
from forethought.tasks.web.shipped import LARGEST, shipped
from forethought.tasks.web.splits import divided
from forethought.tasks.web.walk import check
from forethought.tasks.web.watching import Attempt, Reel, attempts, film, pairs, reel_of, step_text
from forethought.tasks.web.words import Act, Full, Speech, Vocabulary

DRAWS = 10_000  # prompts that one episode can be drawn as
OPEN = 24  # pages that Chromium holds at the same time: each is a process of about 140 MB
ENOUGH = 10  # episodes to evaluate on that a level needs; paths longer than the longest such have its level
SHARP = 2.0  # pixels of a picture for each pixel of the page
OFTENEST = 1_000  # times that a task is drawn for another one's once
PAUSE = 1.0  # seconds before an act in a window, and at the end
POPUP = 24  # words of a popup, and what a page holds of what was done
LONGEST = 100  # plans that are counted out, of those that look longest
STOPS = {"plan": "</plan>", "act": "</act>"}
PLANS, ACTS = ("plan", "think"), ("act", "link")  # roles that say plans and acts, whatever the workflow


@dataclass(frozen=True, slots=True)
class Drawn:
    """The `state` of a task: the episode, its split, the seed of its words, and their vocabulary. `luck`: of
    what goes wrong in its demonstration; "": nothing."""

    shown: Shown
    split: Split
    words: str
    vocabulary: Vocabulary | None = None
    luck: str = ""

    def begin(self, loose: bool = False) -> tuple[Speech, str]:
        """The speech after the first page and the question, and the prompt. `loose`: as `Speech` has it."""
        speech = Speech(self.words, loose, self.vocabulary)
        page = speech.page(self.shown.pages[0].lines)
        return speech, f"{page} {speech.question(self.shown.utterance)}"


def length(shown: Shown) -> int:
    """Steps of the oracle's path."""
    return sum(len(page.refs) for page in shown.pages)


@lru_cache(4)
def episodes(path: Path) -> tuple[Shown, ...]:
    """All of a file."""
    return tuple(read(path))


class Web(Taskset):
    """See the module; `recipe.options.web` says what the options are."""

    name = "web"
    drawn = True
    stops, opens = STOPS, {"plan": "<plan>"}
    origins = "task"

    def __init__(self, levels: Sequence[int] = (), **options: Any):
        said = read_options(Options, options)
        at_least("task.attempts", said.attempts, 1)
        at_least("task.pictures", said.pictures, 0)
        at_least("task.demonstrations", said.demonstrations, 0)
        self.tasks = miniwob.chosen(said.tasks)
        tags = named(said.tags, ("plan", "act"), lambda **own: Tags({"plan": "plan", "act": "act", **own}))
        self.stops = {role: tags.close(role) for role in STOPS}
        self.opens = {"plan": tags.open("plan")}
        self.events, self.limit, self.attempts = said.events, said.limit, said.attempts
        self.pictures, self.marks, self.stepwise = said.pictures, said.marks, said.stepwise
        check(said.disturb)
        self.disturb = said.disturb if said.disturb != Disturb() else None
        if self.stepwise and self.pictures:
            raise RecipeError(
                "task.pictures", "episodes are not photographed step by step; leave stepwise out"
            )
        self.pages, self.notes = _where(said.pages, said.browser)
        self._path, self.window = said.browser, said.window
        if said.window:
            if why := no_window():
                raise RecipeError("task.window", why)
            if self.pages == "recorded":
                raise RecipeError("task.window", "shows pages in Chromium, and these are recorded ones")
        self._reels: dict[str, list[Reel]] = {}  # of the tasks that are watched
        self._filmed: set[str] = set()
        self.open_episodes = 0 if self.pages == "recorded" else 1 if self.window else OPEN
        file, self._words = shipped(self.tasks)
        found = [one for one in episodes(file) if one.task in self.tasks]
        if said.splits != "task" and "held_out" in options:
            raise RecipeError(
                "task.held_out", f'holds tasks out where task.splits = "task", found {said.splits!r}'
            )
        used, notes = divided(found, said.splits, said.held_out, self._words)
        self.notes += notes
        for name, times in said.often.items():
            if name not in miniwob.LISTS[LARGEST]:
                raise RecipeError(f"task.often.{name}", unknown("task", name, miniwob.LISTS[LARGEST]))
            above(f"task.often.{name}", times, 0)
            within(f"task.often.{name}", times, 0, OFTENEST)
        if idle := [name for name in said.often if name not in self.tasks]:
            self.notes.append(f"task.often changes nothing for {listed(idle)}: not among task.tasks")
        self._most, self._often = said.demonstrations, said.often
        held_out = Counter(length(one) for one, split in used if split == "eval")
        top = max((n for n, count in held_out.items() if count >= ENOUGH), default=max(held_out, default=1))
        self._found: dict[tuple[int, Split], dict[str, list[Shown]]] = {}
        for one, split in used:
            level = min(length(one), top)
            self._found.setdefault((level, split), {}).setdefault(one.task, []).append(one)
        trains, held = ({level for level, of in self._found if of == split} for split in ("train", "eval"))
        self.levels = tuple(sorted(trains & held))  # what cannot be measured is not trained
        if not self.levels:
            raise RecipeError("task.splits", f"{said.splits!r} leaves nothing to train on and to measure")
        super().__init__(levels)
        self.turns = self.attempts
        self.budgets = _budgets(found, self._words, self.stepwise)
        if self.stepwise or self.disturb:  # a popup shows any page again
            self.observation = max(map(self._longest_page, self.longest(16))) + POPUP
        elif self._words.numbered:  # the longest pages are not those of the longest episodes
            self.observation = max(map(self._longest_page, self._widest(16))) + POPUP
        self._bridge, self._browser = Bridge(), None

    def vocabulary(self) -> list[str]:
        """Pieces, slots, ids, roles, operations."""
        return [*self._words.words(), *self.opens.values(), *self.stops.values()]

    def drawn_words(self) -> list[str]:
        """Slots and ids."""
        return self._words.drawn()

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """One episode per entry of `levels`, of each of its tasks as often (but for `task.often`), in words
        drawn anew."""
        return [self._one(rng, level, split) for level in levels]

    def demonstrable(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """As `family`, of the first `demonstrations` episodes of each task and level; what goes wrong is
        shown as often as it happens."""
        tasks = [self._one(rng, level, "train", self._most) for level in levels]
        if self.disturb is None:
            return tasks
        return [replace(task, state=replace(task.state, luck=str(rng.random()))) for task in tasks]

    def _one(self, rng: random.Random, level: int, split: Split, most: int = 0) -> Task:
        there = self._found.get((level, split))
        if level not in self.levels or not there:
            raise RecipeError("task.levels", f"web has no episode of level {level} for {split}")
        names = list(there)
        if self._often and split == "train":
            [name] = rng.choices(names, [self._often.get(name, 1.0) for name in names])
        else:
            name = rng.choice(names)
        some = there[name]
        return self._task(rng.choice(some[:most] if most else some), level, split, rng.randrange(DRAWS))

    def mutate(self, task: Task, rng: random.Random) -> Task:
        """Near `task`: another episode of the same page, or of one of its family (pages whose names begin
        alike: `click-`, `enter-`), at the same level or a neighbouring one; the same one in other words where
        there is no other."""
        here = task.state.shown
        kin = [name for name in self.tasks if name.partition("-")[0] == here.task.partition("-")[0]]
        name = here.task if rng.random() < 0.5 else rng.choice(kin)
        places = [level for level in self.levels if abs(level - task.level) <= 1]
        level = rng.choice([at for at in places if self._found[at, "train"].get(name)] or [0])
        some = [one for one in self._found.get((level, "train"), {}).get(name, ()) if one is not here]
        if not some:
            return self._task(here, task.level, "train", rng.randrange(DRAWS))
        return self._task(rng.choice(some), level, "train", rng.randrange(DRAWS))

    def pool(self, level: int, split: Split) -> list[Task]:
        """Each episode of a level once."""
        there = self._found.get((level, split), {})
        return [self._task(one, level, split) for some in there.values() for one in some]

    def longest(self, n: int) -> list[Task]:
        """Those with the most to read on all their pages."""
        every = [(one, *key) for key, there in self._found.items() for some in there.values() for one in some]
        every.sort(key=lambda x: -sum(len(line.name) + 8 for page in x[0].pages for line in page.lines))
        return [self._task(*one) for one in every[:n]]

    def _widest(self, n: int) -> list[Task]:
        """Those with the most to read on one page."""
        every = [(one, *key) for key, there in self._found.items() for some in there.values() for one in some]
        every.sort(key=lambda x: -max(sum(len(line.name) + 8 for line in page.lines) for page in x[0].pages))
        return [self._task(*one) for one in every[:n]]

    def _longest_page(self, task: Task) -> int:
        shown, speech = task.state.shown, Speech(0, vocabulary=self._words)
        speech.question(shown.utterance)
        return max(len(speech.next_page(page.lines).split()) for page in shown.pages)

    def _task(self, shown: Shown, level: int, split: Split, draw: int = 0) -> Task:
        state = Drawn(shown, split, f"{shown.task}/{shown.seed}/{draw}", self._words)
        prompt = state.begin()[1]
        return Task(id=state.words, taskset=self.name, level=level, context="", prompt=prompt, state=state)

    def origin(self, task: Task) -> str:
        """The name of the page."""
        return task.state.shown.task

    # ---- oracle

    def oracle_plan(self, task: Task) -> str:
        """The plan of the first page."""
        return task.state.begin()[0].plan(task.state.shown.pages[0].steps, self.stops["plan"])

    def demonstrate(self, task: Task) -> list[Turn]:
        """Of each page: the plan, the acts, and the page that comes next."""
        if self.stepwise or task.state.luck:
            return [turn for turn in self._played(task) if turn.role not in ("think", "blink")]
        speech = task.state.begin()[0]
        turns: list[Turn] = []
        for i, page in enumerate(task.state.shown.pages):
            if i:
                turns.append(Turn(role=None, text=speech.next_page(page.lines)))
            turns.append(Turn(role="plan", text=speech.plan(page.steps, self.stops["plan"])))
            turns.append(Turn(role="act", text=speech.act(acts_of(page), self.stops["act"])))
        return turns

    # ---- looks: which elements matter

    def look(self, task: Task) -> str:
        """What matters on the first page."""
        return blinking.said(blinking.focuses(task.state.shown.pages[0]), task.state.begin()[0])

    def later_looks(self, task: Task) -> list[str]:
        """On each page after it."""
        if self.stepwise or task.state.luck:  # a popup is looked at too
            return [turn.text for turn in self._played(task) if turn.role == "blink"][1:]
        speech, found = task.state.begin()[0], []
        for last, page in pairwise(task.state.shown.pages):
            speech.plan(last.steps, "")  # draws the slots that a demonstration draws
            speech.page(page.lines)
            found.append(blinking.said(blinking.focuses(page), speech))
        return found

    def parse_look(self, task: Task, text: str) -> Verdict:
        """Elements, each with its id."""
        read = blinking.parsed(text)
        return verdict(read) if isinstance(read, Refusal) else Verdict(score=1.0)

    def judge_look(self, task: Task, text: str) -> Verdict:
        """Exactly what matters on the first page."""
        return blinking.judged(text, blinking.focuses(task.state.shown.pages[0]), task.state.begin()[0])

    def thoughts(self, task: Task) -> list[str]:
        """Before each turn of acting: its steps in words."""
        return [turn.text for turn in self._played(task) if turn.role == "think"]

    def _played(self, task: Task) -> list[Turn]:
        """The oracle on the recording, with what goes wrong there: where it looks, what it plans, and thinks
        and does in each turn."""
        state = task.state
        page = Recorded(state, self.stops["act"], None, self.stepwise, self.disturb if state.luck else None)
        page.reset(task, state.luck)
        turns: list[Turn] = []
        outcome, acts = None, 0
        while not (outcome and outcome.done) and (acts < self.attempts or not state.luck):
            speech, wanted = page.speech, page.walk.wanted()
            if outcome is None or outcome.replan:
                shown = Page(page.walk.lines, *(tuple(part) for part in zip(*wanted, strict=True)))
                seen = blinking.focuses(shown)
                turns.append(Turn(role="blink", text=blinking.said(seen, speech)))
                turns.append(Turn(role="plan", text=speech.plan(page.walk.planned(), self.stops["plan"])))
            now = wanted[:1] if self.stepwise else wanted
            turns.append(Turn(role="think", text=speech.plan([step for step, _ in now], "").strip()))
            made = [Act(step.op, ref, step.value, step.target) for step, ref in now]
            turns.append(Turn(role="act", text=speech.act(made, self.stops["act"])))
            outcome, acts = page.step(turns[-1].text), acts + 1
            if not outcome.done:
                turns.append(Turn(role=None, text=outcome.observation or ""))
        return turns if turns[-1].role else turns[:-1]

    # ---- verdicts

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """A plan that the grammar reads. Whether its words are those of the page that it was made for is seen
        when it is carried out: a later plan of an episode is for a later page."""
        return verdict(task.state.begin(loose=True)[0].read_plan(text, self.stops["plan"]))

    def judge_plan(self, task: Task, text: str) -> Verdict:
        """The plan, carried out by the exact grounder on the first page, does what the oracle's does. What
        comes on later pages is planned there."""
        read = task.state.begin()[0].read_plan(text, self.stops["plan"])
        if isinstance(read, Refusal):
            return verdict(read)
        page = task.state.shown.pages[0]
        found = grounded(read.value, page.lines)
        if isinstance(found, str):
            return Verdict(score=0.0, reason=found)
        return compared(found, acts_of(page))

    def meaning(self, task: Task, text: str) -> str:
        """Its steps."""
        read = task.state.begin()[0].read_plan(text, self.stops["plan"])
        return str(read.value) if isinstance(read, Parsed) else " ".join(text.split())

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """1 where the acts of the first page are what the exact grounder makes of the plan."""
        speech = task.state.begin()[0]
        read = speech.read_plan(plan, self.stops["plan"])
        if isinstance(read, Refusal):
            return verdict(read)
        found = grounded(read.value, task.state.shown.pages[0].lines)
        done: list[Act] = []
        for said in acts[: len(read.value)] if self.stepwise else acts[:1]:
            one = speech.read_acts(said, self.stops["act"])
            if isinstance(one, Refusal):
                return verdict(one)
            done += one.value
        return Verdict(score=0.0, reason=found) if isinstance(found, str) else compared(done, found)

    def environment(self, task: Task, noise: bool) -> Environment:
        """The page in Chromium, or its recording."""
        reel, disturb = None, self.disturb if noise else None
        if task.id in self._reels:
            reel = Reel(task.id in self._filmed, self.marks)
            self._reels[task.id].append(reel)
        if self.pages == "live" or (self.pages == "eval" and task.state.split == "eval"):
            return Live(
                task.state,
                self.attempts,
                self.stops["act"],
                self.events,
                self.limit,
                self._bridge,
                self.shared,
                reel,
                self.stepwise,
                disturb,
                PAUSE if self.window else 0.0,
            )
        return Recorded(task.state, self.stops["act"], reel, self.stepwise, disturb)

    @cached_property
    def shared(self) -> Browser:
        """The browser of all episodes, which starts with the first page."""
        scale = SHARP if self.pictures or self.window else 1.0
        window = Window(scale=scale, shown=self.window)
        self._browser = Browser(self._path, window, skip=miniwob.SKIP)
        return self._browser

    # ---- what was watched

    def watch(self, tasks: Sequence[Task]) -> None:
        """Keep what happens on these tasks; pictures of `pictures` of them, each another page while there are
        some. Of what is done step by step nothing is kept."""
        if self.stepwise:
            return
        tasks = [task for task in tasks if isinstance(task.state, Drawn)]  # the others could not be drawn
        self._reels = {task.id: [] for task in tasks}
        first = {self.origin(task): task.id for task in reversed(tasks)}
        inside = set(first.values())
        order = [*dict.fromkeys(t.id for t in tasks if t.id in inside), *(t.id for t in tasks)]
        self._filmed = set(list(dict.fromkeys(order))[: self.pictures])

    def groundings(self, tree: Tree) -> list[Pair]:
        """(what was done, what the words mean) of the steps of the tree's one trajectory."""
        return pairs(self._attempts(tree))

    def film(self, tree: Tree) -> Film | None:
        """The tree's one trajectory in pictures, where it was photographed."""
        if tree.task.id not in self._filmed:
            return None
        said = [node for node in tree.nodes if node.role is not None]
        success = any(success_of(node.reward_parts) == 1 for node in said)
        plan = next((node for node in said if node.role in PLANS), None)
        wrong = "" if plan is None or plan.reward_parts.get("valid", 1) else plan.reason
        return film(tree.task, self._attempts(tree), success, said[-1].reason if said else "", wrong)

    def _attempts(self, tree: Tree) -> list[Attempt]:
        plans, acts, plan = [], [], ""
        for node in tree.nodes:
            if node.role in PLANS:
                plan = node.text
            elif node.role in ACTS and node.status != "overlong":
                plans.append(plan)
                acts.append(node.text)
        reel = reel_of(self._reels.get(tree.task.id, ()), acts)
        return attempts(tree.task.state, reel, plans, self.stops) if reel else []

    def in_words(self, task: Task, prompt: str, turns: Sequence[str]) -> list[str]:
        """With the words that slots stand for; those of later pages where the episode was watched."""
        speech = task.state.begin()[0]
        reel = next(iter(self._reels.get(task.id, ())), None)
        try:
            for shot in reel.shots[1:] if reel else ():
                speech.next_page(shot.lines)
        except Full:
            pass
        return [speech.readable(text) for text in (prompt, *turns)]

    def close(self) -> None:
        """The browser."""
        self._bridge.stop(self._browser.close() if self._browser is not None else None)


def acts_of(page: Any) -> tuple[Act, ...]:
    """The oracle's acts on a page."""
    return tuple(Act(s.op, ref, s.value, s.target) for s, ref in zip(page.steps, page.refs, strict=False))


def grounded(steps: Any, lines: Any) -> tuple[Act, ...] | str:
    """The acts that the exact grounder makes of a plan on this page, or why it cannot."""
    found = []
    for number, step in enumerate(steps, 1):
        at = ground(step.target, lines) if step.target else None
        if isinstance(at, Refusal):
            return f"step {number}: {at.reason}"
        found.append(Act(step.op, at.value.ref if at else "", step.value, step.target))
    return tuple(found)


def compared(acts: Sequence[Act], wanted: Sequence[Act]) -> Verdict:
    """1 where these are the wanted acts, else 0 with the first that is not. Acts that come after the end of
    the episode are never carried out."""
    for number, want in enumerate(wanted, 1):
        if number > len(acts):
            return Verdict(score=0.0, reason=f"{len(acts)} acts where {len(wanted)} are needed")
        if acts[number - 1] != want:
            done = acts[number - 1]
            found, needed = (step_text(x.op, x.target or x.ref, x.value) for x in (done, want))
            return Verdict(score=0.0, reason=f"act {number}: found {found}, needed {needed}")
    return Verdict(score=1.0)


def _where(pages: str, path: str) -> tuple[str, list[str]]:
    """Where acts are carried out, and a note where that is not what one would expect."""
    if pages == "recorded":
        return pages, ["pages are recorded: an act is right where it is the oracle's"]
    lacks = [name for name in ("playwright", "miniwob") if find_spec(name) is None]
    if pages != "auto":
        if lacks:
            raise RecipeError("task.pages", f'{pages!r} needs {lacks[0]}: pip install "forethought[web]"')
        return pages, []
    if not lacks and program(path):
        return "eval", []
    why = f"{lacks[0]} is not installed" if lacks else "no Chromium was found"
    return "recorded", [
        f"pages are recorded ({why}): an act is right where it is the oracle's. For pages that judge "
        'for themselves: pip install "forethought[web]", and a Chromium'
    ]


def _budgets(found: Sequence[Shown], vocabulary: Vocabulary, stepwise: bool) -> dict[str, int]:
    """Words of the longest plan and the longest acts (`stepwise`: the longest one), and a step more."""
    plan, act = 0, 0
    for one in sorted(found, key=_planned)[-LONGEST:]:
        speech = Speech(0, vocabulary=vocabulary)
        for page in one.pages:
            speech.page(page.lines)
            plan = max(plan, len(speech.plan(page.steps, STOPS["plan"]).split()))
            acts = acts_of(page)
            for turn in [acts[i : i + 1] for i in range(len(acts))] if stepwise else [acts]:
                act = max(act, len(speech.act(turn, STOPS["act"]).split()))
    one = {"think": act + 6} if stepwise else {}
    return {"plan": plan + 6, "act": act + 6, **one}


def _planned(one: Shown) -> int:
    """About how many words the longest plan of an episode has."""
    return max(
        sum(2 + len(words.pieces(f"{s.target} {s.value or ''}")) for s in page.steps) for page in one.pages
    )
