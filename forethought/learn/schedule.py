"""When a stage ends and how its learning rate moves. Every ending is a decision with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from forethought.recipe.schedules import factor
from forethought.recipe.schema import OptimSpec, UntilSpec


def lr_scale(optim: OptimSpec, step: int, steps: int) -> float:
    """Factor on the rate for the update after `step` finished ones: a straight warm-up, times what the
    schedule makes of it (`recipe.schedules`)."""
    warm = min(1.0, (step + 1) / optim.warmup) if optim.warmup else 1.0
    return warm * factor(optim, step, steps)


def reached(until: UntilSpec, evaluations: Sequence[Mapping[str, float]]) -> str:
    """Why the stage may end before its steps are done, or "". Reads the stage's evaluations, the newest last.

    The evaluation at the stage's start does not count: a stage that is asked for trains at least until its
    first own one.
    """
    if not until.metric or len(evaluations) <= until.patience:
        return ""
    values = [e.get(until.metric) for e in evaluations[-until.patience :]]
    for value in values:
        if value is None or not math.isfinite(value):
            return ""
        if until.at_least is not None and value < until.at_least:
            return ""
        if until.at_most is not None and value > until.at_most:
            return ""
    bound = f"at least {until.at_least}" if until.at_least is not None else f"at most {until.at_most}"
    times = f", {until.patience} evaluations in a row" if until.patience > 1 else ""
    return f"{until.metric} is {values[-1]:.3f}, {bound}{times}"
