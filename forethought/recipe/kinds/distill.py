"""Distillation: worked solutions become plans, which the imitation after it shows. Nothing trains, so a stage has
no other key; what it distils with is checked against the task family (`stages/distill/check.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from forethought.core.errors import RecipeError
from forethought.recipe.ranges import listed
from forethought.recipe.schema import DistillSpec, ModelSpec, Recipe, StageSpec
from forethought.recipe.speaking import roles_of
from forethought.recipe.work import Lengths, Wave, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill(StageSpec):
    kind: str = "distill"
    distill: DistillSpec = field(default_factory=DistillSpec)

    def check(self, where: str, recipe: Recipe) -> None:
        """What can be seen in a recipe alone."""
        roles = roles_of(recipe)
        if self.distill.solver == "policy" and len(roles) != 2:
            raise RecipeError(
                f"{where}.distill.solver",
                f'"policy" acts in the last role under a plan that the first one says, and {recipe.workflow.name} '
                f'speaks {listed(roles)}; take "exact" or "none"',
            )

    def work(self, n: Lengths, used: float, recipe: Recipe) -> Work:
        """Of one problem, where a model at hand writes the plan."""
        first, last = list(n.said)[0], list(n.said)[-1]
        if self.distill.summariser not in ("policy", "model"):
            return Work(steps=0)
        chain, plan = used * n.said[last], self.distill.plan_tokens
        wave = Wave(rows=1, group=1, above=n.prompt + chain, most_above=n.prompt + n.said[last], budget=plan)
        return Work(
            steps=self._problems(recipe),
            prefilled=wave.above,
            sampled=used * plan,
            sampled_most=plan,
            waves={first: wave},
        )

    def _problems(self, recipe: Recipe) -> int:
        """0 where only the files know."""
        demos = recipe.task.options.get("demos")
        return self.distill.problems or (demos.get("most", 0) if isinstance(demos, dict) else 0)

    def outline(self, recipe: Recipe) -> str:
        some = (
            f"{self.distill.problems} training problems" if self.distill.problems else "all training problems"
        )
        return f"{' '.join(self.name.split()) or self.kind}: plans for {some}, by {self.distill.summariser}; trains nothing"

    def with_models(self, change: Callable[[ModelSpec], ModelSpec]) -> StageSpec:
        if not self.distill.model.path:
            return self
        return replace(self, distill=replace(self.distill, model=change(self.distill.model)))
