"""WebRL (arXiv 2411.02337): a stage in phases, each on tasks that grew out of those that failed in the one
before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from forethought.core.errors import RecipeError
from forethought.learn.losses import row
from forethought.recipe.check_reinforce import VALUED
from forethought.recipe.kinds.reinforce import Reinforce, tree_in_words
from forethought.recipe.kinds.words import trains
from forethought.recipe.ranges import above, at_least, listed, ordered, within
from forethought.recipe.schema import CreditSpec, Recipe
from forethought.recipe.speaking import roles_of
from forethought.recipe.work import Lengths, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class CurriculumSpec:
    tasks: Literal["evolve", "band", "uniform"] = "evolve"
    """Tasks of a phase after the first. `evolve`: those that failed in the phase before, made into others by
    the taskset's `mutate`, as far as the critic finds them neither hopeless nor easy; `band`: fresh ones,
    chosen by the critic alike; `uniform`: fresh ones."""
    low: float = 0.05
    """Least success that the critic expects of a task."""
    high: float = 0.75
    """Most success that the critic expects of a task."""
    candidates: int = 4
    """Tasks that are made for each one that is needed. Where too few lie between the bounds, those nearest
    to them are taken too."""
    endpoint: dict[str, Any] = field(default_factory=dict)
    """A model that writes the tasks anew, for a taskset of texts, in place of `mutate`: `{ endpoint = URL,
    model = NAME, votes = 2, ... }` (docs/webrl.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSpec:
    """Who expects how much success in a state: a policy of its own, which answers yes or no."""

    lr: float = 1e-3
    """Learning rate (AdamW). The paper's, for models of 8B, is 1e-6."""
    updates: int = 1
    """Updates on the trajectories of a step. A critic that begins with random answers needs several."""
    weights: Literal["auto", "adapter", "model"] = "auto"
    """An adapter on the base, or a copy of it. `auto`: an adapter, unless the base itself trains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeSpec:
    """A model that judges whether an episode succeeded, from what was read and said in it: another policy
    that answers yes or no. It is measured against the exact reward on rollouts that it has not learned."""

    learns: int = 0
    """Phases, from the first, in which it learns from the exact reward. 0: there is none."""
    trust: bool = False
    """From then on its verdict is the reward, in place of the exact one, which is still measured."""
    lr: float = 1e-3
    """Learning rate (AdamW)."""
    updates: int = 1
    """Updates on the trajectories of a step."""
    weights: Literal["auto", "adapter", "model"] = "auto"
    """As the critic's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySpec:
    """Successes of earlier phases that are learned again, where the policy is neither sure of them nor far
    from them."""

    most: float = 2.0
    """Most replayed trajectories for each one that a step samples. 0: none."""
    low: float = 1 / 0.95
    """Least perplexity of a turn under the policy at the start of the phase; of 1 / 0.95 its tokens have a
    probability of 0.95."""
    high: float = 2.0
    """Most perplexity of a turn."""
    keep: int = 256
    """Successes that are kept, the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRL(Reinforce):
    kind: str = "webrl"
    phases: int = 4
    """Phases of equally many steps. At the start of each the reference becomes the policy as it is, tasks
    are chosen, and the buffer is sifted."""
    curriculum: CurriculumSpec = field(default_factory=CurriculumSpec)
    """Which tasks a phase has."""
    critic: CriticSpec = field(default_factory=CriticSpec)
    """Who expects how much success in a state."""
    outcome: OutcomeSpec = field(default_factory=OutcomeSpec)
    """Who judges episodes, where that is a model."""
    replay: ReplaySpec = field(default_factory=ReplaySpec)
    """Which successes are learned again."""
    credit: CreditSpec = field(default_factory=lambda: CreditSpec(name="webrl"))
    """How rewards and the critic's values become advantages: `webrl` or `webrl_released`."""
    loss_norm: Literal["tokens", "sequences", "constant"] = "sequences"
    """What the loss is divided by: its turns (`sequences`), as the regression is by turn, or its `tokens`,
    or turns x budget (`constant`)."""

    default_loss: ClassVar = "webrl"

    def check(self, where: str, recipe: Recipe) -> None:
        """RecipeError for what such a stage cannot do in this recipe."""
        if self.credit.name not in VALUED:
            raise RecipeError(
                f"{where}.credit.name",
                f"a stage of kind webrl credits turns by its critic: {listed(VALUED, 'or')}; found "
                f"{self.credit.name!r}",
            )
        Reinforce.check(self, where, recipe)
        at_least(f"{where}.phases", self.phases, 1)
        if self.until.steps % self.phases:
            raise RecipeError(
                f"{where}.phases",
                f"{self.phases} phases do not divide {self.until.steps} steps (until.steps)",
            )
        for key in ("share", "dynamic_sampling"):
            if getattr(self, key) != getattr(Reinforce(), key):
                raise RecipeError(
                    f"{where}.{key}", f"the tasks of a phase are chosen beforehand; take {key} out"
                )
        self._check_curriculum(f"{where}.curriculum")
        for key, spec in (("critic", self.critic), ("outcome", self.outcome)):
            above(f"{where}.{key}.lr", spec.lr, 0)
            at_least(f"{where}.{key}.updates", spec.updates, 1)
        within(f"{where}.outcome.learns", self.outcome.learns, 0, self.phases)
        if self.outcome.trust and not 0 < self.outcome.learns < self.phases:
            raise RecipeError(
                f"{where}.outcome.trust",
                "what is trusted has learned before, and has phases left to judge: outcome.learns from 1 to "
                f"{self.phases - 1}, found {self.outcome.learns}",
            )
        at_least(f"{where}.replay.most", self.replay.most, 0)
        if self.replay.most and "old" in row(self.loss_name, f"{where}.loss").needs:
            raise RecipeError(
                f"{where}.loss",
                f'"{self.loss_name}" compares with the log-probs of sampling, which replayed turns have not '
                'kept; use "webrl" or "webrl_released", or replay.most = 0',
            )
        if self.replay.most and self.replay.keep < 1:
            raise RecipeError(
                f"{where}.replay.keep",
                f"{self.replay.keep} successes are kept, and replay.most is {self.replay.most:g}; "
                "keep at least 1, or replay none (replay.most = 0)",
            )
        at_least(f"{where}.replay.keep", self.replay.keep, 0)
        at_least(f"{where}.replay.low", self.replay.low, 1)
        ordered(f"{where}.replay", "low", self.replay.low, "high", self.replay.high)

    def _check_curriculum(self, where: str) -> None:
        spec = self.curriculum
        within(f"{where}.low", spec.low, 0, 1)
        within(f"{where}.high", spec.high, 0, 1)
        ordered(where, "low", spec.low, "high", spec.high)
        at_least(f"{where}.candidates", spec.candidates, 1)
        if spec.endpoint and spec.tasks != "evolve":
            raise RecipeError(
                f"{where}.endpoint", f'it writes tasks anew, and tasks = "{spec.tasks}" draws fresh ones'
            )

    def work(self, n: Lengths, used: float, recipe: Recipe) -> Work:
        """As reinforcement, with replay, and a critic and a judge that read the same."""
        plain = Reinforce.work(self, n, used, recipe)
        most = self.replay.most
        more = self.critic.updates + self.outcome.updates * bool(self.outcome.learns)
        return replace(
            plain,
            trained=plain.trained * (1 + most / 2 + more),
            trained_most=plain.trained_most * (1 + most) * (1 + more),
        )

    def outline(self, recipe: Recipe) -> str:
        """One line for a dry run."""
        said = f"{self.phases} phases, tasks: {self.curriculum.tasks}"
        return trains(self, recipe, f"{tree_in_words(self.tree, roles_of(recipe))}, {said}")
