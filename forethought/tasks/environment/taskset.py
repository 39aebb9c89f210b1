"""A taskset whose tasks are the episodes of an environment.

    task = { name = "environment", environment = "gym:CartPole-v1", actions = ["left", "right"] }

    messages   system: how to act; user: what the environment shows first
    act        right                                      to the model's own end of text
    user       what the environment answers, and so on to the end of the episode

A task is a seed: the environment is reset with it when the task is drawn, for its prompt, and again for each
of its episodes, which so begin alike. Tasks to train on and to evaluate on have different seeds. What an
episode earned is its score; it is a success from `threshold` on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Task, Turn, Verdict
from forethought.envs.adapters import WHERE, adapter_of
from forethought.envs.adapters.base import Adapter, Shown
from forethought.envs.adapters.bridge import Bridge
from forethought.envs.adapters.options import Options
from forethought.envs.adapters.played import Begun, Played, Rules, Waiting
from forethought.envs.base import Environment
from forethought.interface.result import Parsed, verdict
from forethought.interface.tags import Tags
from forethought.tasks.base import Split, Taskset
from forethought.tasks.sections import PLAN, tags_of

TURNS = 16  # most turns of an episode where nobody says a number
AT_ONCE = 16  # resets that wait at the same time while tasks are drawn
SHOWN = 16  # most turns of a demonstration
PLANS = ("none", "tags", "steps")
HOW_TO_PLAN = {
    "tags": "First write a plan between {open} and {close}: what you want to reach, and in which order.",
    "steps": "First write a plan between {open} and {close}, a JSON list of steps: "
    '[{{"op": a tool, "target": to which thing, in words and not by its id, "value": what is put in}}, ...].',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the recipe says of the episodes, whatever plays in them. `system` None: the adapter's own."""

    plan: str
    prompt: str
    system: str | None
    turns: int
    threshold: float | None
    ends: bool
    observation: int
    budgets: Mapping[str, Any]


def environments(levels: Sequence[int] = (), **options: Any) -> Environments:
    """The taskset of the environment that the options name (`recipe.options.environments`: `Environment`, and
    those of the adapter). RecipeError for an option that it lacks or that cannot be had."""
    said = Options(options)
    reference = said.text("environment")
    if not reference:
        raise RecipeError(WHERE, 'missing; name one, such as "gym:FrozenLake-v1" or "env.py:Env"')
    system = said.text("system")
    setting = Setting(
        plan=said.chosen("plan", "none", PLANS),
        prompt=said.text("prompt"),
        system=system if "system" in options else None,
        turns=said.whole("turns", 0),
        threshold=said.number("threshold", None),
        ends=said.chosen("invalid", "continues", ("continues", "ends")) == "ends",
        observation=said.whole("observation", 0),
        budgets=said.mapping("budgets"),
    )
    adapter = adapter_of(reference, said)
    try:
        kind = Environments if adapter.given is None else GivenEnvironments
        return kind(tuple(levels) or (0,), adapter, setting)
    except BaseException:
        adapter.close()
        raise


class Environments(Taskset):
    """The episodes of an adapter, without end. `levels`: handed to the environment, where it takes one."""

    name = "environment"
    spaced = False
    executes_plans = False  # nobody can say whether a plan in free text is right

    def __init__(self, levels: tuple[int, ...], adapter: Adapter, setting: Setting):
        self.levels, self.adapter, self.setting = levels, adapter, setting
        self.plays = adapter.name  # named where it breaks
        self.turns, self.observation = setting.turns or adapter.turns or TURNS, setting.observation
        threshold = adapter.threshold if setting.threshold is None else setting.threshold
        self.rules = Rules(turns=self.turns, threshold=threshold, ends=setting.ends)
        self.judges = adapter.judges
        plans = setting.plan != "none"
        self.steps_of = adapter.plans() if setting.plan == "steps" else None
        if setting.plan == "steps" and self.steps_of is None:
            raise RecipeError(
                "task.plan", f'{adapter.name} has no tools, of which steps are made; write "tags"'
            )
        self.budgets = _budgets(setting.budgets, adapter.budget, plans)
        self._tags: Tags = tags_of(order=(PLAN,))
        self.opens = {"plan": self._tags.open(PLAN)} if plans else {}
        self.stops = {"act": ""} | ({"plan": self._tags.close(PLAN)} if plans else {})
        self._bridge = Bridge()
        self.system = self._instruction() if setting.system is None else setting.system

    def _instruction(self) -> str:
        """How to act, and how to plan where plans are asked for."""
        how = HOW_TO_PLAN.get(self.setting.plan, "")
        how = how.format(open=self._tags.open(PLAN), close=self._tags.close(PLAN))
        parts = [self.adapter.instruction(), how]
        return " ".join(part for part in parts if part)

    # ---- tasks

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """One task per level, each with a seed of its own; the environment shows its prompt."""
        for level in levels:
            if level not in self.levels:
                raise RecipeError(
                    "task.levels", f"level {level} is not one of the task's {list(self.levels)}"
                )
        # even seeds train, odd ones evaluate: whatever is drawn, no seed is in both
        seeds = [2 * rng.getrandbits(29) + (split == "eval") for _ in levels]
        shown = self._first(list(zip(seeds, levels, strict=True)))
        return [self._task(s, level, one) for s, level, one in zip(seeds, levels, shown, strict=True)]

    def _task(self, seed: int, level: int, shown: Shown, own: str | None = None) -> Task:
        """`own`: the system message that somebody gave for this task alone."""
        system = self.system if own is None or self.setting.system is not None else own
        first = "\n\n".join(part for part in (self.setting.prompt, shown.text) if part)
        if not first:
            raise UserError(
                f"{self.adapter.name} shows nothing when it is reset: say the task in task.prompt"
            )
        told = [system, first] if system else [first]
        return Task(
            id=f"{self.adapter.name}-{level}-{seed}",
            taskset=self.name,
            level=level,
            context="",
            prompt="\n\n".join(told) + "\n\n",
            state=Begun(seed, system),
        )

    def _first(self, begun: Sequence[tuple[int, int]]) -> list[Shown]:
        """What each (seed, level) shows first."""
        if self.adapter.waits:
            return self._bridge.run(self._all_first(begun))
        return [self._shows(*one) for one in begun]

    def _shows(self, seed: int, level: int) -> Shown:
        session: Any = self.adapter.session()
        try:
            return session.reset(seed, level)
        finally:
            session.close()

    async def _all_first(self, begun: Sequence[tuple[int, int]]) -> list[Shown]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(seed: int, level: int) -> Shown:
            async with gate:
                session: Any = self.adapter.session()
                try:
                    return await session.reset(seed, level)
                finally:
                    await session.close()

        return await asyncio.gather(*(one(*each) for each in begun))

    def environment(self, task: Task, noise: bool) -> Environment:
        """A fresh episode. The environment's own luck is part of the task; there is no other noise."""
        if self.adapter.waits:
            return Waiting(self.adapter, self.rules, self._bridge)
        return Played(self.adapter, self.rules)

    def close(self) -> None:
        """Close what the episodes share."""
        self.adapter.close()
        self._bridge.stop(self.adapter.ended())

    # ---- free text

    def messages(self, task: Task) -> list[dict[str, str]]:
        """System (how to act) and user (what is shown first)."""
        told, system = task.prompt.removesuffix("\n\n"), task.state.system
        user = {"role": "user", "content": told.removeprefix(f"{system}\n\n") if system else told}
        return [{"role": "system", "content": system}, user] if system else [user]

    def marks(self) -> list[str]:
        """The actions and the tags of plans."""
        tags = [self._tags.open(PLAN), self._tags.close(PLAN)] if self.opens else []
        return [*tags, *self.adapter.marks()]

    @cached_property
    def _texts(self) -> list[str]:
        first = self.family(random.Random(0), [self.levels[0]] * 2 + [self.levels[-1]] * 2, "train")
        return [*self.adapter.texts(), *(task.prompt for task in first)]

    def texts(self) -> list[str]:
        """What a tokenizer that is made for this environment learns from: instructions and observations."""
        return self._texts

    # ---- demonstrations

    @property
    def all_demonstrable(self) -> bool:  # type: ignore[override]
        """Whether there is something to imitate: random actions, which show how acts are written."""
        return not self.adapter.waits and not self.opens and self.adapter.sample(random.Random(0)) is not None

    def demonstrate(self, task: Task) -> list[Turn]:
        """An episode of random actions. They are not good, but they are actions: a model that has never seen
        the environment learns their form from a few of them, and reinforcement does the rest."""
        # not the environment's own seed: one that draws its goal from it would be shown the right action
        rng = random.Random(f"demonstration/{task.state.seed}")
        episode, turns = self.environment(task, False), []
        try:
            episode.reset(task, task.state.seed)
            for _ in range(min(self.turns, SHOWN)):
                turns.append(Turn(role="act", text=str(self.adapter.sample(rng))))
                outcome: Any = episode.step(turns[-1].text)
                if outcome.done:
                    break
                turns.append(Turn(role=None, text=outcome.observation or ""))
        finally:
            episode.close()
        return turns if turns[-1].role else turns[:-1]

    # ---- plans

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """One closed, non-empty plan without a tag in it; as steps, in the grammar of the tools."""
        read = self._tags.turn(PLAN, text)
        if isinstance(read, Parsed) and self.steps_of is not None:
            return verdict(self.steps_of.parse(read.value.text, read.value.start))
        return verdict(read)

    def meaning(self, task: Task, text: str) -> str:
        """Its words, without case."""
        return " ".join(text.removesuffix(self._tags.close(PLAN)).lower().split())


class GivenEnvironments(Environments):
    """The same where somebody gave the tasks, each with a number: there is an end to them."""

    def __init__(self, levels: tuple[int, ...], adapter: Adapter, setting: Setting):
        super().__init__(levels, adapter, setting)
        given = adapter.given or 0
        if given < 2:
            raise RecipeError(
                WHERE, f"{adapter.name} has {given} tasks; it takes one to train on and one to evaluate"
            )
        held = max(1, given // 5)  # the last fifth evaluates
        numbers = {"train": range(given - held), "eval": range(given - held, given)}
        self._pools = {split: self._given(list(found)) for split, found in numbers.items()}

    def _given(self, numbers: list[int]) -> list[Task]:
        told = {n: said for n in numbers if (said := self.adapter.prompt(n)) is not None}
        unknown = [n for n in numbers if n not in told]
        shown = dict(zip(unknown, self._first([(n, self.levels[0]) for n in unknown]), strict=True))
        tasks = []
        for number in numbers:
            system, first = told.get(number, (None, ""))
            seen = shown[number] if system is None else Shown(text=first)
            tasks.append(self._task(number, self.levels[0], seen, system))
        return tasks

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """One task per level, each drawn from all of the split."""
        return [rng.choice(self.pool(level, split)) for level in levels]

    def pool(self, level: int, split: Split) -> list[Task]:
        """Every task of a split: all have one level."""
        if level not in self.levels:
            raise RecipeError("task.levels", f"level {level} is not one of the task's {list(self.levels)}")
        return self._pools[split]

    def longest(self, n: int) -> list[Task]:
        """The `n` longest tasks of both splits, in characters."""
        return sorted([*self._pools["train"], *self._pools["eval"]], key=lambda task: len(task.prompt))[-n:]


def _budgets(said: Mapping[str, Any], act: int, plans: bool) -> dict[str, int]:
    budgets = ({"plan": 128} if plans else {}) | {"act": act}
    for role, tokens in said.items():
        if role not in budgets:
            raise RecipeError(f"task.budgets.{role}", f"unknown role; this task has {', '.join(budgets)}")
        if type(tokens) is not int or tokens < 1:
            raise RecipeError(f"task.budgets.{role}", f"{tokens!r} is not a number of tokens, at least 1")
    return budgets | dict(said)
