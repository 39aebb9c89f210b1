"""Whether a plan helps: it is acted under, by the model or by the task family's exact executor. The filter's
last and dearest question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from forethought.core.scores import success_of
from forethought.core.seeds import seed_of
from forethought.core.types import Task, Tree
from forethought.recipe.schema import TreeSpec
from forethought.stages.distill.records import Item, Usage, task_of
from forethought.tasks.base import Guidable, Taskset, needed
from forethought.workflows.rollout import Rollouts


class Solver(Protocol):
    """(Item, plan) pairs -> for each, whether the plan led to the answer. Items carry their task."""

    name: str
    settings: Mapping[str, object]  # for the provenance
    spent: Usage  # so far

    def estimate(self, plans: int) -> Usage:
        """At most what trying so many plans takes."""

    def __call__(self, pairs: Sequence[tuple[Item, str]]) -> Sequence[bool]: ...


class Exact:
    """The executor of a family whose plans can be carried out exactly: the plan reaches the goal, and by the
    acts of the chain."""

    name = "exact"

    def __init__(self, taskset: Taskset):
        self.taskset = taskset
        self.settings: Mapping[str, object] = {"solver": self.name}
        self.spent = Usage()

    def estimate(self, plans: int) -> Usage:
        """Nothing: the exact executor costs no requests."""
        return Usage()

    def __call__(self, pairs: Sequence[tuple[Item, str]]) -> list[bool]:
        return [self._solves(item, plan) for item, plan in pairs]

    def _solves(self, item: Item, plan: str) -> bool:
        task = task_of(item)
        first, *rest = needed(self.taskset, Guidable, "solver").with_plan(task, plan, item.chain)
        acts = [turn.text for turn in rest if turn.role is not None]
        return bool(
            self.taskset.judge_plan(task, first.text).score
            and self.taskset.follows(task, first.text, acts).score
        )


class Acting:
    """The policy of the last role acts, `tries` times under each plan, which the first role says; a plan is
    kept where at least `share` of the tries, and at least one, succeed. A plan that leaves the model no room
    to act leads nowhere. `batch` tasks a call of the engine."""

    name = "policy"

    def __init__(
        self,
        rollouts: Rollouts,
        policy: str,
        *,
        tries: int = 4,
        share: float = 0.0,
        temperature: float = 1.0,
        seed: int = 0,
        batch: int = 64,
    ):
        self.rollouts, self.policy = rollouts, policy
        self.tries, self.share, self.temperature, self.seed, self.batch = (
            tries,
            share,
            temperature,
            seed,
            batch,
        )
        self.settings: Mapping[str, object] = {
            "solver": self.name,
            "tries": tries,
            "solved": share,
            "try_temperature": temperature,
        }
        self.spent = Usage()

    def estimate(self, plans: int) -> Usage:
        """`tries` executions for each plan, each with every turn at its full budget."""
        tries = plans * self.tries
        return Usage(requests=tries, completion_tokens=tries * self._longest)

    def __call__(self, pairs: Sequence[tuple[Item, str]]) -> list[bool]:
        shown = [
            (item, self.rollouts.taskset.with_plan(task_of(item), plan, item.chain)[0].text)
            for item, plan in pairs
        ]
        asked = [
            (item, text, ids)
            for item, text in shown
            if self._fits(task_of(item), ids := self.rollouts.words.turn(self.rollouts.roles[0], text))
        ]
        won: dict[str, bool] = {}
        for start in range(0, len(asked), self.batch):
            some = asked[start : start + self.batch]
            trees = self.rollouts.execute(
                [task_of(item) for item, _, _ in some],
                [[[(text, ids)]] for _, text, ids in some],
                TreeSpec(counts={self.rollouts.roles[-1]: self.tries}, temperature=self.temperature),
                self.policy,
                seed_of(self.seed, "solve"),
                noise=False,
                first=start,
            )
            won |= {item.id: self._enough(tree) for (item, _, _), tree in zip(some, trees, strict=True)}
        return [won.get(item.id, False) for item, _ in pairs]

    @property
    def _longest(self) -> int:
        """Most tokens of one try."""
        return self.rollouts.taskset.turns * self.rollouts.words.budgets[self.rollouts.roles[-1]]

    def _fits(self, task: Task, plan: tuple[int, ...]) -> bool:
        before = len(self.rollouts.words.root_ids(task)) + len(plan)
        return before + self._longest <= self.rollouts.engine.context

    def _enough(self, tree: Tree) -> bool:
        said = [node for node in tree.nodes if node.policy is not None]
        under = sum(len(node.token_ids) for node in tree.nodes if node.policy is None)
        self.spent += Usage(
            requests=self.tries,
            prompt_tokens=under,
            completion_tokens=sum(len(node.token_ids) for node in said),
        )
        won = sum(success_of(leaf.reward_parts) or 0.0 for leaf in tree.leaves())
        return won >= max(1.0, self.share * self.tries)
