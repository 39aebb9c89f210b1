"""Reinforcement: a step samples trees of rollouts and learns from their rewards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from forethought.core.named import HERE, is_named
from forethought.recipe.check_isolation import check_isolation
from forethought.recipe.check_reinforce import check_reinforce, part_of
from forethought.recipe.check_training import check_training
from forethought.recipe.kinds.words import trains
from forethought.recipe.roles import counts_of, sampled_in
from forethought.recipe.schema import (
    Change,
    CreditSpec,
    Recipe,
    ShapingSpec,
    StageSpec,
    TrainingSpec,
    TreeSpec,
    named_with,
)
from forethought.recipe.speaking import roles_of, speaks
from forethought.recipe.work import Lengths, Wave, Work, wave_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce(TrainingSpec):
    kind: str = "reinforce"
    tree: TreeSpec = field(default_factory=TreeSpec)
    """How many turns of each role are sampled, and how."""
    reward: dict[str, dict[str, float]] = field(default_factory=dict)
    """Role -> part -> weight. A part is one that the environment or the taskset gives (docs/rewards.md),
    or a function of your own, `{ act = { "rewards.py:short" = 1.0 } }`, whose part has the function's
    name. Empty: success, counted once."""
    parts: dict[str, str] = field(default_factory=dict)
    """The same by a name of your choice, for `reward` to weigh: name -> `file.py:function`,
    `package.module:function`, or what an installed package declares."""
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Models behind an endpoint that judge, each a part of the reward by the name it has here: name ->
    `{ endpoint = URL, model = NAME, prompt = TEXT, ... }` (docs/rewards.md)."""
    shaping: ShapingSpec = field(default_factory=ShapingSpec)
    """What the reward parts `analytic` and `length` need."""
    credit: CreditSpec = field(default_factory=CreditSpec)
    """How rewards become advantages."""
    loss_norm: Literal["tokens", "sequences", "constant"] = "tokens"
    """What the loss of rollouts is divided by: its `tokens`, its turns (`sequences`, each averaged
    first), or turns x budget (`constant`, Dr. GRPO)."""
    ref_kl: float = 0.0
    """Weight of KL to the policy at the stage's start. 0: off."""
    updates: int = 1
    """Optimizer steps per batch of rollouts. Above 1 the ratio is clipped."""
    dynamic_sampling: int = 0
    """How many times a step draws new tasks in place of groups without a spread of rewards (DAPO, arXiv
    2503.14476). 0: they are left out."""
    skip_zero: bool = True
    """Leaves groups without a spread of rewards out of the backward pass (same gradient)."""

    learns_from: ClassVar = "trees"
    default_loss: ClassVar = "grpo"

    @property
    def weights_of_parts(self) -> dict[str, dict[str, float]]:
        """`reward`, with the functions that it names by the names of their parts."""
        return {
            role: {part_of(key): weight for key, weight in counted.items()}
            for role, counted in self.reward.items()
        }

    @property
    def functions(self) -> dict[str, str]:
        """Part -> the code that gives it, of `parts`, of `judges` and of `reward`."""
        named = (key for counted in self.reward.values() for key in counted if is_named(key))
        judges = {name: judge_name(name, table) for name, table in self.judges.items()}
        return self.parts | judges | {part_of(key): key for key in named}

    @property
    def grams(self) -> str:
        """Path of the list of grams that the credit reads; "" for none."""
        return self.credit.grams

    def check(self, where: str, recipe: Recipe) -> None:
        """RecipeError for what reinforcement cannot do in this recipe."""
        check_training(where, self, recipe)
        continues = speaks(recipe.workflow.name).continues
        # a protocol's fields can be set, those of a frozen record cannot: mypy minds, the check only reads
        check_reinforce(where, self, roles_of(recipe), continues)  # type: ignore[arg-type]
        check_isolation(where, self, recipe)

    def lengths(self, n: Lengths) -> Lengths:
        """The task's lengths with the stage's own budgets in their place."""
        return replace(n, said={role: self.tree.tokens.get(role) or most for role, most in n.said.items()})

    def per_task(self, roles: tuple[str, ...]) -> int:
        """Turns sampled for one task, over all roles."""
        return sum(sampled_in(self.tree, roles).values())

    def work(self, n: Lengths, used: float, recipe: Recipe) -> Work:
        """Steps, sampler calls by role, and tokens; `used`: share of a budget that turns fill."""
        tree, rows, read = self.tree, 1, 0.0
        each: dict[str, int] = {}
        waves: dict[str, Wave] = {}
        for role, count in counts_of(tree, list(n.said)).items():
            if not count:
                break  # the tree ends before it
            read += n.prompt + sum(each[above] * used * n.said[above] for above in n.above(role))
            group = 1 if role in tree.oracle else count
            each[role] = rows = rows * group
            if role not in tree.oracle:
                waves[role] = wave_of(n, role, self.batch * rows, group, used)
        said = sum(each[role] * n.said[role] for role in waves)
        shown = sum(n.said[role] for role in each if role not in waves)  # the oracle's: read, not sampled
        return Work(
            steps=self.steps,
            prefilled=self.batch * read,
            sampled=self.batch * used * said,
            sampled_most=self.batch * (1 + self.dynamic_sampling) * said,
            trained=self.updates * self.batch * (n.prompt + used * (shown + said)),
            trained_most=self.updates * self.batch * (n.prompt + shown + said),
            waves=waves,
        )

    def outline(self, recipe: Recipe) -> str:
        """One line for a dry run."""
        return trains(
            self, recipe, f"{tree_in_words(self.tree, roles_of(recipe))}, credit {self.credit.name}"
        )

    def with_paths(self, where: str, change: Change) -> StageSpec:
        """The stage with every path in it (grams, credit, parts, loss) changed by `change`."""
        credit = replace(
            self.credit,
            grams=change(f"{where}.credit.grams", self.grams) if self.grams else "",
            name=named_with(change, f"{where}.credit.name", self.credit.name),
        )
        parts = {part: named_with(change, f"{where}.parts.{part}", text) for part, text in self.parts.items()}
        reward = {
            role: {named_with(change, f"{where}.reward.{role}", key): w for key, w in counted.items()}
            for role, counted in self.reward.items()
        }
        stage = replace(self, credit=credit, parts=parts, reward=reward)
        return TrainingSpec.with_paths(stage, where, change)


def judge_name(name: str, table: Mapping[str, Any]) -> str:
    """By which code finds the judge that this table says, once a run has made it (`runs.functions`)."""
    said = json.dumps([name, table], sort_keys=True)
    return f"{HERE}:judge_{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def tree_in_words(tree: TreeSpec, roles: Sequence[str]) -> str:
    """What is sampled at each place: 4 plan x 3 act."""
    counts = counts_of(tree, roles)
    return " x ".join(
        f"the oracle's {role}" if role in tree.oracle else f"{counts[role]} {role}" for role in roles
    )
