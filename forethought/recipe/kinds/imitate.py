"""Imitation: a step learns what the task family's demonstrations say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from forethought.core.errors import RecipeError, unknown
from forethought.recipe.check_isolation import check_isolation
from forethought.recipe.check_training import check_training
from forethought.recipe.kinds.words import trains
from forethought.recipe.ranges import at_least, one_per_level, within
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.recipe.work import Lengths, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Imitate(TrainingSpec):
    kind: str = "imitate"
    loss_share: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Role -> for each level, the share of demonstrations in which that role's tokens carry loss.
    Absent: all."""
    batch_tokens: int = 0
    """Tokens of a step, prompts included: demonstrations are drawn `batch` at a time until there are so
    many, and have the gradient of one large batch. 0: `batch` demonstrations, however long."""

    learns_from: ClassVar = "demonstrations"
    default_loss: ClassVar = "sft"

    def check(self, where: str, recipe: Recipe) -> None:
        """RecipeError for what imitation cannot do in this recipe."""
        check_training(where, self, recipe)
        at_least(f"{where}.batch_tokens", self.batch_tokens, 0)
        for role, shares in self.loss_share.items():
            here = f"{where}.loss_share.{role}"
            if role not in self.roles:
                raise RecipeError(here, unknown("role of this stage", role, self.roles))
            one_per_level(here, shares, self.levels or recipe.task.levels)
            for i, share in enumerate(shares):
                within(f"{here}.{i}", share, 0, 1)
            if not any(shares):
                raise RecipeError(
                    here, f"no {role} token would ever carry loss; take {role!r} out of roles instead"
                )
        check_isolation(where, self, recipe)

    def work(self, n: Lengths, used: float, recipe: Recipe) -> Work:
        """Steps, and tokens trained: expected, and at most. `used`: share of a budget that turns fill."""
        each = n.prompt + used * sum(n.said.values())
        draws = max(1.0, self.batch_tokens / (self.batch * each))
        most = max(self.batch * n.path, self.batch_tokens + self.batch * n.path if self.batch_tokens else 0)
        return Work(steps=self.steps, trained=draws * self.batch * each, trained_most=most)

    def outline(self, recipe: Recipe) -> str:
        """One line for a dry run."""
        return trains(self, recipe)
