"""Distillation: worked solutions become plans, which the imitation after it shows. Nothing trains, so a stage
has no other key; what it distils with is checked against the task family (`stages/distill/check.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from forethought.core.errors import RecipeError
from forethought.recipe.ranges import listed
from forethought.recipe.schema import ModelSpec, Recipe, StageSpec
from forethought.recipe.speaking import roles_of
from forethought.recipe.work import Lengths, Wave, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSpec:
    """Guidance distillation (stage 1 of PTA-GRPO, arXiv 2510.01833): worked solutions of the training
    problems become plans, which the imitation after it shows. Nothing trains; the data set lies in the run's
    `guided/`."""

    summariser: Literal["rules", "policy", "model", "endpoint"] = "rules"
    """Who writes the plans. `rules`: the taskset's own; `policy`: the model itself; `model`: another one
    on this machine; `endpoint`: a server that speaks as OpenAI's does."""
    problems: int = 0
    """Training problems to take, in order. 0: all (desk and blocksworld draw theirs: say how many)."""
    plan_tokens: int = 256
    """Most tokens of a plan that the policy or the model writes."""
    model: ModelSpec = field(default_factory=lambda: ModelSpec(init=""))
    """The summariser's model, `{ path = ... }`: loaded for the distillation, then let go."""
    most_chars: int = 1500
    """Longer plans are dropped."""
    most_numbers: int = 2
    """Plans with more numbers that the problem does not state are dropped."""
    solver: Literal["none", "policy", "exact"] = "none"
    """Drops the plans under which the model's own acting does not reach the answer (`policy`), or which
    the taskset's executor does not carry out to the goal (`exact`: desk and blocksworld)."""
    tries: int = 4
    """Tries of the policy under each plan."""
    try_temperature: float = 1.0
    """Temperature of these tries."""
    solved: float = 0.0
    """Least share of the tries that must succeed. 0: one of them is enough."""
    endpoint: dict[str, Any] = field(default_factory=dict)
    """base_url, model, key_env, prices and more (stages/distill/endpoint_spec.py)."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """Of the data set; `parquet` needs the extra `data`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill(StageSpec):
    kind: str = "distill"
    distill: DistillSpec = field(default_factory=DistillSpec)
    """What is distilled, and by whom."""

    def check(self, where: str, recipe: Recipe) -> None:
        """What can be seen in a recipe alone."""
        roles = roles_of(recipe)
        if self.distill.solver == "policy" and len(roles) != 2:
            raise RecipeError(
                f"{where}.distill.solver",
                '"policy" acts in the last role under a plan that the first one says, and '
                f'{recipe.workflow.name} speaks {listed(roles)}; take "exact" or "none"',
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
        """One line for a dry run."""
        some = (
            f"{self.distill.problems} training problems" if self.distill.problems else "all training problems"
        )
        return (
            f"{' '.join(self.name.split()) or self.kind}: plans for {some}, by {self.distill.summariser}; "
            "trains nothing"
        )

    def with_models(self, change: Callable[[ModelSpec], ModelSpec]) -> StageSpec:
        """The stage with its summariser's model changed; unchanged if it names none."""
        if not self.distill.model.path:
            return self
        return replace(self, distill=replace(self.distill, model=change(self.distill.model)))
