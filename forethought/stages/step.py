"""A stage at work: one step after the other, each as the stage's kind takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forethought.recipe.schema import StageSpec
from forethought.stages import imitate, reinforce
from forethought.stages.outcome import Step
from forethought.stages.setting import Setting

TakeStep = Callable[[Setting, int, bool], Step]
STEPS: dict[str, TakeStep] = {"imitate": imitate.step, "reinforce": reinforce.step}
"""Kind of a stage that trains (recipe.kinds.KINDS) -> its step."""


def step_of(spec: StageSpec) -> TakeStep:
    """The step of a stage's kind; of a kind of one's own, the method of its record."""
    own: TakeStep | None = getattr(spec, "step", None)
    return own if own is not None else STEPS[spec.kind]


@dataclass(slots=True)
class Stage(Setting):
    """One stage at work."""

    def step(self, k: int, conflict: bool = False) -> Step:
        """Step `k` of the stage (from 0); `conflict`: also measure the cosine between the roles' gradients.
        Raises UpdateRefused if a loss or a gradient is not finite: then no policy has moved in this
        update."""
        return step_of(self.spec)(self, k, conflict)
