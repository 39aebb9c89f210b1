"""A stage at work: one step after the other, each as the stage's kind takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forethought.core.errors import CodeFault, ForethoughtError, is_machines
from forethought.core.metrics import Metric
from forethought.core.places import said_of, source_of
from forethought.recipe.schema import StageSpec
from forethought.stages import imitate, reinforce
from forethought.stages.outcome import Step
from forethought.stages.setting import Setting
from forethought.stages.webrl import step as webrl

TakeStep = Callable[[Setting, int, bool], Step]
STEPS: dict[str, TakeStep] = {"imitate": imitate.step, "reinforce": reinforce.step, "webrl": webrl.step}
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
        update. CodeFault where a kind of one's own raises, or gives no Step."""
        step = step_of(self.spec)
        return step(self, k, conflict) if self.spec.kind in STEPS else _guarded(step, self, k, conflict)


def _guarded(own: TakeStep, stage: Stage, k: int, conflict: bool) -> Step:
    name = stage.spec.kind
    try:
        found: object = own(stage, k, conflict)
    except ForethoughtError:
        raise
    except Exception as error:
        if is_machines(error):
            raise
        raise CodeFault("kind", said_of(f"step of {name}", error)) from error
    _, line = source_of(own)
    if not isinstance(found, Step):
        raise CodeFault(
            "kind", f"step of {name} must return a stages.outcome.Step, gave {found!r:.60} ({line})"
        )
    for key, value in found.metrics.items():
        if not isinstance(value, Metric):
            said = (
                f"metric {key!r} of {name} must be one of core.metrics (Mean, Sum, ...), found {value!r:.60}"
            )
            raise CodeFault("kind", f"{said} ({line})")
    return found
